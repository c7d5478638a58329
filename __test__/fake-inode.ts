/** An inode of the native layer without a disk. */
export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;

export interface FakeInode {
  ino: number;
  mode: number;
  data: Uint8Array;
  size: number;
  diskSize: number;
  /** What probeWrite says beside OVERWRITE, which follows from the size. */
  flags: number;
  entries: Map<string, FakeInode>;
  xattrs: Map<string, Uint8Array>;
  target: string;
  nlink: number;
  times: { atimeSec: number; atimeNsec: number; mtimeSec: number; mtimeNsec: number };
}

export function direntType(inode: FakeInode): number {
  const format = inode.mode & S_IFMT;
  if (format === S_IFDIR) return 2;
  return format === S_IFLNK ? 7 : 1;
}
