/** Other programs: whether they are there, and what they print. */
import { spawn, spawnSync } from 'node:child_process';

/** Whether a program can be run at all. */
export function hasTool(command: string, args: readonly string[] = ['--version']): boolean {
  const { error, status } = spawnSync(command, args, { stdio: 'ignore' });
  return error === undefined && status === 0;
}

/** Runs a program that ends at once. @throws with what it printed when it fails */
export function runTool(command: string, args: readonly string[]): string {
  const { error, status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr.trim() || `status ${status}`}`);
  return stdout.trim();
}

const children = new Set<ReturnType<typeof spawn>>();
process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

/** Runs a program without blocking the event loop, so that a signal is heard meanwhile. */
export function runProgram(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', reject);
    child.on('close', (status, signal) => {
      children.delete(child);
      if (status === 0) resolve(stdout);
      else reject(new Error(`${command} ended with ${signal ?? status}: ${stderr.trim() || stdout.trim()}`));
    });
  });
}
