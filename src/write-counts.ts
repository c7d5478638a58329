/** What became of the writes of a volume: which lock they took, and why the page cache had to help. */

/** Why a direct write held the inode lock exclusive (C25.4). */
export type ExclusiveReason = 'privileges' | 'extending' | 'notOverwrite' | 'unalignedUnwritten' | 'guessed';

/** Why bytes of a direct write went through the page cache: no direct I/O on this inode (A3), the device stopped short (A16), or cached pages refused to go (B4). */
export type FallbackReason = 'unsupported' | 'short' | 'pagesBusy';

/** Counted per mounted volume, in writes. */
export interface WriteCounts {
  /** Direct, under the shared lock. */
  shared: number;
  /** Direct, under the exclusive lock. */
  exclusive: number;
  /** Asked for without O_DIRECT. */
  buffered: number;
  /** Started shared and had to start again exclusive; counted as exclusive too. */
  restarted: number;
  /** The exclusive ones by reason. */
  readonly exclusiveBecause: Record<ExclusiveReason, number>;
  /** Direct ones of which the page cache took a part or all, by reason. */
  readonly fellBackBecause: Record<FallbackReason, number>;
}

/** All zero. */
export function newWriteCounts(): WriteCounts {
  return {
    shared: 0,
    exclusive: 0,
    buffered: 0,
    restarted: 0,
    exclusiveBecause: { privileges: 0, extending: 0, notOverwrite: 0, unalignedUnwritten: 0, guessed: 0 },
    fellBackBecause: { unsupported: 0, short: 0, pagesBusy: 0 },
  };
}

/** The first reason that C25.4 names; 'guessed': C25.1 guessed exclusive and shared would have done. */
export function exclusiveReason(io: {
  readonly mayStripPrivileges: boolean;
  readonly extending: boolean;
  readonly overwrite: boolean;
  readonly unaligned: boolean;
  readonly unwritten: boolean;
}): ExclusiveReason {
  if (io.mayStripPrivileges) return 'privileges';
  if (io.extending) return 'extending';
  if (!io.overwrite) return 'notOverwrite';
  return io.unaligned && io.unwritten ? 'unalignedUnwritten' : 'guessed';
}
