/** Errors of node:fs shape. They are built here, so that they have a stack and Node's fields. */
import { getSystemErrorMap, inspect } from 'node:util';

import type { NativeFailure } from './native/boundary.js';
import { EBADMSG, EUCLEAN } from './native/errno.js';

/** A failed operation: what node:fs throws, and for a damaged volume where the damage is. */
export interface Ext4Error extends NodeJS.ErrnoException {
  dest?: string;
  /** What the engine had to say beside the errno. */
  detail?: string;
  /** The inode, block or structure at fault. */
  place?: string;
}

/** What libuv has no name for. */
const MORE_ERRORS: ReadonlyMap<number, readonly [string, string]> = new Map([
  [-EUCLEAN, ['EUCLEAN', 'structure needs cleaning']],
  [-EBADMSG, ['EBADMSG', 'bad message']],
]);

/** [name, text] of a negative errno. */
export function describeErrno(errno: number): readonly [string, string] {
  return (
    MORE_ERRORS.get(errno) ??
    getSystemErrorMap().get(errno) ?? [`Unknown system error ${errno}`, 'unknown error']
  );
}

const VOLUME_CALLS: ReadonlySet<string> = new Set(['mount', 'mkfs', 'freeze', 'thaw', 'remount', 'shutdown']);

/** Calls on the volume itself explain themselves in the message; file calls only where the volume is damaged. */
function explains(errno: number, syscall: string): boolean {
  return errno === -EUCLEAN || errno === -EBADMSG || VOLUME_CALLS.has(syscall);
}

/** The error of `syscall` that ended with the negative `errno`. */
export function errnoError(
  errno: number,
  syscall: string,
  about: { path?: string | undefined; dest?: string | undefined; failure?: NativeFailure | undefined } = {},
): Ext4Error {
  const [code, text] = describeErrno(errno);
  let message = `${code}: ${text}, ${syscall}`;
  if (about.path !== undefined) message += ` '${about.path}'`;
  if (about.dest !== undefined) message += ` -> '${about.dest}'`;
  const { failure } = about;
  if (failure !== undefined && explains(errno, syscall)) {
    message += ` (${failure.message}${failure.place === undefined ? '' : `, ${failure.place}`})`;
  }
  const error: Ext4Error = Object.assign(new Error(message), { errno, code, syscall });
  if (about.path !== undefined) error.path = about.path;
  if (about.dest !== undefined) error.dest = about.dest;
  if (failure !== undefined) {
    Object.defineProperty(error, 'detail', { value: failure.message, enumerable: false });
    if (failure.place !== undefined)
      Object.defineProperty(error, 'place', { value: failure.place, enumerable: false });
  }
  return error;
}

/** What node:fs says about a FileHandle that is closed. */
export function closedError(what: 'file' | 'volume', syscall: string): Ext4Error {
  return Object.assign(new Error(`${what} closed`), { code: 'EBADF', syscall });
}

/** What node:fs rejects with when a signal ends a call. */
export class AbortError extends Error {
  readonly code = 'ABORT_ERR';
  override readonly name = 'AbortError';

  constructor(signal: AbortSignal) {
    super('The operation was aborted', { cause: signal.reason });
  }
}

function withCode<E extends Error>(error: E, code: string): E & { code: string } {
  const { name } = error;
  if (error.stack !== undefined) error.stack = error.stack.replace(name, `${name} [${code}]`);
  return Object.assign(error, { code });
}

function received(value: unknown): string {
  if (value === null || value === undefined) return `Received ${String(value)}`;
  if (typeof value === 'function') return `Received function ${value.name}`;
  if (typeof value === 'object') {
    const name = (value.constructor as { name?: string } | undefined)?.name;
    return name ? `Received an instance of ${name}` : `Received ${inspect(value, { depth: -1 })}`;
  }
  let text = inspect(value, { colors: false });
  if (text.length > 28) text = `${text.slice(0, 25)}...`;
  return `Received type ${typeof value} (${text})`;
}

/** ERR_INVALID_ARG_TYPE; `must` is the rest of "The "x" argument must …". */
export function invalidType(name: string, must: string, value: unknown): TypeError & { code: string } {
  const kind = name.includes('.') ? 'property' : 'argument';
  return withCode(
    new TypeError(`The "${name}" ${kind} must ${must}. ${received(value)}`),
    'ERR_INVALID_ARG_TYPE',
  );
}

/** ERR_INVALID_ARG_VALUE. */
export function invalidValue(
  name: string,
  value: unknown,
  reason = 'is invalid',
): TypeError & { code: string } {
  const kind = name.includes('.') ? 'property' : 'argument';
  let text = inspect(value);
  if (text.length > 128) text = `${text.slice(0, 128)}...`;
  return withCode(
    new TypeError(`The ${kind} '${name}' ${reason}. Received ${text}`),
    'ERR_INVALID_ARG_VALUE',
  );
}

/** ERR_FS_FILE_TOO_LARGE. */
export function fileTooLarge(sizeBytes: number, maxBytes: number): RangeError & { code: string } {
  return withCode(
    new RangeError(`File size (${sizeBytes}) is greater than ${maxBytes / 2 ** 30} GiB`),
    'ERR_FS_FILE_TOO_LARGE',
  );
}

/** ERR_OUT_OF_RANGE. */
export function outOfRange(
  name: string,
  range: string,
  value: number | bigint,
): RangeError & { code: string } {
  let text = String(value);
  if (Number.isInteger(value) && Math.abs(Number(value)) > 2 ** 32)
    text = text.replace(/\B(?=(\d{3})+$)/g, '_');
  return withCode(
    new RangeError(`The value of "${name}" is out of range. It must be ${range}. Received ${text}`),
    'ERR_OUT_OF_RANGE',
  );
}
