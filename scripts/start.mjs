/** `npm start`: sets up, then runs the main job with the arguments given. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

import { root, setupOrExit } from './setup.mjs';

setupOrExit();
const job = join(root, 'dist', 'main-job', 'main.js');
const child = spawn(process.execPath, [job, ...process.argv.slice(2)], { stdio: 'inherit' });
// A terminal's Ctrl-C reaches the job itself, which cleans up; we only outlive it.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('close', (status, signal) => {
  process.exitCode = status ?? (signal === null ? 1 : 128);
});
