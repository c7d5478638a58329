import type { Engine } from './engine.js';
import { InodeLock } from './inode-lock.js';

/** One open inode (number and generation): what all its handles share. */
export class OpenInode {
  readonly key: number;
  readonly lock: InodeLock;
  /** Handles open on it. */
  references = 0;

  constructor(key: number, engine: Engine) {
    this.key = key;
    this.lock = new InodeLock(engine);
  }
}
