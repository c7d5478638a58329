/** The direct path from end to end: ext4_dio_write_iter as C25 has it. */
import { begin, type Task } from '../engine.js';
import { NOT_SUBMITTED, type Kiocb } from '../kiocb.js';
import { DirectWriteFlag, LockMode, ProbeFlag, type Token } from '../native/boundary.js';
import { EAGAIN, EINVAL, ENOTBLK } from '../native/errno.js';
import { readSizes } from '../sizes.js';
import { exclusiveReason } from '../write-counts.js';
import { isMisaligned, isUnaligned } from './alignment.js';
import { MODIFIES, bufferedWriteIter, fileModified } from './buffered-write.js';
import { addOrphan, cleanUpExtension, extensionCleanup, isExtendingIo } from './extension.js';
import { writeTail } from './fallback.js';
import {
  guessExclusive,
  judgeLock,
  mustDrain,
  mustWait,
  needsExclusive,
  type DioShape,
} from './lock-mode.js';
import { checkWrite, clipCount, writePos } from './write-checks.js';

/** One write under its lock: what step 3 found and step 4 allowed. */
interface Plan extends DioShape {
  readonly exclusive: boolean;
  readonly nowait: boolean;
  readonly posBytes: number;
  /** The clipped count (A4). */
  readonly countBytes: number;
  /** file_modified has something to do. */
  readonly modifies: boolean;
  readonly endedInsideSize: boolean;
}

/** How an attempt ended without a result. */
type Outcome = 'buffered' | 'restart-exclusive';

/**
 * The common shared overwrite, driven without yields: a free lock, one probe, one submission. Returns the token
 * of the write in flight (finish with {@link finishSharedOverwrite}) or NOT_SUBMITTED, with nothing changed.
 */
export function submitSharedOverwrite(io: Kiocb): Token {
  if (io.append || io.countBytes === 0) return NOT_SUBMITTED;
  const { lock } = io.inode;
  if (!lock.tryRead()) return NOT_SUBMITTED;
  try {
    const flags = io.engine.native.probeWrite(io.file, io.posBytes, io.countBytes);
    // Any other bit, an error included, needs a decision of the long way.
    const modifies = (flags & ProbeFlag.NEEDS_MODIFIED) !== 0;
    if ((flags & ~(ProbeFlag.UNWRITTEN | ProbeFlag.NEEDS_MODIFIED)) !== ProbeFlag.OVERWRITE)
      return NOT_SUBMITTED;
    if (modifies && io.nowait) return NOT_SUBMITTED;
    const shape: DioShape = {
      mayStripPrivileges: false,
      // Inside i_size; Rust answers EAGAIN where it is past i_disksize.
      extending: false,
      overwrite: true,
      unwritten: (flags & ProbeFlag.UNWRITTEN) !== 0,
      unaligned: isUnalignedIo(io, io.posBytes, io.countBytes),
    };
    if (needsExclusive(shape) || isMisalignedIo(io, io.posBytes, io.countBytes)) return NOT_SUBMITTED;
    // C25.6: last. Due once a tick of the clock; the others of the tick find nothing to do.
    if (modifies && io.engine.native.tryFileModified(io.file) < 0) return NOT_SUBMITTED;
    return submit(io, io.posBytes, io.countBytes, LockMode.SHARED, 0);
  } finally {
    lock.unlockRead();
  }
}

/** Whether the result of a {@link submitSharedOverwrite} is final, or {@link finishSharedOverwrite} must go on. */
export function isComplete(io: Kiocb, result: number): boolean {
  return result === io.countBytes && !io.sync;
}

/** What is left to do after a {@link submitSharedOverwrite} ended with `result`. */
export function* finishSharedOverwrite(io: Kiocb, result: number): Task<number> {
  if (result === -EAGAIN && !io.nowait) {
    countRestart(io);
    return yield* lockedWrite(io, true);
  }
  return yield* finish(io, { posBytes: io.posBytes, countBytes: io.countBytes }, result);
}

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

function* lockedWrite(io: Kiocb, startExclusive: boolean): Task<number> {
  let exclusive = startExclusive;
  for (;;) {
    if (!(yield* acquire(io, exclusive))) return -EAGAIN;
    const outcome = yield* writeUnderLock(io, exclusive);
    if (typeof outcome !== 'string') {
      if (outcome.plan === undefined) return outcome.result;
      return yield* finish(io, outcome.plan, outcome.result);
    }
    if (outcome === 'buffered') {
      io.counts.fellBackBecause.unsupported += 1;
      return yield* bufferedWriteIter(io);
    }
    exclusive = true;
  }
}

/** C25.2. */
function* acquire(io: Kiocb, exclusive: boolean): Task<boolean> {
  const { lock } = io.inode;
  if (io.nowait) return exclusive ? lock.tryWrite() : lock.tryRead();
  yield* exclusive ? lock.write() : lock.read();
  return true;
}

/** Steps 3 to 9. The lock is held on entry and released before it returns. */
function* writeUnderLock(
  io: Kiocb,
  exclusive: boolean,
): Task<Outcome | { readonly plan: Plan | undefined; readonly result: number }> {
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
    if (typeof plan === 'string') return plan;
    if (typeof plan === 'number') return { plan: undefined, result: plan };
    const verdict = judgeLock(plan);
    if (verdict === 'would-block') return { plan: undefined, result: -EAGAIN };
    if (verdict === 'restart-exclusive') {
      io.counts.restarted += 1;
      return verdict;
    }
    const ready = yield* prepare(io, plan);
    if (ready < 0) return { plan: undefined, result: ready };

    const flags = plan.extending ? DirectWriteFlag.EXTENDING : 0;
    const mode = exclusive ? LockMode.EXCLUSIVE : LockMode.SHARED;
    const token = submit(io, plan.posBytes, plan.countBytes, mode, flags);
    if (exclusive) io.counts.exclusiveBecause[exclusiveReason(plan)] += 1;
    if (!mustWait(plan)) unlock();
    let result = yield token;
    lock.endDio();
    // Rust looked again below the extent lock and did not find what the probe had promised.
    if (result === -EAGAIN && !exclusive && !io.nowait) {
      countRestart(io);
      return 'restart-exclusive';
    }
    const pagesBusy = result === -ENOTBLK;
    if (pagesBusy) result = 0;
    const { extending, countBytes, endedInsideSize } = plan;
    const cleanup = extensionCleanup({ extending, countBytes, endedInsideSize, writtenBytes: result });
    yield* cleanUpExtension(io, cleanup);
    return { plan, result: pagesBusy ? -ENOTBLK : result };
  } finally {
    unlock();
  }
}

/** C25.3. Returns the plan, 'buffered' where direct I/O is unsupported (A3), or a final result. */
function* examine(io: Kiocb, exclusive: boolean): Task<Plan | 'buffered' | number> {
  const { sizeBytes, diskSizeBytes } = readSizes(io);
  const { maxFileBytes } = io.limits;
  const posBytes = writePos({ append: io.append, posBytes: io.posBytes, sizeBytes });
  const countBytes = clipCount({ posBytes, countBytes: io.countBytes, maxFileBytes });
  let flags = io.engine.native.probeWrite(io.file, posBytes, countBytes);
  if (flags < 0) return flags;
  if ((flags & ProbeFlag.DIO_UNSUPPORTED) !== 0) return 'buffered';
  const refused = checkWrite({
    readOnly: (flags & ProbeFlag.READ_ONLY) !== 0,
    immutable: (flags & ProbeFlag.IMMUTABLE) !== 0,
    posBytes,
    countBytes: io.countBytes,
    maxFileBytes,
  });
  if (refused < 0 || io.countBytes === 0) return refused;
  const endedInsideSize = posBytes + countBytes <= sizeBytes;
  // Past i_size nothing is an overwrite, whatever the mapping says.
  if (endedInsideSize && (flags & ProbeFlag.UNKNOWN) !== 0) {
    if (io.nowait) return -EAGAIN;
    const mapping = yield begin(io.engine, (native, token) =>
      native.lookupWrite(token, io.file, posBytes, countBytes),
    );
    if (mapping < 0) return mapping;
    flags = mapping;
  }
  return {
    exclusive,
    nowait: io.nowait,
    posBytes,
    countBytes,
    endedInsideSize,
    mayStripPrivileges: (flags & ProbeFlag.MAY_STRIP) !== 0,
    modifies: (flags & MODIFIES) !== 0,
    extending: isExtendingIo({ posBytes, countBytes, sizeBytes, diskSizeBytes }),
    overwrite: endedInsideSize && (flags & ProbeFlag.OVERWRITE) !== 0,
    unwritten: (flags & ProbeFlag.UNWRITTEN) !== 0,
    unaligned: isUnalignedIo(io, posBytes, countBytes),
  };
}

/** Drain, file_modified, alignment, orphan: C25.5–7 up to the submission. Returns 0 or a negative errno. */
function* prepare(io: Kiocb, plan: Plan): Task<number> {
  if (mustDrain(plan)) yield* io.inode.lock.drain();
  if (plan.modifies) {
    if (io.nowait) return -EAGAIN;
    const modified = yield* fileModified(io);
    if (modified < 0) return modified;
  }
  // After file_modified: a misaligned write has updated mtime and stripped setuid, as on Linux.
  if (isMisalignedIo(io, plan.posBytes, plan.countBytes)) return -EINVAL;
  if (!plan.extending) return 0;
  const orphan = yield* addOrphan(io);
  return orphan < 0 ? orphan : 0;
}

/** C25.10 and what follows: the short write's tail, the position, O_SYNC. The lock is released. */
function* finish(
  io: Kiocb,
  done: { readonly posBytes: number; readonly countBytes: number },
  directResult: number,
): Task<number> {
  const result = directResult === -ENOTBLK ? 0 : directResult;
  if (result < 0) return result;
  if (result < done.countBytes) {
    io.counts.fellBackBecause[directResult === -ENOTBLK ? 'pagesBusy' : 'short'] += 1;
    return yield* writeTail(io, { ...done, doneBytes: result });
  }
  io.posBytes = done.posBytes + result;
  if (!io.sync) return result;
  // O_DSYNC was the submission's business; O_SYNC wants the inode's times too.
  const synced = yield begin(io.engine, (native, token) => native.sync(token, io.file, false));
  return synced < 0 ? synced : result;
}

function submit(io: Kiocb, posBytes: number, countBytes: number, mode: LockMode, flags: number): Token {
  const { engine, inode } = io;
  const all = io.dsync ? flags | DirectWriteFlag.DSYNC : flags;
  const token = engine.token();
  try {
    engine.native.directWrite(token, io.file, mode, all, io.buffer, io.offset, countBytes, posBytes);
  } catch (error) {
    engine.release(token);
    throw error;
  }
  inode.lock.beginDio();
  io.counts[mode === LockMode.SHARED ? 'shared' : 'exclusive'] += 1;
  engine.doorbell();
  return token;
}

/** Rust did not find under the shared lock what the probe had promised. */
function countRestart(io: Kiocb): void {
  io.counts.shared -= 1;
  io.counts.restarted += 1;
}

function isUnalignedIo(io: Kiocb, posBytes: number, countBytes: number): boolean {
  return isUnaligned({
    posBytes,
    countBytes,
    memoryAddress: io.memoryAddress,
    blockBytes: io.limits.blockBytes,
  });
}

function isMisalignedIo(io: Kiocb, posBytes: number, countBytes: number): boolean {
  return isMisaligned({
    posBytes,
    countBytes,
    memoryAddress: io.memoryAddress,
    offsetAlignBytes: io.limits.offsetAlignBytes,
    memoryAlignBytes: io.limits.memoryAlignBytes,
  });
}
