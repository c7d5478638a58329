/** The path through the page cache (A17). */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { countDrain, countNowait, type DrainReason } from '../write-counts.js';
import { checkRange } from './checked-range.js';
import { fileModified } from './file-modified.js';
import { checkBufferedNowait } from './write-checks.js';

/** Waits for all direct I/O in flight; the lock is held exclusive. */
export function* drainFor(io: Kiocb, reason: DrainReason): Task<void> {
  const { lock } = io.inode;
  if (lock.inFlight > 0) countDrain(io.counts, reason);
  yield* lock.drain();
}

/** O_SYNC and O_DSYNC after the data is in place. Returns `written`, or the sync's error. */
export function* syncWritten(io: Kiocb, written: number): Task<number> {
  if (written <= 0 || !io.dsync) return written;
  const result = yield begin(io.engine, (native, token) => native.sync(token, io.file, !io.sync));
  return result < 0 ? result : written;
}

/**
 * A17: exclusive lock, A4, copy, unlock, then advance pos, then O_(D)SYNC. Returns bytes or a negative errno.
 *
 * It drains direct I/O first: a page that is filled while a direct write of its block is in flight holds the old
 * bytes, and its write-back would bring them back. The kernel only warns of that collision.
 */
export function* bufferedWriteIter(io: Kiocb): Task<number> {
  const nowait = checkBufferedNowait(io);
  if (nowait < 0) {
    countNowait(io.counts, 'buffered');
    return nowait;
  }
  const { lock } = io.inode;
  yield* lock.write();
  let written: number;
  try {
    yield* drainFor(io, 'buffered');
    written = yield* copyLocked(io);
  } finally {
    lock.unlockWrite();
  }
  return yield* syncWritten(io, written);
}

function* copyLocked(io: Kiocb): Task<number> {
  const { posBytes, countBytes, flags, refused } = checkRange(io);
  if (refused !== undefined) return refused;
  const modified = yield* fileModified(io, flags);
  if (modified < 0) return modified;
  const { native } = io.engine;
  // Into the cache without a worker where nobody has to be waited for; else, errors included, the long way.
  let written = native.tryBufferedWrite(io.file, io.buffer, io.offset, countBytes, posBytes);
  if (written < 0) {
    written = yield begin(io.engine, (_native, token) =>
      native.bufferedWrite(token, io.file, 0, io.buffer, io.offset, countBytes, posBytes),
    );
  }
  if (written >= 0) io.posBytes = posBytes + written;
  return written;
}
