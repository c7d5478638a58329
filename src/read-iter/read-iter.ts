/** Reads: direct or through the page cache, both under the shared inode lock (A19). */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { EAGAIN } from '../native/errno.js';

/** Returns bytes read (0 at the end of the file) or a negative errno; moves `io.posBytes`. */
export function* readIter(io: Kiocb): Task<number> {
  // A19: an empty read takes no lock and leaves atime alone.
  if (io.countBytes === 0) return 0;
  const { lock } = io.inode;
  if (io.nowait) {
    if (!lock.tryRead()) return -EAGAIN;
  } else {
    yield* lock.read();
  }
  const direct = readsDirect(io);
  let locked = true;
  let result: number;
  try {
    const token = begin(io.engine, (native, op) => {
      const { file, buffer, offset, countBytes, posBytes } = io;
      if (direct) native.directRead(op, file, buffer, offset, countBytes, posBytes);
      else native.bufferedRead(op, file, buffer, offset, countBytes, posBytes);
    });
    if (direct) {
      // In flight it is counted instead: truncate drains before it frees blocks.
      lock.beginDio();
      lock.unlockRead();
      locked = false;
    }
    result = yield token;
    if (direct) lock.endDio();
  } finally {
    if (locked) lock.unlockRead();
  }
  if (result > 0) io.posBytes += result;
  return result;
}

/** A3 holds for reads too: where direct I/O is unsupported they go through the page cache. */
function readsDirect(io: Kiocb): boolean {
  if (!io.direct) return false;
  const flags = io.engine.native.probeWrite(io.file, io.posBytes, 0);
  return flags < 0 || (flags & ProbeFlag.DIO_UNSUPPORTED) === 0;
}
