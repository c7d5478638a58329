/** Shared or exclusive, when to start again exclusive, when to wait and to drain (C25.1–5). */

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
 * C25.4, the lock choice of ext4_dio_write_checks. Two unaligned writers into one unwritten block would each
 * zero the other's half of it, so they may not share the lock.
 */
export function needsExclusive(io: DioShape): boolean {
  return io.mayStripPrivileges || io.extending || !io.overwrite || (io.unaligned && io.unwritten);
}

/** C25.5: the lock is kept until the request has ended. */
export function mustWait(io: DioShape & { readonly exclusive: boolean }): boolean {
  return io.exclusive && (io.unaligned || io.extending);
}

/** C25.5: requests in flight may be filling the block that this one is going to zero the rest of. */
export function mustDrain(io: DioShape & { readonly exclusive: boolean }): boolean {
  return io.exclusive && io.unaligned && (!io.overwrite || io.unwritten);
}

/** What to do with the lock that is held. */
export type LockVerdict = 'proceed' | 'restart-exclusive' | 'would-block';

/** C25.4 and C25.5 together, with what NOWAIT makes of them. */
export function judgeLock(
  io: DioShape & { readonly exclusive: boolean; readonly nowait: boolean },
): LockVerdict {
  if (!io.exclusive && needsExclusive(io)) return io.nowait ? 'would-block' : 'restart-exclusive';
  if (io.nowait && mustWait(io)) return 'would-block';
  return 'proceed';
}
