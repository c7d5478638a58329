/** generic_write_checks: what every write is asked before anything happens (A4). */
import { EFBIG, EOPNOTSUPP, EPERM, EROFS } from '../native/errno.js';

/** A4.4: where the write begins. */
export function writePos(io: {
  readonly append: boolean;
  readonly posBytes: number;
  readonly sizeBytes: number;
}): number {
  return io.append ? io.sizeBytes : io.posBytes;
}

/** A4.7, the clip: how much of it fits below the largest file size. */
export function clipCount(io: {
  readonly posBytes: number;
  readonly countBytes: number;
  readonly maxFileBytes: number;
}): number {
  return Math.max(0, Math.min(io.countBytes, io.maxFileBytes - io.posBytes));
}

/**
 * A4.1–7 and C23. Returns 0 to go on or a negative errno.
 *
 * `countBytes` is what the caller asked for, not the clipped count: an empty write at the limit is no error.
 * RLIMIT_FSIZE (A4.6) is the host's limit on the host's files and does not apply inside a volume.
 */
export function checkWrite(io: {
  readonly readOnly: boolean;
  readonly immutable: boolean;
  readonly posBytes: number;
  readonly countBytes: number;
  readonly maxFileBytes: number;
}): number {
  if (io.readOnly) return -EROFS;
  if (io.immutable) return -EPERM;
  if (io.countBytes > 0 && io.posBytes >= io.maxFileBytes) return -EFBIG;
  return 0;
}

/** A17: a buffered write may always block, so NOWAIT gets EOPNOTSUPP before any other check. */
export function checkBufferedNowait(io: { readonly nowait: boolean; readonly countBytes: number }): number {
  return io.nowait && io.countBytes > 0 ? -EOPNOTSUPP : 0;
}
