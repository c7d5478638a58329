/** Shared or exclusive, when to start again exclusive, when to wait and to drain (C25.1–5). */
import type { DrainReason, ExclusiveReason, SharedReason } from '../write-counts.js';

/** What C25.3 finds out under the lock. */
export interface DioShape {
  /** setuid, setgid or capabilities may have to go: that changes the inode for everybody. */
  readonly mayStripPrivileges: boolean;
  /** Past i_size or i_disksize (C14). */
  readonly extending: boolean;
  /** One allocated run inside i_size covers the block-rounded range. */
  readonly overwrite: boolean;
  /** That run is not written yet. */
  readonly unwritten: boolean;
  /** An edge lies inside a block. */
  readonly unaligned: boolean;
  /** An atomic write that goes through the journal (C24). */
  readonly journalled: boolean;
}

/** C25.1: a guess without the lock; an appending write always ends past i_size. */
export function guessExclusive(io: {
  readonly append: boolean;
  readonly posBytes: number;
  readonly countBytes: number;
  readonly sizeBytes: number;
}): boolean {
  return io.append || io.posBytes + io.countBytes > io.sizeBytes;
}

/**
 * C25.4, the lock choice of ext4_dio_write_checks: the first reason that forbids sharing. Two unaligned writers into
 * one unwritten block would each zero the other's half of it.
 */
export function whyExclusive(io: DioShape): Exclude<ExclusiveReason, 'guessed'> | undefined {
  if (io.mayStripPrivileges) return 'privileges';
  if (io.extending) return 'extending';
  if (!io.overwrite) return 'notOverwrite';
  if (io.unaligned && io.unwritten) return 'unalignedUnwritten';
  return io.journalled ? 'atomic' : undefined;
}

/** What a write that may share the lock overwrites (C9, C10). */
export function whyShared(io: Pick<DioShape, 'unaligned' | 'unwritten'>): SharedReason {
  if (io.unaligned) return 'unaligned';
  return io.unwritten ? 'unwritten' : 'written';
}

/** C25.5, C24: the lock is kept until the request has ended. */
export function mustWait(io: DioShape & { readonly exclusive: boolean }): boolean {
  return io.exclusive && (io.unaligned || io.extending || io.journalled);
}

/**
 * C25.5, S4: requests in flight may be filling the block that this one is going to zero the rest of. A journalled write
 * leaves its data to a checkpoint, which requests in flight must not overtake.
 */
export function whyDrain(io: DioShape & { readonly exclusive: boolean }): DrainReason | undefined {
  if (!io.exclusive) return undefined;
  if (io.journalled) return 'atomic';
  if (!io.unaligned) return undefined;
  if (!io.overwrite) return 'hole';
  return io.unwritten ? 'unwritten' : undefined;
}

/** What to do with the lock that is held. */
export type LockVerdict = 'proceed' | 'restart-exclusive' | 'would-block';

/** C25.4 and C25.5 together, with what NOWAIT makes of them. */
export function judgeLock(
  io: DioShape & { readonly exclusive: boolean; readonly nowait: boolean },
): LockVerdict {
  if (!io.exclusive && whyExclusive(io) !== undefined) return io.nowait ? 'would-block' : 'restart-exclusive';
  if (io.nowait && mustWait(io)) return 'would-block';
  return 'proceed';
}
