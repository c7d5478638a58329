/** The rest of a short direct write, through the page cache (A16, S6, S7). */
import { begin, type Task } from '../engine.js';
import type { Kiocb } from '../kiocb.js';
import { bufferedWriteIter } from './buffered-write.js';

/** S6: what the caller hears when the buffered tail ended with `tailResult` after `doneBytes` direct bytes. */
export function fallbackResult(io: { readonly doneBytes: number; readonly tailResult: number }): number {
  if (io.tailResult >= 0) return io.doneBytes + io.tailResult;
  return io.doneBytes > 0 ? io.doneBytes : io.tailResult;
}

/**
 * Writes what direct I/O left over, waits for it and drops it from the cache, so that it is as good as direct.
 * The tail of an appending write goes to where the file ends by now, and that range is flushed (S7).
 */
export function* writeTail(
  io: Kiocb,
  rest: { readonly posBytes: number; readonly countBytes: number; readonly doneBytes: number },
): Task<number> {
  const { doneBytes } = rest;
  const endOfDirect = rest.posBytes + doneBytes;
  const tail: Kiocb = {
    ...io,
    posBytes: endOfDirect,
    offset: io.offset + doneBytes,
    countBytes: rest.countBytes - doneBytes,
  };
  let tailResult = yield* bufferedWriteIter(tail);
  if (tailResult > 0) {
    const from = tail.posBytes - tailResult;
    const length = tailResult;
    const flushed = yield begin(io.engine, (native, token) =>
      native.writeAndWait(token, io.file, from, length),
    );
    if (flushed < 0) tailResult = flushed;
    // Best effort: pages that stay are clean and right.
    else yield begin(io.engine, (native, token) => native.invalidate(token, io.file, from, length));
  }
  io.posBytes = tailResult >= 0 ? tail.posBytes : endOfDirect;
  return fallbackResult({ doneBytes, tailResult });
}
