/** What a file's handles do under its inode lock beside reads and writes. */
import { begin, type Engine, type Task } from './engine.js';
import { readInodeSize } from './sizes.js';
import type { Mount } from './mount.js';
import type { NativeFile } from './native/boundary.js';
import { EFBIG } from './native/errno.js';
import type { OpenInode } from './open-inode.js';

/** Changes the size under the exclusive lock, with no direct I/O in flight. */
export function* truncateInode(
  engine: Engine,
  inode: OpenInode,
  file: NativeFile,
  size: number,
): Task<number> {
  yield* inode.lock.write();
  try {
    // A4.6 as truncate has it: only what would grow past the limit is refused.
    if (size > inode.limits.maxFileBytes && size > readInodeSize(engine, file)) return -EFBIG;
    yield* inode.lock.drain();
    return yield begin(engine, (native, op) => native.truncate(op, file, size));
  } finally {
    inode.lock.unlockWrite();
  }
}

/** Closes a native file; the last close of an inode may evict it and so takes its lock. */
export function* closeInode(mount: Mount, inode: OpenInode, file: NativeFile): Task<number> {
  inode.references -= 1;
  const last = inode.references === 0;
  if (last) {
    yield* inode.lock.write();
    yield* inode.lock.drain();
  }
  const result = yield begin(mount.engine, (native, op) => native.closeFile(op, file));
  if (last) inode.lock.unlockWrite();
  mount.forget(inode);
  return result;
}
