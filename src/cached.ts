/** Hits in the page cache, driven without yields: what read-iter and buffered-write do where nobody has to be waited for. */
import type { Kiocb } from './kiocb.js';
import { EAGAIN } from './native/errno.js';
import { ProbeFlag } from './native/boundary.js';
import { checkRange } from './write-iter/checked-range.js';

/** A19 for a hit: the bytes read, or -EAGAIN, with nothing changed. */
export function readCached(io: Kiocb): number {
  const { lock, dax } = io.inode;
  if (dax || io.countBytes === 0 || !lock.tryRead()) return -EAGAIN;
  try {
    const { native } = io.engine;
    // Where it would have to wait it is left to the next read.
    native.tryFileAccessed(io.file);
    const bytes = native.tryBufferedRead(io.file, io.buffer, io.offset, io.countBytes, io.posBytes);
    return bytes >= 0 ? bytes : -EAGAIN;
  } finally {
    lock.unlockRead();
  }
}

/** A17 for a hit: the bytes written, or -EAGAIN, with nothing written. */
export function writeCached(io: Kiocb): number {
  const { lock, dax } = io.inode;
  if (dax || io.nowait || io.atomic || io.dsync || lock.inFlight > 0 || !lock.tryWrite()) return -EAGAIN;
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
