/** Calls on ranges of a file without a disk: contents and size alone, no block is counted. */
import { ExtentFlag, FallocateFlag, SeekWhence } from '../src/native/boundary.js';
import { ENXIO, FakeErrno } from './fake-inode.js';

interface Contents {
  data: Uint8Array;
  size: number;
  diskSize: number;
}

export function fakeFallocate(inode: Contents, mode: number, pos: number, len: number): void {
  const bytes = [...inode.data.subarray(0, inode.size)];
  if (mode === FallocateFlag.COLLAPSE_RANGE) bytes.splice(pos, len);
  else if (mode === FallocateFlag.INSERT_RANGE) bytes.splice(pos, 0, ...new Uint8Array(len));
  else if ((mode & (FallocateFlag.PUNCH_HOLE | FallocateFlag.ZERO_RANGE)) !== 0)
    bytes.fill(0, pos, pos + len);
  const grows = mode === 0 || mode === FallocateFlag.ZERO_RANGE;
  inode.size = grows ? Math.max(bytes.length, pos + len) : bytes.length;
  inode.diskSize = inode.size;
  inode.data = Uint8Array.from({ length: inode.size }, (_, index) => bytes[index] ?? 0);
}

/** As if there were no holes. */
export function fakeSeek(inode: Contents, pos: number, whence: number): number {
  if (pos >= inode.size) throw new FakeErrno(ENXIO);
  return whence === SeekWhence.DATA ? pos : inode.size;
}

/** One extent, from byte 4096 of the device on. */
export function fakeExtents(inode: Contents, pos: number): [number, number[]] {
  return pos < inode.size ? [1, [0, 4096, inode.size, ExtentFlag.LAST]] : [0, []];
}
