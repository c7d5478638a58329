/** What the tests of the native module share: volumes in temporary files, and what judges them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Volume, type FormatOptions } from '../../src/index.js';

export const MIB = 1024 * 1024;

/** A name for a file that goes with the test. */
export function temporaryPath(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'uext4-native-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return join(folder, 'volume.img');
}

/** A fresh volume in a file that goes with the test. */
export async function freshVolume(
  t: ExecutionContext,
  options: FormatOptions = { sizeBytes: 64 * MIB },
): Promise<string> {
  const path = temporaryPath(t);
  await Volume.format(path, options);
  return path;
}

/** e2fsck finds nothing to say about the volume. Skipped, and said so, where e2fsck is missing. */
export function assertClean(t: ExecutionContext, path: string): void {
  const { error, status, stdout } = spawnSync('e2fsck', ['-fn', path], { encoding: 'utf8' });
  if (error !== undefined) {
    t.log('e2fsck is missing: the volume was not checked');
    return;
  }
  t.is(status, 0, stdout);
}
