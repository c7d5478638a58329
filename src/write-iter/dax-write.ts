/** The path of files on a device in memory (A18): loaded and stored in place, no page cache, no requests. */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { EAGAIN } from '../native/errno.js';
import { countNowait } from '../write-counts.js';
import { syncWritten } from './buffered-write.js';
import { checkRange } from './checked-range.js';
import { addOrphan, cleanUpExtension, extensionCleanup, isExtendingIo } from './extension.js';
import { fileModified } from './file-modified.js';

/**
 * A18: the lock exclusive (NOWAIT: tried), A4, A10, copy, A15, unlock, then O_(D)SYNC. Every write is synchronous, so
 * there is nothing in flight to drain. Returns bytes or a negative errno.
 */
export function* daxWriteIter(io: Kiocb): Task<number> {
  const { lock } = io.inode;
  if (!io.nowait) {
    yield* lock.write();
  } else if (!lock.tryWrite()) {
    countNowait(io.counts, 'lock');
    return -EAGAIN;
  }
  let written: number;
  try {
    written = yield* storeLocked(io);
  } finally {
    lock.unlockWrite();
  }
  return yield* syncWritten(io, written);
}

function* storeLocked(io: Kiocb): Task<number> {
  const { native } = io.engine;
  const { posBytes, countBytes, sizeBytes, diskSizeBytes, flags, refused } = checkRange(io);
  if (refused !== undefined) return refused;
  const extending = isExtendingIo({ posBytes, countBytes, sizeBytes, diskSizeBytes });
  if (io.nowait && extending) {
    countNowait(io.counts, 'extending');
    return -EAGAIN;
  }
  const modified = yield* fileModified(io, flags);
  if (modified < 0) return modified;
  // In place where that changes no metadata; else, errors included, the long way.
  let written = native.tryDaxWrite(io.file, io.buffer, io.offset, countBytes, posBytes);
  if (written < 0) {
    if (io.nowait) {
      if (written === -EAGAIN) countNowait(io.counts, 'notOverwrite');
      return written;
    }
    written = yield* allocateAndStore(io, { posBytes, countBytes, sizeBytes, extending });
  }
  if (written >= 0) io.posBytes = posBytes + written;
  return written;
}

/** With the orphan before, and what a short write allocated too much removed after it (A10, A15). */
function* allocateAndStore(
  io: Kiocb,
  range: {
    readonly posBytes: number;
    readonly countBytes: number;
    readonly sizeBytes: number;
    readonly extending: boolean;
  },
): Task<number> {
  const { posBytes, countBytes, sizeBytes, extending } = range;
  if (extending) {
    const orphan = yield* addOrphan(io);
    if (orphan < 0) return orphan;
  }
  const writtenBytes = yield begin(io.engine, (native, token) =>
    native.daxWrite(token, io.file, io.buffer, io.offset, countBytes, posBytes),
  );
  const endedInsideSize = posBytes + countBytes <= sizeBytes;
  yield* cleanUpExtension(io, extensionCleanup({ extending, countBytes, endedInsideSize, writtenBytes }));
  return writtenBytes;
}
