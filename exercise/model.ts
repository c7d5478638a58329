/** What a file must hold, and what an operation on it must answer. */
import { bytesOf, type FileOperation } from './operation.js';

/** What an operation came to: a count or 0, or an errno's name. */
export interface Outcome {
  readonly ret?: number;
  readonly err?: string;
  /** What a read read. */
  readonly data?: Buffer;
}

const POOL_BYTES = 1024 * 1024;
/** A file's bytes are those whose value minus one is its number modulo this: nobody else's, and never zero. */
export const CLASSES = 15;
const pools = new Map<number, Buffer>();

/** Bytes that only this file is given, from somewhere in its pool. */
export function bytesFor(file: number, from: number, length: number): Buffer {
  const kind = file % CLASSES;
  let pool = pools.get(kind);
  if (pool === undefined) {
    pool = Buffer.alloc(POOL_BYTES);
    let state = kind + 1;
    for (let index = 0; index < POOL_BYTES; index += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      pool[index] = 1 + kind + CLASSES * ((state >>> 16) % 17);
    }
    pools.set(kind, pool);
  }
  const start = startInPool(from, length);
  return pool.subarray(start, start + length);
}

/** Where in its pool a write's data begins; it begins there for every shorter one too. */
export function startInPool(from: number, length: number): number {
  return from % (POOL_BYTES - length);
}

/** What the volume asks of operations. In bytes. */
export interface Units {
  readonly blockBytes: number;
  /** What direct I/O is a multiple of. */
  readonly directAlignBytes: number;
  /** The longest atomic write; 0: there is none. The shortest is a block. */
  readonly atomicMaxBytes: number;
  /** A block map instead of extents. */
  readonly bitmapFormat: boolean;
  /** Direct writes go through the page cache and so need no alignment. */
  readonly journalsData: boolean;
}

/** One file. Sizes in bytes. */
export class FileModel {
  readonly #units: Units;
  #bytes: Buffer;
  #size: number;

  constructor(units: Units, bytes: Buffer = Buffer.alloc(0)) {
    this.#units = units;
    this.#bytes = bytes;
    this.#size = bytes.length;
  }

  get size(): number {
    return this.#size;
  }

  /** All of it; a view that the next operation may change. */
  get content(): Buffer {
    return this.#bytes.subarray(0, this.#size);
  }

  copy(): FileModel {
    return new FileModel(this.#units, Buffer.from(this.content));
  }

  /** Takes over what was found. */
  adopt(content: Buffer): void {
    this.#bytes = Buffer.from(content);
    this.#size = content.length;
  }

  /** What the operation must answer, and its effect. */
  apply(operation: FileOperation): Outcome {
    switch (operation.k) {
      case 'write': {
        const length = bytesOf(operation);
        const pos = operation.append === true ? this.#size : operation.pos;
        const refused = operation.atomic === true ? this.#refusesAtomic(pos, length) : undefined;
        if (refused !== undefined) return { err: refused };
        if (operation.direct && !this.#units.journalsData && pos % this.#units.directAlignBytes !== 0)
          return { err: 'EINVAL' };
        this.#put(bytesFor(operation.file, operation.from, length), pos);
        return { ret: length };
      }
      case 'read': {
        const data = Buffer.from(this.content.subarray(operation.pos, operation.pos + bytesOf(operation)));
        return { ret: data.length, data };
      }
      case 'truncate':
        this.#resize(operation.size);
        return { ret: 0 };
      case 'fallocate':
        return this.#fallocate(operation);
      case 'remake':
        this.#resize(0);
        return { ret: 0 };
      case 'seek':
      case 'fsync':
        return { ret: 0 };
      default:
        return operation satisfies never;
    }
  }

  /** Whether lseek may have found `found`: what it passed over holds no data, what it stopped at is no lie. */
  allowsSeek(operation: Extract<FileOperation, { k: 'seek' }>, found: Outcome): boolean {
    const { pos, whence } = operation;
    if (pos >= this.#size) return found.err === 'ENXIO';
    if (whence === 'hole') {
      const { blockBytes } = this.#units;
      const hole = found.ret ?? -1;
      // A hole that is found reads as zeros as far as its block goes; there is always one at the end.
      const end = Math.min(this.#size, (Math.floor(hole / blockBytes) + 1) * blockBytes);
      return hole >= pos && hole <= this.#size && isZero(this.content.subarray(hole, end));
    }
    if (found.err === 'ENXIO') return isZero(this.content.subarray(pos));
    const data = found.ret ?? -1;
    return data >= pos && data < this.#size && isZero(this.content.subarray(pos, data));
  }

  /** C24. */
  #refusesAtomic(pos: number, length: number): string | undefined {
    const { atomicMaxBytes, blockBytes, journalsData } = this.#units;
    if (atomicMaxBytes === 0) return 'ENOTSUP';
    if (length < blockBytes || length > atomicMaxBytes || !Number.isInteger(Math.log2(length)))
      return 'EINVAL';
    if (pos % length !== 0) return 'EINVAL';
    return journalsData ? 'ENOTSUP' : undefined;
  }

  #put(data: Uint8Array, pos: number): void {
    const end = pos + data.length;
    this.#reserve(end);
    this.#bytes.set(data, pos);
    if (end > this.#size) this.#size = end;
  }

  /** Bytes beyond the size are always zero. */
  #reserve(bytes: number): void {
    if (bytes <= this.#bytes.length) return;
    const larger = Buffer.alloc(Math.max(bytes, 2 * this.#bytes.length));
    this.#bytes.copy(larger, 0, 0, this.#size);
    this.#bytes = larger;
  }

  #resize(size: number): void {
    this.#reserve(size);
    if (size < this.#size) this.#bytes.fill(0, size, this.#size);
    this.#size = size;
  }

  #fallocate(operation: Extract<FileOperation, { k: 'fallocate' }>): Outcome {
    const { mode, keepSize, pos, len } = operation;
    const end = pos + len;
    if (this.#units.bitmapFormat && mode !== 'punch-hole') return { err: 'ENOTSUP' };
    const isAligned = (pos | len) % this.#units.blockBytes === 0;
    switch (mode) {
      case 'punch-hole':
        this.#bytes.fill(0, Math.min(pos, this.#size), Math.min(end, this.#size));
        return { ret: 0 };
      case 'allocate':
      case 'zero-range':
        if (mode === 'zero-range') this.#bytes.fill(0, Math.min(pos, this.#size), Math.min(end, this.#size));
        if (!keepSize && end > this.#size) this.#resize(end);
        return { ret: 0 };
      case 'collapse-range':
        if (!isAligned || end >= this.#size) return { err: 'EINVAL' };
        this.#bytes.copy(this.#bytes, pos, end, this.#size);
        this.#resize(this.#size - len);
        return { ret: 0 };
      case 'insert-range':
        if (!isAligned || pos >= this.#size) return { err: 'EINVAL' };
        this.#reserve(this.#size + len);
        this.#bytes.copy(this.#bytes, end, pos, this.#size);
        this.#bytes.fill(0, pos, end);
        this.#size += len;
        return { ret: 0 };
      default:
        return mode satisfies never;
    }
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
