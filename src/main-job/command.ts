/** A tool of the host, run to its end. */
import { spawn } from 'node:child_process';

/** How a tool ended. */
export interface CommandResult {
  /** The exit status; undefined when the tool is missing, or was killed. */
  readonly status: number | undefined;
  readonly isMissing: boolean;
  /** stdout and stderr as they came. */
  readonly output: string;
}

/** Runs a tool in the C locale; one that takes longer than `timeoutMs` is killed. */
export function runCommand(
  command: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => {
        output += text;
      });
    }
    child.on('error', (error: NodeJS.ErrnoException) => {
      resolve({ status: undefined, isMissing: error.code === 'ENOENT', output: error.message });
    });
    child.on('close', (status, killedBy) => {
      if (killedBy !== null) output += `\n${command}: killed by ${killedBy}`;
      resolve({ status: status ?? undefined, isMissing: false, output });
    });
  });
}
