/** The path of files on a device in memory (A18): loaded and stored in place, no page cache, no requests. */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { EAGAIN } from '../native/errno.js';
import { readSizes } from '../sizes.js';
import { countNowait } from '../write-counts.js';
import { fileModified, needsFileModified, syncWritten } from './buffered-write.js';
import { addOrphan, cleanUpExtension, extensionCleanup, isExtendingIo } from './extension.js';
import { checkWrite, clipCount, writePos } from './write-checks.js';

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
  const { sizeBytes, diskSizeBytes } = readSizes(io);
  const { maxFileBytes } = io.limits;
  const posBytes = writePos({ append: io.append, posBytes: io.posBytes, sizeBytes });
  const countBytes = clipCount({ posBytes, countBytes: io.countBytes, maxFileBytes });
  const flags = native.probeWrite(io.file, posBytes, countBytes);
  if (flags < 0) return flags;
  const immutable = (flags & ProbeFlag.IMMUTABLE) !== 0;
  const refused = checkWrite({ immutable, posBytes, countBytes: io.countBytes, maxFileBytes });
  if (refused < 0 || io.countBytes === 0) return refused;
  const extending = isExtendingIo({ posBytes, countBytes, sizeBytes, diskSizeBytes });
  if (io.nowait && extending) {
    countNowait(io.counts, 'extending');
    return -EAGAIN;
  }
  const modified = yield* modify(io, flags);
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

/** A4.9, without waiting where that will do. */
function* modify(io: Kiocb, flags: number): Task<number> {
  if (!needsFileModified(flags)) return 0;
  const modified = io.engine.native.tryFileModified(io.file);
  if (modified >= 0) return 0;
  if (!io.nowait) return yield* fileModified(io);
  if (modified === -EAGAIN) countNowait(io.counts, 'times');
  return modified;
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
