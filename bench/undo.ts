/** What was made is undone: at the end, after an error, and when the process is told to stop. */
import { constants } from 'node:os';

/** A stack of steps back; each is synchronous, so that it can run while the process exits. */
export class Undo {
  readonly #steps: (() => void)[] = [];

  constructor() {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      // Not `once`: a second signal must not cut the first one's cleaning short.
      process.on(signal, () => {
        console.error(`\n${signal}: cleaning up`);
        process.exit(128 + constants.signals[signal]);
      });
    }
    process.once('exit', () => this.run());
  }

  push(step: () => void): void {
    this.#steps.push(step);
  }

  /** Last made, first undone. A step that fails is reported and does not stop the others. */
  run(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        step();
      } catch (error) {
        console.error(`cleaning up: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
}
