/** Where a direct request lies relative to the device's and the file system's blocks (A6, B1). */
import type { Kiocb } from '../kiocb.js';

interface Range {
  readonly posBytes: number;
  readonly countBytes: number;
  /** Addresses, and with several segments their lengths: 0 for memory that the engine copies. */
  readonly memoryBits: number;
}

/** B1: the device cannot do this request; it fails with EINVAL. Never a reason to fall back (A3). */
export function isMisaligned(
  io: Range & { readonly offsetAlignBytes: number; readonly memoryAlignBytes: number },
): boolean {
  return (
    io.posBytes % io.offsetAlignBytes !== 0 ||
    io.countBytes % io.offsetAlignBytes !== 0 ||
    io.memoryBits % io.memoryAlignBytes !== 0
  );
}

/** A6 as C25.3 uses it, without the exemption beyond EOF: the request has an edge inside a file system block. */
export function isUnaligned(io: Range & { readonly blockBytes: number }): boolean {
  return (
    io.posBytes % io.blockBytes !== 0 ||
    io.countBytes % io.blockBytes !== 0 ||
    io.memoryBits % io.blockBytes !== 0
  );
}

/** {@link isMisaligned} for a part of a write. */
export function isMisalignedIo(io: Kiocb, posBytes: number, countBytes: number): boolean {
  const { offsetAlignBytes, memoryAlignBytes } = io.limits;
  const { memoryBits } = io;
  return isMisaligned({ posBytes, countBytes, memoryBits, offsetAlignBytes, memoryAlignBytes });
}

/** {@link isUnaligned} for a part of a write. */
export function isUnalignedIo(io: Kiocb, posBytes: number, countBytes: number): boolean {
  const { memoryBits } = io;
  return isUnaligned({ posBytes, countBytes, memoryBits, blockBytes: io.limits.blockBytes });
}
