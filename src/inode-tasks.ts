/** What a file's handles do under its inode lock beside reads and writes. */
import { begin, type Task } from './engine.js';
import type { Mount } from './mount.js';
import type { NativeFile } from './native/boundary.js';
import type { OpenInode } from './open-inode.js';

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
