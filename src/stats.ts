/** What stat and readdir return, with node:fs's fields and methods. */
import { constants } from 'node:fs';

import type { NativeStat } from './native/boundary.js';

const { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } = constants;

abstract class StatsBase<N extends number | bigint> {
  declare dev: N;
  declare mode: N;
  declare nlink: N;
  declare uid: N;
  declare gid: N;
  declare rdev: N;
  /** Preferred I/O size: the volume's block size. */
  declare blksize: N;
  declare ino: N;
  /** Bytes. */
  declare size: N;
  /** Units of 512 bytes. */
  declare blocks: N;
  declare atimeMs: N;
  declare mtimeMs: N;
  declare ctimeMs: N;
  declare birthtimeMs: N;
  declare atime: Date;
  declare mtime: Date;
  declare ctime: Date;
  declare birthtime: Date;

  readonly #direct: {
    readonly dioOffsetAlign: N;
    readonly dioMemAlign: N;
    readonly atomicWriteUnitMin: N;
    readonly atomicWriteUnitMax: N;
  };

  constructor(stat: NativeStat, number: (value: number) => N) {
    this.#direct = {
      dioOffsetAlign: number(stat.dioOffsetAlign),
      dioMemAlign: number(stat.dioMemAlign),
      atomicWriteUnitMin: number(stat.atomicWriteUnitMin),
      atomicWriteUnitMax: number(stat.atomicWriteUnitMax),
    };
  }

  // As of statx, and on the prototype: the instance has node:fs's own fields alone.

  /** Direct I/O: positions and lengths are multiples of this; 0 where there is none. */
  get dioOffsetAlign(): N {
    return this.#direct.dioOffsetAlign;
  }
  /** Direct I/O: memory addresses are multiples of this. */
  get dioMemAlign(): N {
    return this.#direct.dioMemAlign;
  }
  /** The shortest atomic write in bytes; 0 where there is none. */
  get atomicWriteUnitMin(): N {
    return this.#direct.atomicWriteUnitMin;
  }
  /** The longest. */
  get atomicWriteUnitMax(): N {
    return this.#direct.atomicWriteUnitMax;
  }

  #is(format: number): boolean {
    return (Number(this.mode) & S_IFMT) === format;
  }
  isFile(): boolean {
    return this.#is(S_IFREG);
  }
  isDirectory(): boolean {
    return this.#is(S_IFDIR);
  }
  isSymbolicLink(): boolean {
    return this.#is(S_IFLNK);
  }
  isBlockDevice(): boolean {
    return this.#is(S_IFBLK);
  }
  isCharacterDevice(): boolean {
    return this.#is(S_IFCHR);
  }
  isFIFO(): boolean {
    return this.#is(S_IFIFO);
  }
  isSocket(): boolean {
    return this.#is(S_IFSOCK);
  }
}

const PLAIN = ['mode', 'nlink', 'uid', 'gid', 'rdev'] as const;
const TIMES = ['atime', 'mtime', 'ctime', 'birthtime'] as const;

/** `fs.Stats` of a file in a volume. */
export class Stats extends StatsBase<number> {
  constructor(stat: NativeStat, blockBytes: number) {
    super(stat, Number);
    this.dev = 0;
    for (const field of PLAIN) this[field] = stat[field];
    this.blksize = blockBytes;
    this.ino = stat.ino;
    this.size = stat.size;
    this.blocks = stat.blocks;
    for (const time of TIMES) {
      const milliseconds = stat[`${time}Sec`] * 1000 + stat[`${time}Nsec`] / 1e6;
      this[`${time}Ms`] = milliseconds;
      this[time] = new Date(Math.round(milliseconds));
    }
  }
}

/** `fs.BigIntStats` of a file in a volume. */
export class BigIntStats extends StatsBase<bigint> {
  declare atimeNs: bigint;
  declare mtimeNs: bigint;
  declare ctimeNs: bigint;
  declare birthtimeNs: bigint;

  constructor(stat: NativeStat, blockBytes: number) {
    super(stat, BigInt);
    this.dev = 0n;
    for (const field of PLAIN) this[field] = BigInt(stat[field]);
    this.blksize = BigInt(blockBytes);
    this.ino = BigInt(stat.ino);
    this.size = BigInt(stat.size);
    this.blocks = BigInt(stat.blocks);
    for (const time of TIMES) {
      const nanoseconds = BigInt(stat[`${time}Sec`]) * 1_000_000_000n + BigInt(stat[`${time}Nsec`]);
      this[`${time}Ns`] = nanoseconds;
      this[`${time}Ms`] = nanoseconds / 1_000_000n;
      this[time] = new Date(Number(nanoseconds / 1_000_000n));
    }
  }
}

/** Directory entry types of the disk format. */
const TYPE = { REGULAR: 1, DIRECTORY: 2, CHARACTER: 3, BLOCK: 4, FIFO: 5, SOCKET: 6, SYMLINK: 7 } as const;

/** `fs.Dirent` of a directory in a volume. */
export class Dirent<Name extends string | Buffer = string> {
  readonly name: Name;
  /** The directory that was read. */
  readonly parentPath: string;
  /** The same, under Node's older name. */
  readonly path: string;
  readonly #type: number;
  readonly #ino: number;

  constructor(name: Name, parentPath: string, type: number, ino = 0) {
    this.name = name;
    this.parentPath = parentPath;
    this.path = parentPath;
    this.#type = type;
    this.#ino = ino;
  }
  /** The same with its name in another form. @internal */
  called<Other extends string | Buffer>(name: Other): Dirent<Other> {
    return new Dirent(name, this.parentPath, this.#type, this.#ino);
  }
  /** The inode that the name leads to. @internal */
  inode(): number {
    return this.#ino;
  }
  isFile(): boolean {
    return this.#type === TYPE.REGULAR;
  }
  isDirectory(): boolean {
    return this.#type === TYPE.DIRECTORY;
  }
  isSymbolicLink(): boolean {
    return this.#type === TYPE.SYMLINK;
  }
  isBlockDevice(): boolean {
    return this.#type === TYPE.BLOCK;
  }
  isCharacterDevice(): boolean {
    return this.#type === TYPE.CHARACTER;
  }
  isFIFO(): boolean {
    return this.#type === TYPE.FIFO;
  }
  isSocket(): boolean {
    return this.#type === TYPE.SOCKET;
  }
}

/** Whether the disk format says no type: a volume without `filetype`. */
export function isUnknownType(type: number): boolean {
  return !Object.values<number>(TYPE).includes(type);
}

/** The type that a mode says. */
export function typeOfMode(mode: number): number {
  const types: Record<number, number> = {
    [S_IFREG]: TYPE.REGULAR,
    [S_IFDIR]: TYPE.DIRECTORY,
    [S_IFCHR]: TYPE.CHARACTER,
    [S_IFBLK]: TYPE.BLOCK,
    [S_IFIFO]: TYPE.FIFO,
    [S_IFSOCK]: TYPE.SOCKET,
    [S_IFLNK]: TYPE.SYMLINK,
  };
  return types[mode & S_IFMT] ?? 0;
}

/** Whether the disk format's type says directory. */
export function isDirectoryType(type: number): boolean {
  return type === TYPE.DIRECTORY;
}

/** Whether the disk format's type says regular file. */
export function isRegularType(type: number): boolean {
  return type === TYPE.REGULAR;
}
