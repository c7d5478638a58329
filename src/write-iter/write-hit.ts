/** The common buffered write, driven without yields. */
import type { Kiocb } from '../kiocb.js';
import { ProbeFlag } from '../native/boundary.js';
import { EAGAIN } from '../native/errno.js';
import { checkRange } from './checked-range.js';

/** A17 for a hit: the bytes written, or -EAGAIN, with nothing written. */
export function writeHit(io: Kiocb): number {
  const { lock, dax } = io.inode;
  if (io.direct || dax || io.nowait || io.atomic || io.dsync || lock.inFlight > 0 || !lock.tryWrite())
    return -EAGAIN;
  try {
    const { native } = io.engine;
    const { posBytes, countBytes, flags, refused } = checkRange(io);
    if (refused !== undefined || (flags & (ProbeFlag.READ_ONLY | ProbeFlag.MAY_STRIP)) !== 0) return -EAGAIN;
    // As ever before the data; due once a tick of the clock.
    if ((flags & ProbeFlag.NEEDS_MODIFIED) !== 0 && native.tryFileModified(io.file) < 0) return -EAGAIN;
    const written = native.tryBufferedWrite(io.file, io.buffer, io.offset, countBytes, posBytes);
    if (written < 0) return -EAGAIN;
    io.counts.buffered += 1;
    return written;
  } finally {
    lock.unlockWrite();
  }
}
