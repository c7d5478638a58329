/** `npm start`: runs the job; its exit status is 0 only if all held. */
import { fileURLToPath } from 'node:url';

import { JobError, makeContainer, type Container } from './container.js';
import { runJob } from './job.js';
import { HELP, parseOptions, UsageError, type JobOptions } from './options.js';

/** 128 + SIGINT. */
const INTERRUPTED = 130;

/** The first signal ends the job in good order, the second at once. */
function stopOnSignals(container: Container): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) {
        container.removeNow();
        process.exit(INTERRUPTED);
      }
      console.error('\nInterrupted: cleaning up.');
      controller.abort();
    });
  }
  return controller.signal;
}

async function runIn(container: Container, options: JobOptions): Promise<number> {
  const signal = stopOnSignals(container);
  try {
    const allHeld = await runJob(container.path, options, signal);
    console.log(allHeld ? 'All held.' : 'Not all held.');
    return allHeld ? 0 : 1;
  } catch (error) {
    if (signal.aborted) return INTERRUPTED;
    throw error;
  } finally {
    await container.remove();
    if (options.keep || options.image !== undefined) console.log(`The container is kept: ${container.path}`);
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, fileURLToPath(new URL('../../node_modules', import.meta.url)));
  if (options === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  return runIn(await makeContainer(options.image, options.keep), options);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`${error.message}\n\n${HELP}`);
    process.exitCode = 2;
  } else {
    const isPlain = error instanceof JobError || (error as NodeJS.ErrnoException).code !== undefined;
    console.error(isPlain ? (error as Error).message : error);
    process.exitCode = 1;
  }
}
