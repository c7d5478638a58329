#!/usr/bin/env node
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

import { Volume } from '../index.js';
import { run } from './run.js';

function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

// The reader of a pipe may leave early: `uext4 ls IMAGE | head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

process.exitCode = await run(
  {
    out: async (data) => {
      // The data may be a buffer that is used again: wait until it is taken.
      if (typeof data === 'string') {
        if (!process.stdout.write(data)) await once(process.stdout, 'drain');
        return;
      }
      await new Promise<void>((resolve) => {
        process.stdout.write(data, () => resolve());
      });
    },
    err: (line) => console.error(line),
    open: (image, options) => Volume.open(image, options),
    format: (image, options) => Volume.format(image, options),
    recover: (image, options) => Volume.recover(image, options),
  },
  process.argv.slice(2),
  version,
);
