/** Reads: direct or through the page cache, both under the shared inode lock (A19). */
import { begin, type Task } from '../engine.js';
import { NOT_SUBMITTED, type Kiocb } from '../kiocb.js';
import { ProbeFlag, TransferFlag, type Token } from '../native/boundary.js';
import { EAGAIN } from '../native/errno.js';
import { daxRead } from './dax-read.js';

/**
 * The common direct read, driven without yields: a free lock and one submission. Returns the token of the read in
 * flight, whose end is the direct I/O's (`lock.endDio`), or NOT_SUBMITTED, with nothing changed.
 */
export function submitDirectRead(io: Kiocb): Token {
  const { lock } = io.inode;
  if (!readsDirect(io) || !lock.tryRead()) return NOT_SUBMITTED;
  try {
    return submitRead(io);
  } finally {
    lock.unlockRead();
  }
}

/** The lock is held; in flight the read is counted instead: truncate drains before it frees blocks. */
function submitRead(io: Kiocb): Token {
  const { engine, inode } = io;
  const token = engine.token();
  try {
    engine.native.directRead(token, io.file, readFlags(io), io.buffer, io.offset, io.countBytes, io.posBytes);
  } catch (error) {
    engine.release(token);
    throw error;
  }
  inode.lock.beginDio();
  engine.doorbell();
  return token;
}

/**
 * The common buffered read, driven without yields: the lock is free, every page is cached, and the time of access stays.
 * Returns bytes, or a negative number, with nothing changed: take the long way.
 */
export function readHit(io: Kiocb): number {
  const { lock, dax } = io.inode;
  if (io.direct || dax || !lock.tryRead()) return -EAGAIN;
  try {
    return io.engine.native.tryBufferedRead(io.file, io.buffer, io.offset, io.countBytes, io.posBytes);
  } finally {
    lock.unlockRead();
  }
}

/** Returns bytes read (0 at the end of the file) or a negative errno; moves `io.posBytes`. */
export function* readIter(io: Kiocb): Task<number> {
  // A19: an empty read takes no lock and leaves atime alone.
  if (io.countBytes === 0) return 0;
  const { lock } = io.inode;
  if (io.nowait) {
    if (!lock.tryRead()) return -EAGAIN;
  } else {
    yield* lock.read();
  }
  const result = yield* readLocked(io);
  if (result > 0) io.posBytes += result;
  return result;
}

/** The lock is held shared on entry and released before it returns. */
function* readLocked(io: Kiocb): Task<number> {
  if (io.inode.dax) return yield* daxRead(io);
  return readsDirect(io) ? yield* directRead(io) : yield* bufferedRead(io);
}

/** As {@link readLocked}. */
function* directRead(io: Kiocb): Task<number> {
  const { lock } = io.inode;
  let token: Token;
  try {
    token = submitRead(io);
  } finally {
    lock.unlockRead();
  }
  const result = yield token;
  lock.endDio();
  return result;
}

/** As {@link readLocked}. A hit needs no worker; what is no hit, an error included, takes the long way. */
function* bufferedRead(io: Kiocb): Task<number> {
  try {
    const hit = io.engine.native.tryBufferedRead(io.file, io.buffer, io.offset, io.countBytes, io.posBytes);
    if (hit >= 0) return hit;
    return yield begin(io.engine, (native, op) =>
      native.bufferedRead(op, io.file, readFlags(io), io.buffer, io.offset, io.countBytes, io.posBytes),
    );
  } finally {
    io.inode.lock.unlockRead();
  }
}

/** C5: with NOWAIT the engine answers EAGAIN where it would have to wait for the device, or for write-back first (B4). */
function readFlags(io: Kiocb): number {
  return io.nowait ? TransferFlag.NOWAIT : 0;
}

/**
 * A3 holds for reads too: where direct I/O is unsupported they go through the page cache. On the way the time of access
 * is moved, if that is due, whatever the read comes to; where it would have to wait it is left to the next read.
 */
function readsDirect(io: Kiocb): boolean {
  const { native } = io.engine;
  const flags = native.probeWrite(io.file, io.posBytes, 0);
  if (flags < 0) return io.direct;
  if ((flags & ProbeFlag.ACCESS_DUE) !== 0) native.tryFileAccessed(io.file);
  return io.direct && (flags & ProbeFlag.DIO_UNSUPPORTED) === 0;
}
