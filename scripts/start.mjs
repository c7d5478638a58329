/** `npm start`: sets up, then runs the main job with the arguments given. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { root, setupOrExit } from './setup.mjs';

setupOrExit();
const job = join(root, 'dist', 'main-job', 'main.js');
const args = existsSync(job)
  ? [job, ...process.argv.slice(2)]
  : [join(root, 'dist', 'cli', 'main.js'), '--help'];
const { status, signal } = spawnSync(process.execPath, args, { stdio: 'inherit' });
if (signal !== null) process.kill(process.pid, signal);
process.exit(status ?? 1);
