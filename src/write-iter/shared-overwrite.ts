/** The common case of dio-write.ts, an overwrite that shares the lock, driven without yields. */
import { NOT_SUBMITTED, type Kiocb } from '../kiocb.js';
import { ProbeFlag, type Token } from '../native/boundary.js';
import { countShared } from '../write-counts.js';
import { isMisalignedIo, isUnalignedIo } from './alignment.js';
import { whyExclusive, whyShared, type DioShape } from './lock-mode.js';
import { submitWrite } from './submit.js';

/** The only bits of a probe that need no decision of the long way; an error has others. */
const PLAIN = ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN | ProbeFlag.NEEDS_MODIFIED;

/**
 * C25 where it needs no wait: a free lock, one probe, one submission. Returns the token of the write in flight, whose
 * end is the direct I/O's (`lock.endDio`), or NOT_SUBMITTED, with nothing changed.
 */
export function submitSharedOverwrite(io: Kiocb): Token {
  const { posBytes, countBytes } = io;
  if (io.append || io.atomic || countBytes === 0 || posBytes + countBytes > io.limits.maxFileBytes)
    return NOT_SUBMITTED;
  const { lock } = io.inode;
  if (!lock.tryRead()) return NOT_SUBMITTED;
  try {
    const flags = io.engine.native.probeWrite(io.file, posBytes, countBytes);
    if ((flags & ProbeFlag.OVERWRITE) === 0 || (flags & ~PLAIN) !== 0) return NOT_SUBMITTED;
    const shape: DioShape = {
      mayStripPrivileges: false,
      // Inside i_size; Rust answers EAGAIN where it is past i_disksize.
      extending: false,
      overwrite: true,
      unwritten: (flags & ProbeFlag.UNWRITTEN) !== 0,
      unaligned: isUnalignedIo(io, posBytes, countBytes),
      journalled: false,
    };
    if (whyExclusive(shape) !== undefined || isMisalignedIo(io, posBytes, countBytes)) return NOT_SUBMITTED;
    // C25.6: last. Due once a tick of the clock; the others of the tick find nothing to do.
    const modifies = (flags & ProbeFlag.NEEDS_MODIFIED) !== 0;
    if (modifies && io.engine.native.tryFileModified(io.file) < 0) return NOT_SUBMITTED;
    const token = submitWrite(io, { posBytes, countBytes, exclusive: false, extending: false });
    countShared(io, whyShared(shape));
    return token;
  } finally {
    lock.unlockRead();
  }
}

/** Whether the result of a {@link submitSharedOverwrite} is final, or `finishSharedOverwrite` must go on. */
export function isComplete(io: Kiocb, result: number): boolean {
  return result === io.countBytes && !io.sync;
}
