/** Inode locks that break a rule, to see that the explorer notices. */
import type { Task } from '../../src/engine.js';
import { InodeLock } from '../../src/inode-lock.js';

/** A7, C25.5: nobody waits for direct I/O in flight. */
export class NoDrain extends InodeLock {
  // oxlint-disable-next-line require-yield
  override *drain(): Task<void> {
    // As if nothing were in flight.
  }
}

/** C25.5: the exclusive lock is given up at submission, whatever the write is. */
export class EarlyUnlock extends InodeLock {
  #early = 0;

  override beginDio(): void {
    super.beginDio();
    if (!this.writing) return;
    this.#early += 1;
    super.unlockWrite();
  }

  override unlockWrite(): void {
    if (this.#early > 0) this.#early -= 1;
    else super.unlockWrite();
  }
}

/** A2: exclusive is no more than shared. */
export class NoExclusion extends NoDrain {
  override tryWrite(): boolean {
    return this.tryRead();
  }

  override *write(): Task<void> {
    yield* this.read();
  }

  override unlockWrite(): void {
    this.unlockRead();
  }
}
