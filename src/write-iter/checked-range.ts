/** Where a write goes once its lock is held, and whether it may: what the three paths ask alike (A4). */
import type { Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { readSizes } from '../sizes.js';
import { checkWrite, clipCount, writePos } from './write-checks.js';

/** A write's range under the lock. */
export interface CheckedRange {
  readonly posBytes: number;
  /** The clipped count. */
  readonly countBytes: number;
  readonly sizeBytes: number;
  readonly diskSizeBytes: number;
  /** The probe's {@link ProbeFlag} bits, or a negative errno. */
  readonly flags: number;
  /** What the write ends with at once: a negative errno, or 0 for an empty one. */
  readonly refused: number | undefined;
}

/** A4.1–8 for `io`, whose lock is held. */
export function checkRange(io: Kiocb): CheckedRange {
  const { sizeBytes, diskSizeBytes } = readSizes(io);
  const { maxFileBytes } = io.limits;
  const posBytes = writePos({ append: io.append, posBytes: io.posBytes, sizeBytes });
  const countBytes = clipCount({ posBytes, countBytes: io.countBytes, maxFileBytes });
  const flags = io.engine.native.probeWrite(io.file, posBytes, countBytes);
  const immutable = (flags & ProbeFlag.IMMUTABLE) !== 0;
  const checked =
    flags < 0 ? flags : checkWrite({ immutable, posBytes, countBytes: io.countBytes, maxFileBytes });
  const refused = checked < 0 || io.countBytes === 0 ? checked : undefined;
  return { posBytes, countBytes, sizeBytes, diskSizeBytes, flags, refused };
}
