/**
 * What is done to ranges of a file as a whole: truncate, fallocate, and the look at what lies where.
 *
 * Truncation and every change of a range take the inode lock exclusive and drain direct I/O before anything changes (C25);
 * looking takes it shared.
 */
import { begin, type Engine, type Task } from './engine.js';
import { ExtentFlag, FallocateFlag, type NativeFile } from './native/boundary.js';
import { EBADF, EFBIG, EINVAL, EOPNOTSUPP } from './native/errno.js';
import type { OpenInode } from './open-inode.js';
import { readInodeSize } from './sizes.js';

/** The open file that an operation is about. */
export interface RangeTarget {
  readonly engine: Engine;
  readonly inode: OpenInode;
  readonly file: NativeFile;
}

/** One piece of a file that is more than a hole, as FIEMAP tells it. In bytes. */
export interface FileExtent {
  /** Where in the file. */
  readonly logical: number;
  /** Where on the device; 0 while `delalloc`, or inside the inode. */
  readonly physical: number;
  readonly length: number;
  /** It reads as zeros. */
  readonly unwritten: boolean;
  /** In memory alone: it has no block yet. */
  readonly delalloc: boolean;
  /** Nothing follows it in the file. */
  readonly last: boolean;
  /** Inside the inode. */
  readonly inline: boolean;
}

const { COLLAPSE_RANGE, INSERT_RANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE } = FallocateFlag;

/** What Linux lets fallocate combine. */
const FALLOCATE_MODES: ReadonlySet<number> = new Set([
  0,
  KEEP_SIZE,
  PUNCH_HOLE | KEEP_SIZE,
  ZERO_RANGE,
  ZERO_RANGE | KEEP_SIZE,
  COLLAPSE_RANGE,
  INSERT_RANGE,
]);

/** vfs_fallocate's checks that need no inode, in its order. Returns 0 to go on or a negative errno. */
export function checkFallocate(io: {
  readonly bits: number;
  readonly posBytes: number;
  readonly lenBytes: number;
  readonly writable: boolean;
}): number {
  if (io.posBytes < 0 || io.lenBytes <= 0) return -EINVAL;
  if (!FALLOCATE_MODES.has(io.bits)) return -EOPNOTSUPP;
  return io.writable ? 0 : -EBADF;
}

/** Runs a change of the file: exclusive, with no direct I/O in flight. */
function* changing({ inode: { lock } }: RangeTarget, change: Task<number>): Task<number> {
  yield* lock.write();
  try {
    yield* lock.drain();
    return yield* change;
  } finally {
    lock.unlockWrite();
  }
}

/** A4.6 as inode_newsize_ok has it: only what would grow past the limit is refused. */
function exceedsLimit({ engine, file, inode }: RangeTarget, endBytes: number): boolean {
  return endBytes > inode.limits.maxFileBytes && endBytes > readInodeSize(engine, file);
}

/** Changes the size. */
export function truncateInode(target: RangeTarget, sizeBytes: number): Task<number> {
  return changing(target, truncateLocked(target, sizeBytes));
}

function* truncateLocked(target: RangeTarget, sizeBytes: number): Task<number> {
  if (exceedsLimit(target, sizeBytes)) return -EFBIG;
  return yield begin(target.engine, (native, op) => native.truncate(op, target.file, sizeBytes));
}

interface FallocateCall {
  readonly bits: number;
  readonly posBytes: number;
  readonly lenBytes: number;
}

/** fallocate(2); with `sync`, what it changed is durable when it reports. Returns 0 or a negative errno. */
export function* fallocateInode(
  target: RangeTarget,
  io: FallocateCall & { readonly sync: boolean },
): Task<number> {
  const result = yield* changing(target, fallocateLocked(target, io));
  if (result < 0 || !io.sync) return result;
  return yield begin(target.engine, (native, op) => native.sync(op, target.file, false));
}

/** Blocks of a file: 32 bits, less one (A5). */
const MAX_FILE_BLOCKS = 2 ** 32 - 1;

function* fallocateLocked(target: RangeTarget, io: FallocateCall): Task<number> {
  const { engine, file, inode } = target;
  const endBytes = io.posBytes + io.lenBytes;
  const grows = io.bits === 0 || io.bits === ZERO_RANGE;
  // What no file can hold is refused before anything, the volume's own limit after file_modified.
  const possible = !inode.bitmapFormat && endBytes <= MAX_FILE_BLOCKS * inode.limits.blockBytes;
  if (grows && possible && exceedsLimit(target, endBytes)) {
    const modified = yield begin(engine, (native, op) => native.fileModified(op, file));
    return modified < 0 ? modified : -EFBIG;
  }
  return yield begin(engine, (native, op) => native.fallocate(op, file, io.bits, io.posBytes, io.lenBytes));
}

/** lseek(2) with SEEK_DATA or SEEK_HOLE. Returns the position or a negative errno. */
export function* seekInode(target: RangeTarget, posBytes: number, whence: number): Task<number> {
  const { lock } = target.inode;
  yield* lock.read();
  try {
    return yield begin(target.engine, (native, op) => native.seek(op, target.file, posBytes, whence));
  } finally {
    lock.unlockRead();
  }
}

/** Numbers that native gives for each extent. */
const NUMBERS_PER_EXTENT = 4;

/** Fills `found` with the extents of a range. Returns 0 or a negative errno. */
export function* extentsOfInode(
  target: RangeTarget,
  range: { readonly posBytes: number; readonly lenBytes: number },
  found: FileExtent[],
): Task<number> {
  const { engine, file } = target;
  const { lock } = target.inode;
  yield* lock.read();
  try {
    const endBytes = range.posBytes + range.lenBytes;
    let posBytes = range.posBytes;
    while (posBytes < endBytes) {
      const [from, lenBytes] = [posBytes, endBytes - posBytes];
      const token = begin(engine, (native, op) => native.extents(op, file, from, lenBytes));
      const count = yield token;
      if (count < 0) return count;
      const numbers = engine.native.takeResult(token) as readonly number[];
      for (let at = 0; at < numbers.length; at += NUMBERS_PER_EXTENT) found.push(extentAt(numbers, at));
      const last = found.at(-1);
      if (count === 0 || last === undefined || last.last) return 0;
      posBytes = last.logical + last.length;
    }
    return 0;
  } finally {
    lock.unlockRead();
  }
}

function extentAt(numbers: readonly number[], at: number): FileExtent {
  const [logical, physical, length, flags] = numbers.slice(at, at + NUMBERS_PER_EXTENT) as [
    number,
    number,
    number,
    number,
  ];
  return {
    logical,
    physical,
    length,
    unwritten: (flags & ExtentFlag.UNWRITTEN) !== 0,
    delalloc: (flags & ExtentFlag.DELALLOC) !== 0,
    last: (flags & ExtentFlag.LAST) !== 0,
    inline: (flags & ExtentFlag.INLINE) !== 0,
  };
}
