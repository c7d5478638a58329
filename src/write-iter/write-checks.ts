/** generic_write_checks: what every write is asked before anything happens (A4, C24). */
import { EFBIG, EINVAL, EOPNOTSUPP, EPERM } from '../native/errno.js';

/** A4.4: where the write begins. */
export function writePos(io: {
  readonly append: boolean;
  readonly posBytes: number;
  readonly sizeBytes: number;
}): number {
  return io.append ? io.sizeBytes : io.posBytes;
}

/** A4.6–8, the clip: how much of it fits below the largest file size. */
export function clipCount(io: {
  readonly posBytes: number;
  readonly countBytes: number;
  readonly maxFileBytes: number;
}): number {
  return Math.max(0, Math.min(io.countBytes, io.maxFileBytes - io.posBytes));
}

/**
 * A4.1–8. Returns 0 to go on or a negative errno.
 *
 * `countBytes` is what the caller asked for, not the clipped count: an empty write at the limit is no error.
 * `maxFileBytes` is the least of the three limits: the `maxFileSize` option in RLIMIT_FSIZE's place (A4.6), and those of
 * the map (A4.7–8). Swap files (A4.2) cannot occur here; a file with the append-only flag was opened to append, or
 * before it had the flag, and may then be written to anywhere.
 */
export function checkWrite(io: {
  readonly immutable: boolean;
  readonly posBytes: number;
  readonly countBytes: number;
  readonly maxFileBytes: number;
}): number {
  if (io.immutable) return -EPERM;
  if (io.countBytes > 0 && io.posBytes >= io.maxFileBytes) return -EFBIG;
  return 0;
}

/** A17: a buffered write may always block, so NOWAIT gets EOPNOTSUPP before any other check. */
export function checkBufferedNowait(io: { readonly nowait: boolean; readonly countBytes: number }): number {
  return io.nowait && io.countBytes > 0 ? -EOPNOTSUPP : 0;
}

/** C24, before any lock: direct, a power of two within the units, and at a multiple of itself. */
export function checkAtomic(io: {
  readonly direct: boolean;
  readonly posBytes: number;
  readonly countBytes: number;
  readonly atomicMinBytes: number;
  readonly atomicMaxBytes: number;
}): number {
  if (io.countBytes === 0) return 0;
  if (!io.direct || io.atomicMaxBytes === 0) return -EOPNOTSUPP;
  if (io.countBytes < io.atomicMinBytes || io.countBytes > io.atomicMaxBytes) return -EINVAL;
  const isPowerOfTwo = Number.isInteger(Math.log2(io.countBytes));
  return isPowerOfTwo && io.posBytes % io.countBytes === 0 ? 0 : -EINVAL;
}
