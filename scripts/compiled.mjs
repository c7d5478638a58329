/** Sets up, compiles, and runs one of the checkout's own programs with the arguments given. */
import { spawn, spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';

import { root, setupOrExit } from './setup.mjs';

/** @param {string} folder of the program's main.ts */
export function runCompiled(folder) {
  setupOrExit();
  const compiled = spawnSync(join(root, 'node_modules', '.bin', 'tsc'), ['-p', 'tsconfig.json'], {
    cwd: root,
    stdio: 'inherit',
  });
  if (compiled.status !== 0) process.exit(1);

  const main = join(root, '.build', folder, 'main.js');
  const child = spawn(process.execPath, [main, ...process.argv.slice(2)], { cwd: root, stdio: 'inherit' });
  // It takes its mounts and volumes down itself: stay until it has, and pass on what only we were told.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('exit', (status, signal) => {
    process.exitCode = signal === null ? (status ?? 1) : 128 + constants.signals[signal];
  });
}
