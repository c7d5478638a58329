/** The orphan before an extending write, and what is left to do after it (A10, A15, C14, C15, C25.7–9). */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';

/** C14: the write ends past either size. */
export function isExtendingIo(io: {
  readonly posBytes: number;
  readonly countBytes: number;
  readonly sizeBytes: number;
  readonly diskSizeBytes: number;
}): boolean {
  const endBytes = io.posBytes + io.countBytes;
  return endBytes > io.sizeBytes || endBytes > io.diskSizeBytes;
}

/** What an extending write has to clean up while it still holds the lock. */
export type ExtensionCleanup = 'none' | 'truncate' | 'orphan-delete';

/**
 * C15, C25.9. A short or failed write leaves blocks past i_size, which fsck objects to: they go, and the orphan
 * entry with them. After a full write end_io has dropped the entry when it raised a size; a write inside i_size
 * may find that writeback raised i_disksize first and end_io had nothing to do (E35).
 */
export function extensionCleanup(io: {
  readonly extending: boolean;
  readonly writtenBytes: number;
  readonly countBytes: number;
  readonly endedInsideSize: boolean;
}): ExtensionCleanup {
  if (!io.extending) return 'none';
  if (io.writtenBytes < io.countBytes) return 'truncate';
  return io.endedInsideSize ? 'orphan-delete' : 'none';
}

/** A10, D26(d): the orphan entry is in the journal before anything is allocated. */
export function* addOrphan(io: Kiocb): Task<number> {
  return yield begin(io.engine, (native, token) => native.orphanAdd(token, io.file));
}

/** C25.9. The write's own result stands: an entry that could not be dropped is recovery's work. */
export function* cleanUpExtension(io: Kiocb, cleanup: ExtensionCleanup): Task<void> {
  const { failure } = io;
  if (cleanup === 'truncate') {
    yield begin(io.engine, (native, token) => native.truncateToSize(token, io.file));
  } else if (cleanup === 'orphan-delete') {
    yield begin(io.engine, (native, token) => native.orphanDelete(token, io.file));
  }
  io.failure = failure;
}
