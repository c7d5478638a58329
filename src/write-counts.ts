/** The modes at one glance: which lock the writes of a volume took and why, and what became of them. */

/** Why a direct write could share the inode lock (C25.4): what it overwrote. */
export type SharedReason = 'written' | 'unaligned' | 'unwritten';

/** Why a direct write held the inode lock exclusive (C25.4); 'guessed': C25.1 did, and shared would have done. */
export type ExclusiveReason =
  'privileges' | 'extending' | 'notOverwrite' | 'unalignedUnwritten' | 'atomic' | 'guessed';

/** Why one gave its shared lock up for the exclusive one; 'refused': the engine found less than the probe had. */
export type UpgradeReason = Exclude<ExclusiveReason, 'guessed'> | 'refused';

/** Why a write had to wait for all direct I/O in flight first (C25.5); 'buffered': it goes through the page cache. */
export type DrainReason = 'hole' | 'unwritten' | 'atomic' | 'buffered';

/**
 * Why bytes of a direct write went through the page cache: no direct I/O on this inode (A3), the device stopped
 * short (A16), cached pages refused to go (B4), or a hole in a bitmap-format file (A12).
 */
export type FallbackReason = 'unsupported' | 'short' | 'pagesBusy' | 'hole';

/**
 * Why a write with `nowait` was refused: the lock, what C25.4 demands, a mapping that is not in memory, times that
 * cannot be set at once, cached pages, or because it is buffered.
 */
export type NowaitReason =
  Exclude<ExclusiveReason, 'guessed'> | 'lock' | 'unaligned' | 'mapping' | 'times' | 'pages' | 'buffered';

/** Counted per mounted volume, in writes. */
export interface WriteCounts {
  /** Direct, under the shared lock. */
  shared: number;
  readonly sharedBecause: Record<SharedReason, number>;
  /** Direct, under the exclusive lock. */
  exclusive: number;
  readonly exclusiveBecause: Record<ExclusiveReason, number>;
  /** Started shared and had to start again exclusive; counted as exclusive too. */
  upgraded: number;
  readonly upgradedBecause: Record<UpgradeReason, number>;
  /** Waited for the direct I/O in flight. */
  drained: number;
  readonly drainedBecause: Record<DrainReason, number>;
  /** Asked for without O_DIRECT. */
  buffered: number;
  /** Stored in place (A18). */
  dax: number;
  /** Direct ones of which the page cache took a part or all. */
  fellBack: number;
  readonly fellBackBecause: Record<FallbackReason, number>;
  /** EAGAIN, or EOPNOTSUPP, because of `nowait`. */
  nowaitRefused: number;
  readonly nowaitRefusedBecause: Record<NowaitReason, number>;
}

interface Counted {
  readonly counts: WriteCounts;
  sharedBecause: SharedReason | undefined;
}

/** All zero. */
export function newWriteCounts(): WriteCounts {
  const needs = { privileges: 0, extending: 0, notOverwrite: 0, unalignedUnwritten: 0, atomic: 0 };
  return {
    shared: 0,
    sharedBecause: { written: 0, unaligned: 0, unwritten: 0 },
    exclusive: 0,
    exclusiveBecause: { ...needs, guessed: 0 },
    upgraded: 0,
    upgradedBecause: { ...needs, refused: 0 },
    drained: 0,
    drainedBecause: { hole: 0, unwritten: 0, atomic: 0, buffered: 0 },
    buffered: 0,
    dax: 0,
    fellBack: 0,
    fellBackBecause: { unsupported: 0, short: 0, pagesBusy: 0, hole: 0 },
    nowaitRefused: 0,
    nowaitRefusedBecause: { ...needs, lock: 0, unaligned: 0, mapping: 0, times: 0, pages: 0, buffered: 0 },
  };
}

/** A write was submitted under the shared lock. */
export function countShared(io: Counted, reason: SharedReason): void {
  io.sharedBecause = reason;
  io.counts.shared += 1;
  io.counts.sharedBecause[reason] += 1;
}

/** The engine sent it back. */
export function uncountShared(io: Counted): void {
  if (io.sharedBecause === undefined) return;
  io.counts.shared -= 1;
  io.counts.sharedBecause[io.sharedBecause] -= 1;
  io.sharedBecause = undefined;
}

export function countExclusive(counts: WriteCounts, reason: ExclusiveReason): void {
  counts.exclusive += 1;
  counts.exclusiveBecause[reason] += 1;
}

export function countUpgrade(counts: WriteCounts, reason: UpgradeReason): void {
  counts.upgraded += 1;
  counts.upgradedBecause[reason] += 1;
}

export function countDrain(counts: WriteCounts, reason: DrainReason): void {
  counts.drained += 1;
  counts.drainedBecause[reason] += 1;
}

export function countFallback(counts: WriteCounts, reason: FallbackReason): void {
  counts.fellBack += 1;
  counts.fellBackBecause[reason] += 1;
}

export function countNowait(counts: WriteCounts, reason: NowaitReason): void {
  counts.nowaitRefused += 1;
  counts.nowaitRefusedBecause[reason] += 1;
}
