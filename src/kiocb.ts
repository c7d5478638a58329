import type { Engine, Operation } from './engine.js';
import type { NativeFile, Token } from './native/boundary.js';
import type { OpenInode } from './open-inode.js';
import type { SharedReason, WriteCounts } from './write-counts.js';

/** Instead of a token: nothing was submitted, nothing has changed; take the long way. */
export const NOT_SUBMITTED: Token = -1;

/** What a volume, its device and one inode's map demand of I/O. */
export interface IoLimits {
  /** The file system's block size. */
  readonly blockBytes: number;
  /** Direct I/O: positions and lengths are multiples of this (B1). */
  readonly offsetAlignBytes: number;
  /** Direct I/O: memory addresses are multiples of this (B1). */
  readonly memoryAlignBytes: number;
  /** Largest file size: of the inode's map (A5), or the volume's `maxFileSize` option. */
  readonly maxFileBytes: number;
  /** Atomic writes (C24): lengths from and up to; 0: there are none. */
  readonly atomicMinBytes: number;
  readonly atomicMaxBytes: number;
  /** They go through the journal, under the exclusive lock. */
  readonly atomicJournalled: boolean;
}

/** One read or write: the kernel's kiocb and its iov_iter. */
export interface Kiocb extends Operation {
  readonly engine: Engine;
  readonly inode: OpenInode;
  readonly file: NativeFile;
  readonly limits: IoLimits;
  /** The volume's. */
  readonly counts: WriteCounts;
  readonly buffer: Uint8Array;
  /** Where the data begins in `buffer`. */
  readonly offset: number;
  readonly countBytes: number;
  /** Where it begins in the file; afterwards, where it ended. */
  posBytes: number;
  /** The memory as far as alignment goes (A6, B1): see `memoryBits` in iov.ts. */
  readonly memoryBits: number;
  /** O_DIRECT. */
  readonly direct: boolean;
  /** O_APPEND. */
  readonly append: boolean;
  /** O_DSYNC or O_SYNC. */
  readonly dsync: boolean;
  /** O_SYNC. */
  readonly sync: boolean;
  /** RWF_NOWAIT: fail with EAGAIN where it would have to wait or to allocate. */
  readonly nowait: boolean;
  /** RWF_ATOMIC: after a crash all of it is there, or nothing. */
  readonly atomic: boolean;
  /** What a write under the shared lock was counted as. */
  sharedBecause: SharedReason | undefined;
}
