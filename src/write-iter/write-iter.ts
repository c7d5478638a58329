import type { Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { bufferedWriteIter } from './buffered-write.js';
import { dioWriteIter } from './dio-write.js';

/**
 * A1: shutdown → direct → buffered. A volume that was shut down answers the first probe of either path with EIO.
 * Returns the bytes written or a negative errno; afterwards `io.posBytes` is where the write ended.
 */
export function writeIter(io: Kiocb): Task<number> {
  if (io.direct) return dioWriteIter(io);
  io.counts.buffered += 1;
  return bufferedWriteIter(io);
}
