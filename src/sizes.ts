import type { Engine } from './engine.js';
import type { Kiocb } from './kiocb.js';
import type { NativeFile } from './native/boundary.js';

const out = new Float64Array(2);

/** i_size and i_disksize as they are now; stable only under the inode lock. */
export function readSizes(io: Kiocb): { sizeBytes: number; diskSizeBytes: number } {
  io.engine.native.inodeSizes(io.file, out);
  return { sizeBytes: out[0] as number, diskSizeBytes: out[1] as number };
}

/** i_size alone. */
export function readInodeSize(engine: Engine, file: NativeFile): number {
  engine.native.inodeSizes(file, out);
  return out[0] as number;
}
