/** Arguments of calls on ranges of a file. */
import { invalidType, invalidValue } from './errors.js';
import { FallocateFlag } from './native/boundary.js';
import { validateInteger } from './validate.js';

/** What fallocate does: a name, or Linux's FALLOC_FL_ bits. */
export type FallocateMode =
  'allocate' | 'punch-hole' | 'zero-range' | 'collapse-range' | 'insert-range' | number;

/** Options of fallocate. */
export interface FallocateOptions {
  /** Default: 'allocate'. */
  readonly mode?: FallocateMode;
  /** i_size stays. Default: only where the mode is 'punch-hole', which needs it. */
  readonly keepSize?: boolean;
}

/** A part of a file; default: from its beginning, and to its end. */
export interface RangeOptions {
  readonly position?: number;
  readonly length?: number;
}

const MODES: ReadonlyMap<unknown, number> = new Map([
  ['allocate', 0],
  ['punch-hole', FallocateFlag.PUNCH_HOLE],
  ['zero-range', FallocateFlag.ZERO_RANGE],
  ['collapse-range', FallocateFlag.COLLAPSE_RANGE],
  ['insert-range', FallocateFlag.INSERT_RANGE],
]);

/** FALLOC_FL_ bits of the options. */
export function fallocateBits(options: FallocateOptions): number {
  const { mode = 'allocate' } = options;
  const named = MODES.get(mode);
  const { keepSize = named === FallocateFlag.PUNCH_HOLE } = options;
  if (typeof keepSize !== 'boolean') throw invalidType('options.keepSize', 'be of type boolean', keepSize);
  if (named !== undefined) return keepSize ? named | FallocateFlag.KEEP_SIZE : named;
  if (typeof mode !== 'number') throw invalidValue('options.mode', mode);
  validateInteger(mode, 'options.mode', 0, 2 ** 31 - 1);
  return keepSize ? mode | FallocateFlag.KEEP_SIZE : mode;
}

/** Position and length; they may not end beyond 2^53. */
export function rangeOf(options: RangeOptions): { posBytes: number; lenBytes: number } {
  const { position = 0 } = options;
  validateInteger(position, 'options.position', 0);
  const { length = Number.MAX_SAFE_INTEGER - position } = options;
  validateInteger(length, 'options.length', 0, Number.MAX_SAFE_INTEGER - position);
  return { posBytes: position, lenBytes: length };
}
