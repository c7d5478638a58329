import type { Engine, Operation } from './engine.js';
import type { NativeFile, Token } from './native/boundary.js';
import type { OpenInode } from './open-inode.js';
import type { WriteCounts } from './write-counts.js';

/** Instead of a token: nothing was submitted, nothing has changed; take the long way. */
export const NOT_SUBMITTED: Token = -1;

/** What a volume and its device demand of I/O. */
export interface IoLimits {
  /** The file system's block size. */
  readonly blockBytes: number;
  /** Direct I/O: positions and lengths are multiples of this (B1). */
  readonly offsetAlignBytes: number;
  /** Direct I/O: memory addresses are multiples of this (B1). */
  readonly memoryAlignBytes: number;
  /** Largest file size (A5). */
  readonly maxFileBytes: number;
}

/** One read or write: the kernel's kiocb and its single-segment iov_iter. */
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
  /** The address of the data as far as alignment goes: 0 for memory that the engine copies. */
  readonly memoryAddress: number;
  /** O_DIRECT. */
  readonly direct: boolean;
  /** O_APPEND. */
  readonly append: boolean;
  /** O_DSYNC or O_SYNC. */
  readonly dsync: boolean;
  /** O_SYNC. */
  readonly sync: boolean;
  /** RWF_NOWAIT: fail with EAGAIN where it would have to wait. */
  readonly nowait: boolean;
}
