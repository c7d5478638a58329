/** Arguments in node:fs's way: the same values accepted, the same errors for the rest. */
import { constants } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { invalidType, invalidValue, outOfRange } from './errors.js';
import { XattrFlag } from './native/boundary.js';

/** A path inside a volume, or of a container on the host. */
export type PathLike = string | Buffer | URL;

/** A time: seconds since 1970, a numeric string of them, or a Date. */
export type TimeLike = number | string | Date;

/** The path as the engine takes it: a string, or bytes where the caller gave bytes. */
export function validatePath(path: unknown, name = 'path'): string | Uint8Array {
  const plain = path instanceof URL ? fileURLToPath(path) : path;
  if (typeof plain !== 'string' && !(plain instanceof Uint8Array)) {
    throw invalidType(name, 'be of type string or an instance of Buffer or URL', path);
  }
  if (typeof plain === 'string' ? plain.includes('\0') : plain.includes(0)) {
    throw invalidValue(name, path, 'must be a string, Uint8Array, or URL without null bytes');
  }
  return plain;
}

/** The path as an error shows it. */
export function pathText(path: string | Uint8Array): string {
  return typeof path === 'string' ? path : Buffer.from(path).toString();
}

/** The name of an extended attribute as the engine takes it. */
export function validateXattrName(name: unknown): string | Uint8Array {
  if (typeof name !== 'string' && !(name instanceof Uint8Array))
    throw invalidType('name', 'be of type string or an instance of Buffer', name);
  if (typeof name === 'string' ? name.includes('\0') : name.includes(0))
    throw invalidValue('name', name, 'must be without null bytes');
  return name;
}

/** setxattr(2)'s flags. */
export function parseXattrFlag(flag: unknown): number {
  if (flag === undefined) return 0;
  if (flag === 'create') return XattrFlag.CREATE;
  if (flag === 'replace') return XattrFlag.REPLACE;
  throw invalidValue('options.flag', flag, "must be 'create' or 'replace'");
}

export function validateInteger(
  value: unknown,
  name: string,
  min: number = Number.MIN_SAFE_INTEGER,
  max: number = Number.MAX_SAFE_INTEGER,
): asserts value is number {
  if (typeof value !== 'number') throw invalidType(name, 'be of type number', value);
  if (!Number.isInteger(value)) throw outOfRange(name, 'an integer', value);
  if (value < min || value > max) throw outOfRange(name, `>= ${min} && <= ${max}`, value);
}

export function validateBuffer(value: unknown, name = 'buffer'): asserts value is NodeJS.ArrayBufferView {
  if (!ArrayBuffer.isView(value))
    throw invalidType(name, 'be an instance of Buffer, TypedArray, or DataView', value);
}

/** The bytes of any view, without a copy. */
export function bytesOf(view: NodeJS.ArrayBufferView): Uint8Array {
  return view instanceof Uint8Array ? view : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export function validateReadRange(offset: number, length: number, bufferLength: number): void {
  if (offset < 0) throw outOfRange('offset', '>= 0', offset);
  if (length < 0) throw outOfRange('length', '>= 0', length);
  if (offset + length > bufferLength) throw outOfRange('length', `<= ${bufferLength - offset}`, length);
}

export function validateWriteRange(offset: number, length: number, byteLength: number): void {
  if (offset > byteLength) throw outOfRange('offset', `<= ${byteLength}`, offset);
  if (length > byteLength - offset) throw outOfRange('length', `<= ${byteLength - offset}`, length);
  if (length < 0) throw outOfRange('length', '>= 0', length);
  validateInteger(length, 'length', 0, 2 ** 31 - 1);
}

const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } = constants;

const FLAGS: ReadonlyMap<string, number> = new Map([
  ['r', O_RDONLY],
  ['rs', O_RDONLY | O_SYNC],
  ['sr', O_RDONLY | O_SYNC],
  ['r+', O_RDWR],
  ['rs+', O_RDWR | O_SYNC],
  ['sr+', O_RDWR | O_SYNC],
  ['w', O_TRUNC | O_CREAT | O_WRONLY],
  ['wx', O_TRUNC | O_CREAT | O_WRONLY | O_EXCL],
  ['xw', O_TRUNC | O_CREAT | O_WRONLY | O_EXCL],
  ['w+', O_TRUNC | O_CREAT | O_RDWR],
  ['wx+', O_TRUNC | O_CREAT | O_RDWR | O_EXCL],
  ['xw+', O_TRUNC | O_CREAT | O_RDWR | O_EXCL],
  ['a', O_APPEND | O_CREAT | O_WRONLY],
  ['ax', O_APPEND | O_CREAT | O_WRONLY | O_EXCL],
  ['xa', O_APPEND | O_CREAT | O_WRONLY | O_EXCL],
  ['as', O_APPEND | O_CREAT | O_WRONLY | O_SYNC],
  ['sa', O_APPEND | O_CREAT | O_WRONLY | O_SYNC],
  ['a+', O_APPEND | O_CREAT | O_RDWR],
  ['ax+', O_APPEND | O_CREAT | O_RDWR | O_EXCL],
  ['xa+', O_APPEND | O_CREAT | O_RDWR | O_EXCL],
  ['as+', O_APPEND | O_CREAT | O_RDWR | O_SYNC],
  ['sa+', O_APPEND | O_CREAT | O_RDWR | O_SYNC],
]);

/** POSIX flags from a number or node:fs's letters. */
export function parseFlags(flags: unknown, name = 'flags'): number {
  if (flags === undefined || flags === null) return O_RDONLY;
  if (typeof flags === 'number') {
    validateInteger(flags, name, -(2 ** 31), 2 ** 31 - 1);
    return flags;
  }
  const parsed = typeof flags === 'string' ? FLAGS.get(flags) : undefined;
  if (parsed === undefined) throw invalidValue(name, flags);
  return parsed;
}

const MAX_ID = 2 ** 32 - 1;

/** A user's and a group's id; -1: as it is. */
export function validateIds(uid: unknown, gid: unknown): void {
  validateInteger(uid, 'uid', -1, MAX_ID);
  validateInteger(gid, 'gid', -1, MAX_ID);
}

/** Permission bits from a number or an octal string. */
export function parseMode(mode: unknown, name: string, fallback?: number): number {
  const value = mode ?? fallback;
  if (typeof value === 'string') {
    if (!/^[0-7]+$/.test(value)) {
      throw invalidValue(name, value, 'must be a 32-bit unsigned integer or an octal string');
    }
    return Number.parseInt(value, 8);
  }
  validateInteger(value, name, 0, 2 ** 32 - 1);
  return value;
}

/** Beyond what an inode can hold, which clamps it further. */
const MAX_SECONDS = 2 ** 34;

/** Whole seconds and nanoseconds of a time; before 1970 in numbers means now, as in node:fs. */
export function parseTime(time: unknown, name: string): { seconds: number; nanoseconds: number } {
  if (time instanceof Date && !Number.isNaN(time.getTime())) {
    const seconds = Math.floor(time.getTime() / 1000);
    return { seconds, nanoseconds: Math.round((time.getTime() - seconds * 1000) * 1e6) };
  }
  const number = typeof time === 'string' && time.trim() !== '' ? Number(time) : time;
  if (typeof number !== 'number' || !Number.isFinite(number)) {
    throw invalidType(name, 'be an instance of Date or an Time in seconds', time);
  }
  const value = number < 0 ? Date.now() / 1000 : number;
  // A double holds a time of today to a quarter of a microsecond.
  const micros = Math.round(Math.min(Math.max(value, -MAX_SECONDS), MAX_SECONDS) * 1e6);
  const seconds = Math.floor(micros / 1e6);
  return { seconds, nanoseconds: Math.max(0, micros - seconds * 1e6) * 1000 };
}

/** Seconds and nanoseconds of access, then of modification. */
export type Times = readonly [number, number, number, number];

/** The two times of utimes. @throws as {@link parseTime} */
export function parseTimes(atime: TimeLike, mtime: TimeLike): Times {
  const a = parseTime(atime, 'time');
  const m = parseTime(mtime, 'time');
  return [a.seconds, a.nanoseconds, m.seconds, m.nanoseconds];
}
