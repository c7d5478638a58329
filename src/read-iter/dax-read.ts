/** Reads of files on a device in memory (A18). */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';

/**
 * Loads in place where the map is in memory; what is not, an error included, takes the long way, but with NOWAIT. The
 * lock is held shared on entry and released before it returns.
 */
export function* daxRead(io: Kiocb): Task<number> {
  const { file, buffer, offset, countBytes, posBytes } = io;
  try {
    const loaded = io.engine.native.tryDaxRead(file, buffer, offset, countBytes, posBytes);
    if (loaded >= 0 || io.nowait) return loaded;
    return yield begin(io.engine, (native, op) =>
      native.daxRead(op, file, buffer, offset, countBytes, posBytes),
    );
  } finally {
    io.inode.lock.unlockRead();
  }
}
