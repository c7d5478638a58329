/** What the fake native layer's files and directories are made of. */
import type { NativeRecovery, NativeVolumeInfo } from '../src/native/boundary.js';

import type { NativeStat } from '../src/native/boundary.js';

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const EPERM = 1;
export const ENOENT = 2;
export const ENXIO = 6;
export const EAGAIN = 11;
export const EEXIST = 17;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ELOOP = 40;
export const ENOTEMPTY = 39;
export const ENODATA = 61;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_NOFOLLOW = 0o400000;

/** A volume without anything special. */
export const FAKE_INFO: NativeVolumeInfo = {
  uuid: '00000000-0000-4000-8000-000000000000',
  label: 'fake',
  blockSize: 4096,
  blockCount: 1000,
  freeBlocks: 900,
  inodeCount: 100,
  freeInodes: 89,
  features: ['extents'],
  readOnly: false,
  dax: false,
  backend: 'memory',
  backendReason: 'test',
  dioOffsetAlign: 512,
  dioMemoryAlign: 4,
  maxFileSize: 2 ** 44 - 4096,
};

export class FakeErrno extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

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
  maxSize: number;
  bitmapFormat: boolean;
  times: { atimeSec: number; atimeNsec: number; mtimeSec: number; mtimeNsec: number };
}

export function flagText(flags: number): string {
  return flags === 0 ? '' : ` flags=${flags}`;
}

export function text(path: string | Uint8Array): string {
  return typeof path === 'string' ? path : Buffer.from(path).toString();
}

export function direntType(inode: FakeInode): number {
  const format = inode.mode & S_IFMT;
  if (format === S_IFDIR) return 2;
  return format === S_IFLNK ? 7 : 1;
}

/** A volume that needed nothing. */
export const NO_RECOVERY: NativeRecovery = {
  needed: false,
  hasErrors: false,
  transactions: 0,
  blocks: 0,
  revoked: 0,
  fastCommits: 0,
  orphansDeleted: 0,
  orphansTruncated: 0,
  orphansBad: 0,
  orphansUnsupported: 0,
  orphansLeft: [],
};

/** With limits of direct I/O of its own. */
export function fakeStat(inode: FakeInode): NativeStat {
  return {
    ino: inode.ino,
    mode: inode.mode,
    nlink: inode.nlink,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: inode.size,
    blocks: Math.ceil(inode.size / 512),
    ...inode.times,
    ctimeSec: 3,
    ctimeNsec: 4,
    birthtimeSec: 5,
    birthtimeNsec: 6,
    dioOffsetAlign: 512,
    dioMemAlign: 4,
    atomicWriteUnitMin: 4096,
    atomicWriteUnitMax: 65536,
  };
}
