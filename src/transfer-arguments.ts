/** What the overloads of read and write mean, and what node:fs says to arguments that mean nothing. */
import { invalidType, invalidValue, outOfRange } from './errors.js';
import type { Segment } from './iov.js';
import {
  bytesOf,
  validateBuffer,
  validateInteger,
  validateReadRange,
  validateWriteRange,
} from './validate.js';

/** Options of `FileHandle.read`. */
export interface ReadOptions<T extends NodeJS.ArrayBufferView = Buffer> {
  buffer?: T;
  /** Where in the buffer to put the data, in bytes. */
  offset?: number | null;
  length?: number | null;
  /** Where in the file to begin, in bytes; null: at the handle's position, which then moves. */
  position?: number | bigint | null;
  /** RWF_NOWAIT: EAGAIN instead of waiting for a lock, the device or write-back (direct), or for the device (buffered). */
  nowait?: boolean;
}

/** Options of `FileHandle.write`. */
export interface WriteOptions {
  offset?: number;
  length?: number;
  position?: number | null;
  /**
   * RWF_NOWAIT: EAGAIN instead of waiting or allocating: only overwrites with direct I/O succeed. A buffered write fails
   * with ENOTSUP (EOPNOTSUPP by Node's name).
   */
  nowait?: boolean;
  /**
   * RWF_ATOMIC: after a crash all of it is there, or nothing. Direct I/O; a power of two bytes at a multiple of
   * itself, within `info().atomicWriteUnitMin` and `atomicWriteUnitMax`, or EINVAL; ENOTSUP where it cannot be had.
   */
  atomic?: boolean;
}

/** Options of `FileHandle.readv` and `writev`: as those of `read` and `write`. */
export type VectorOptions = Pick<WriteOptions, 'position' | 'nowait' | 'atomic'>;

/** One read or write: a part of a buffer, and where in the file. */
export interface Transfer {
  readonly buffer: Uint8Array;
  readonly offset: number;
  readonly length: number;
  /** -1: the handle's own position. */
  readonly position: number;
  readonly nowait?: boolean;
  readonly atomic?: boolean;
  /** Of several segments; else that of `buffer` and `offset`. */
  readonly memoryBits?: number;
}

/** Some buffers as one read or write. */
export interface Vector {
  readonly segments: readonly Segment[];
  readonly position: number;
  readonly nowait: boolean;
  readonly atomic: boolean;
}

/** `read(buffer, offset, length, position)`, `read(buffer, options)` and `read(options)`. */
export function readArguments<T extends NodeJS.ArrayBufferView>(
  bufferOrOptions: T | ReadOptions<T> | null | undefined,
  offset: number | null | undefined | Omit<ReadOptions<T>, 'buffer'>,
  length: number | null | undefined,
  position: number | bigint | null | undefined,
): Transfer & { readonly view: T } {
  let view: unknown = bufferOrOptions;
  let from: unknown = offset;
  let count: unknown = length;
  let at: unknown = position;
  let options: ReadOptions<T> | undefined;
  if (!ArrayBuffer.isView(bufferOrOptions)) {
    if (Array.isArray(bufferOrOptions) || !['object', 'undefined'].includes(typeof bufferOrOptions))
      throw invalidType('options', 'be of type object', bufferOrOptions);
    options = bufferOrOptions ?? {};
    view = options.buffer ?? Buffer.alloc(16384);
  } else if (typeof offset === 'object' && offset !== null) {
    options = offset;
  }
  if (options !== undefined) ({ offset: from, length: count, position: at } = options);
  validateBuffer(view);
  from ??= 0;
  validateInteger(from, 'offset', 0);
  count ??= view.byteLength - from;
  if (typeof count !== 'number') throw invalidType('length', 'be of type number', count);
  if (Number.isNaN(count)) throw outOfRange('length', 'an integer', count);
  const bytes = Math.trunc(count);
  if (bytes !== 0) {
    if (view.byteLength === 0) throw invalidValue('buffer', view, 'is empty and cannot be written');
    validateReadRange(from, bytes, view.byteLength);
  }
  return {
    view: view as T,
    buffer: bytesOf(view),
    offset: from,
    length: bytes,
    position: readPosition(at, bytes),
    nowait: flag(options?.nowait, 'options.nowait'),
  };
}

/** As node:fs's options are; what is no boolean is an error. */
function flag(value: unknown, name: string): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value !== 'boolean') throw invalidType(name, 'be of type boolean', value);
  return value;
}

/** `readv(buffers, position)`, `writev(buffers, options)` and so on. */
export function vectorArguments(buffers: unknown, position: unknown): Vector {
  if (!Array.isArray(buffers) || !buffers.every((buffer) => ArrayBuffer.isView(buffer)))
    throw invalidType('buffers', 'be an ArrayBufferView[]', buffers);
  const options: VectorOptions =
    typeof position === 'object' && position !== null
      ? position
      : { position: position as number | null | undefined };
  return {
    segments: (buffers as NodeJS.ArrayBufferView[]).map((view) => ({
      buffer: bytesOf(view),
      offset: 0,
      length: view.byteLength,
    })),
    position: writePosition(options.position),
    nowait: flag(options.nowait, 'options.nowait'),
    atomic: flag(options.atomic, 'options.atomic'),
  };
}

function readPosition(position: unknown, length: number): number {
  if (position === undefined || position === null) return -1;
  if (typeof position === 'bigint') {
    const max = 2n ** 63n - 1n - BigInt(length);
    if (position < -1n || position > max) validateInteger(Number(position), 'position', -1);
    return Number(position);
  }
  // As in node:fs: what is no integer means the handle's position.
  return typeof position === 'number' && Number.isSafeInteger(position) ? position : -1;
}

/** `write(buffer, offset, length, position)`, `write(buffer, options)` and `write(string, position, encoding)`. */
export function writeArguments(
  data: unknown,
  offset: number | null | undefined | WriteOptions,
  length: number | null | undefined | string,
  position: number | null | undefined,
): Transfer {
  if (typeof data === 'string') {
    // write(string, position?, encoding?)
    // An encoding that is none is UTF-8, as in node:fs.
    const encoding = typeof length === 'string' && Buffer.isEncoding(length) ? length : 'utf8';
    const buffer = Buffer.from(data, encoding);
    return { buffer, offset: 0, length: buffer.length, position: writePosition(offset) };
  }
  if (!ArrayBuffer.isView(data))
    throw invalidType('buffer', 'be of type string or an instance of Buffer, TypedArray, or DataView', data);
  const buffer = bytesOf(data as NodeJS.ArrayBufferView);
  let from: unknown = offset;
  let count: unknown = length;
  let at: unknown = position;
  let nowait = false;
  let atomic = false;
  if (typeof offset === 'object' && offset !== null) {
    ({ offset: from, length: count, position: at } = offset);
    nowait = flag(offset.nowait, 'options.nowait');
    atomic = flag(offset.atomic, 'options.atomic');
  }
  if (buffer.byteLength === 0) return { buffer, offset: 0, length: 0, position: -1 };
  from ??= 0;
  validateInteger(from, 'offset', 0);
  const bytes = typeof count === 'number' ? count : buffer.byteLength - from;
  validateWriteRange(from, bytes, buffer.byteLength);
  return { buffer, offset: from, length: bytes, position: writePosition(at), nowait, atomic };
}

/** As in node:fs: what is no integer means the handle's position. */
function writePosition(position: unknown): number {
  return typeof position === 'number' && Number.isSafeInteger(position) ? position : -1;
}
