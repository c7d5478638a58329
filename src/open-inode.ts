import type { Engine } from './engine.js';
import { InodeLock } from './inode-lock.js';
import type { IoLimits } from './kiocb.js';

/** One open inode (number and generation): what all its handles share. */
export class OpenInode {
  readonly key: number;
  readonly lock: InodeLock;
  readonly limits: IoLimits;
  /** Mapped by indirect blocks: a direct write cannot fill its holes (A12). */
  readonly bitmapFormat: boolean;
  /** Its data is loaded and stored in place (A18). */
  readonly dax: boolean;
  /** Handles open on it. */
  references = 0;

  constructor(key: number, engine: Engine, limits: IoLimits, bitmapFormat = false, dax = false) {
    this.key = key;
    this.lock = new InodeLock(engine);
    this.limits = limits;
    this.bitmapFormat = bitmapFormat;
    this.dax = dax;
  }
}
