/** The direct path from end to end: ext4_dio_write_iter as C25 has it. */
import { begin, type Task } from '../engine.js';
import { NOT_SUBMITTED, type Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { EAGAIN, EINVAL, EIO, ENOTBLK, EOPNOTSUPP } from '../native/errno.js';
import { readSizes } from '../sizes.js';
import {
  countExclusive,
  countFallback,
  countNowait,
  countShared,
  countUpgrade,
  uncountShared,
} from '../write-counts.js';
import { isMisalignedIo, isUnalignedIo } from './alignment.js';
import { bufferedWriteIter, drainFor } from './buffered-write.js';
import { checkRange } from './checked-range.js';
import { addOrphan, cleanUpExtension, extensionCleanup, isExtendingIo } from './extension.js';
import { writeTail } from './fallback.js';
import { fileModified } from './file-modified.js';
import {
  guessExclusive,
  judgeLock,
  mustWait,
  whyDrain,
  whyExclusive,
  whyShared,
  type DioShape,
} from './lock-mode.js';
import { submitSharedOverwrite } from './shared-overwrite.js';
import { submitWrite } from './submit.js';

/** One write under its lock: what step 3 found. */
interface Plan extends DioShape {
  readonly exclusive: boolean;
  readonly nowait: boolean;
  readonly posBytes: number;
  /** The clipped count (A4). */
  readonly countBytes: number;
  /** The probe's, for file_modified. */
  readonly flags: number;
  readonly endedInsideSize: boolean;
  /** It may begin in a hole of a block map, which the page cache fills whatever the alignment; Rust sees if so. */
  readonly mayBeginInHole: boolean;
}

/** How one attempt under a lock ended: to be repeated elsewhere, with a result before anything was submitted, or after. */
type Attempt =
  | { readonly next: 'buffered' | 'restart-exclusive' }
  | { readonly next: 'return'; readonly result: number }
  | { readonly next: 'finish'; readonly plan: Plan; readonly result: number };

/** C25 from step 1 to 10. Returns bytes written or a negative errno. */
export function* dioWriteIter(io: Kiocb): Task<number> {
  const token = submitSharedOverwrite(io);
  if (token !== NOT_SUBMITTED) {
    const result = yield token;
    io.inode.lock.endDio();
    return yield* finishSharedOverwrite(io, result);
  }
  const { sizeBytes } = readSizes(io);
  const { append, posBytes, countBytes } = io;
  return yield* lockedWrite(io, guessExclusive({ append, posBytes, countBytes, sizeBytes }));
}

/** What is left to do after a `submitSharedOverwrite` ended with `result`. */
export function* finishSharedOverwrite(io: Kiocb, result: number): Task<number> {
  if (result === -EAGAIN && !io.nowait) {
    countRefused(io);
    return yield* lockedWrite(io, true);
  }
  return yield* finish(io, { posBytes: io.posBytes, countBytes: io.countBytes }, result);
}

/** C25.2, and again from there where the shared lock will not do (C25.4). */
function* lockedWrite(io: Kiocb, startExclusive: boolean): Task<number> {
  let exclusive = startExclusive;
  for (;;) {
    if (!(yield* acquire(io, exclusive))) {
      countNowait(io.counts, 'lock');
      return -EAGAIN;
    }
    const attempt = yield* writeUnderLock(io, exclusive);
    if (attempt.next === 'return') return attempt.result;
    if (attempt.next === 'finish') return yield* finish(io, attempt.plan, attempt.result);
    if (attempt.next === 'buffered') return yield* writeBufferedInstead(io);
    exclusive = true;
  }
}

/** C25.2. False: NOWAIT, and somebody would have to be waited for. */
function* acquire(io: Kiocb, exclusive: boolean): Task<boolean> {
  const { lock } = io.inode;
  if (io.nowait) return exclusive ? lock.tryWrite() : lock.tryRead();
  yield* exclusive ? lock.write() : lock.read();
  return true;
}

/** C25.3–9. The lock is held on entry and released before it returns. */
function* writeUnderLock(io: Kiocb, exclusive: boolean): Task<Attempt> {
  const { lock } = io.inode;
  let held = true;
  const unlock = (): void => {
    if (!held) return;
    held = false;
    if (exclusive) lock.unlockWrite();
    else lock.unlockRead();
  };
  try {
    const plan = yield* examine(io, exclusive);
    if (plan === 'buffered') return { next: plan };
    if (typeof plan === 'number') return { next: 'return', result: plan };
    const verdict = judgeLock(plan);
    if (verdict === 'would-block') {
      countNowait(io.counts, whyExclusive(plan) ?? 'unaligned');
      return { next: 'return', result: -EAGAIN };
    }
    if (verdict === 'restart-exclusive') {
      countUpgrade(io.counts, whyExclusive(plan) ?? 'refused');
      return { next: verdict };
    }
    const ready = yield* prepare(io, plan);
    if (ready < 0) return { next: 'return', result: ready };

    const token = submitWrite(io, plan);
    if (exclusive) countExclusive(io.counts, whyExclusive(plan) ?? 'guessed');
    else countShared(io, whyShared(plan));
    if (!mustWait(plan)) unlock();
    const result = yield token;
    lock.endDio();
    // Rust looked again below the extent lock and did not find what the probe had promised.
    if (result === -EAGAIN && !exclusive && !io.nowait) {
      countRefused(io);
      return { next: 'restart-exclusive' };
    }
    const { extending, countBytes, endedInsideSize } = plan;
    const writtenBytes = result === -ENOTBLK ? 0 : result;
    yield* cleanUpExtension(io, extensionCleanup({ extending, countBytes, endedInsideSize, writtenBytes }));
    return { next: 'finish', plan, result };
  } finally {
    unlock();
  }
}

/** C25.3. Returns the plan, 'buffered' where direct I/O is unsupported (A3), or a final result. */
function* examine(io: Kiocb, exclusive: boolean): Task<Plan | 'buffered' | number> {
  const range = checkRange(io);
  const { posBytes, countBytes, sizeBytes, diskSizeBytes } = range;
  let { flags } = range;
  if (flags >= 0 && (flags & ProbeFlag.DIO_UNSUPPORTED) !== 0) return 'buffered';
  if (range.refused !== undefined) return range.refused;
  const endedInsideSize = posBytes + countBytes <= sizeBytes;
  // Past i_size nothing is an overwrite, whatever the mapping says.
  if (endedInsideSize && (flags & ProbeFlag.UNKNOWN) !== 0) {
    if (io.nowait) {
      countNowait(io.counts, 'mapping');
      return -EAGAIN;
    }
    flags = yield begin(io.engine, (native, token) =>
      native.lookupWrite(token, io.file, posBytes, countBytes),
    );
    if (flags < 0) return flags;
  }
  const overwrite = endedInsideSize && (flags & ProbeFlag.OVERWRITE) !== 0;
  return {
    exclusive,
    nowait: io.nowait,
    posBytes,
    countBytes,
    endedInsideSize,
    // A hole inside i_size begins there; i_size itself may lie in the middle of one.
    mayBeginInHole:
      io.inode.bitmapFormat && !overwrite && posBytes - (posBytes % io.limits.blockBytes) < sizeBytes,
    mayStripPrivileges: (flags & ProbeFlag.MAY_STRIP) !== 0,
    flags,
    extending: isExtendingIo({ posBytes, countBytes, sizeBytes, diskSizeBytes }),
    overwrite,
    unwritten: (flags & ProbeFlag.UNWRITTEN) !== 0,
    unaligned: isUnalignedIo(io, posBytes, countBytes),
    journalled: io.atomic && io.limits.atomicJournalled,
  };
}

/** Drain, file_modified, alignment, orphan: C25.5–7 up to the submission. Returns 0 or a negative errno. */
function* prepare(io: Kiocb, plan: Plan): Task<number> {
  const drains = whyDrain(plan);
  if (drains !== undefined) yield* drainFor(io, drains);
  const modified = yield* fileModified(io, plan.flags);
  if (modified < 0) return modified;
  // After file_modified: a misaligned write has updated mtime and stripped setuid, as on Linux.
  if (!plan.mayBeginInHole && isMisalignedIo(io, plan.posBytes, plan.countBytes)) return -EINVAL;
  return plan.extending ? yield* addOrphan(io) : 0;
}

/** A3. An atomic write is never buffered (C24). */
function* writeBufferedInstead(io: Kiocb): Task<number> {
  if (io.atomic) return io.countBytes === 0 ? 0 : -EOPNOTSUPP;
  countFallback(io.counts, 'unsupported');
  return yield* bufferedWriteIter(io);
}

/** C25.10 and what follows: the short write's tail, the position, O_SYNC. The lock is released. */
function* finish(
  io: Kiocb,
  done: { readonly posBytes: number; readonly countBytes: number },
  directResult: number,
): Task<number> {
  if (directResult === -EAGAIN && io.nowait) {
    uncountShared(io);
    countNowait(io.counts, 'pages');
  }
  if (directResult < 0 && directResult !== -ENOTBLK) return directResult;
  const result = Math.max(directResult, 0);
  if (result < done.countBytes) {
    if (io.atomic) return directResult < 0 ? -EAGAIN : -EIO;
    const hole = io.inode.bitmapFormat ? 'hole' : 'pagesBusy';
    countFallback(io.counts, directResult < 0 ? hole : 'short');
    return yield* writeTail(io, { ...done, doneBytes: result });
  }
  io.posBytes = done.posBytes + result;
  if (!io.sync) return result;
  // O_DSYNC was the submission's business; O_SYNC wants the inode's times too.
  const synced = yield begin(io.engine, (native, token) => native.sync(token, io.file, false));
  return synced < 0 ? synced : result;
}

/** Rust did not find under the shared lock what the probe had promised. */
function countRefused(io: Kiocb): void {
  uncountShared(io);
  countUpgrade(io.counts, 'refused');
}
