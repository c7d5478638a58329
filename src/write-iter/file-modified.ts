/** What every write does to its inode before its data goes anywhere (A4.9). */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { EAGAIN } from '../native/errno.js';
import { countNowait } from '../write-counts.js';

/**
 * Drops setuid, setgid and capabilities, then sets the times, where `flags`, a probe's, say that they are due; at once
 * where nobody has to be waited for, and with NOWAIT only then. Returns 0 or a negative errno.
 *
 * For every caller: nobody has CAP_FSETID here. The process's user says nothing about the volume's, and to keep set-user-ID
 * (as Linux does for root) is the worse of the two mistakes.
 */
export function* fileModified(io: Kiocb, flags: number): Task<number> {
  if ((flags & (ProbeFlag.MAY_STRIP | ProbeFlag.NEEDS_MODIFIED)) === 0) return 0;
  const tried = io.engine.native.tryFileModified(io.file);
  if (tried >= 0) return 0;
  if (io.nowait) {
    if (tried === -EAGAIN) countNowait(io.counts, 'times');
    return tried;
  }
  return yield begin(io.engine, (native, token) => native.fileModified(token, io.file));
}
