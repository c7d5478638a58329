/** Hands a write to the engine. */
import type { Kiocb } from '../kiocb.js';
import { LockMode, TransferFlag, type Token } from '../native/boundary.js';

/** A write's part of `io`, and the lock it is submitted under. */
export interface Submission {
  readonly posBytes: number;
  readonly countBytes: number;
  readonly exclusive: boolean;
  readonly extending: boolean;
}

/** Submits; from then on the write is counted in flight until `lock.endDio`. The lock is held. */
export function submitWrite(io: Kiocb, write: Submission): Token {
  const { engine, inode } = io;
  const mode = write.exclusive ? LockMode.EXCLUSIVE : LockMode.SHARED;
  let flags = write.extending ? TransferFlag.EXTENDING : 0;
  // B8: O_SYNC wants the inode's times too; its sync comes afterwards.
  if (io.dsync && !io.sync) flags |= TransferFlag.DSYNC;
  if (io.nowait) flags |= TransferFlag.NOWAIT;
  if (io.atomic) flags |= TransferFlag.ATOMIC;
  const token = engine.token();
  try {
    const { posBytes, countBytes } = write;
    engine.native.directWrite(token, io.file, mode, flags, io.buffer, io.offset, countBytes, posBytes);
  } catch (error) {
    engine.release(token);
    throw error;
  }
  inode.lock.beginDio();
  engine.doorbell();
  return token;
}
