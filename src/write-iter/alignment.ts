/** Where a direct request lies relative to the device's and the file system's blocks (A6, B1). */

interface Range {
  readonly posBytes: number;
  readonly countBytes: number;
  /** 0 for memory that the engine copies: aligned by construction. */
  readonly memoryAddress: number;
}

/** B1: the device cannot do this request; it fails with EINVAL. Never a reason to fall back (A3). */
export function isMisaligned(
  io: Range & { readonly offsetAlignBytes: number; readonly memoryAlignBytes: number },
): boolean {
  return (
    io.posBytes % io.offsetAlignBytes !== 0 ||
    io.countBytes % io.offsetAlignBytes !== 0 ||
    io.memoryAddress % io.memoryAlignBytes !== 0
  );
}

/** A6 as C25.3 uses it, without the exemption beyond EOF: the request has an edge inside a file system block. */
export function isUnaligned(io: Range & { readonly blockBytes: number }): boolean {
  return (
    io.posBytes % io.blockBytes !== 0 ||
    io.countBytes % io.blockBytes !== 0 ||
    io.memoryAddress % io.blockBytes !== 0
  );
}
