/** ext4_file_write_iter: which path a write takes (A1). */
import type { Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { EROFS } from '../native/errno.js';
import { bufferedWriteIter } from './buffered-write.js';
import { daxWriteIter } from './dax-write.js';
import { dioWriteIter } from './dio-write.js';
import { checkAtomic } from './write-checks.js';

/**
 * A1, C23: after a shutdown EIO, in an emergency EROFS; else DAX, direct or buffered. Returns the bytes written or a negative
 * errno; afterwards `io.posBytes` is where the write ended.
 */
export function* writeIter(io: Kiocb): Task<number> {
  const state = io.engine.native.probeWrite(io.file, 0, 0);
  if (state < 0) return state;
  if ((state & ProbeFlag.READ_ONLY) !== 0) return -EROFS;
  if (io.atomic) {
    const { direct, posBytes, countBytes, limits } = io;
    const refused = checkAtomic({ direct, posBytes, countBytes, ...limits });
    if (refused < 0) return refused;
  }
  if (io.inode.dax) {
    io.counts.dax += 1;
    return yield* daxWriteIter(io);
  }
  if (io.direct) return yield* dioWriteIter(io);
  io.counts.buffered += 1;
  return yield* bufferedWriteIter(io);
}
