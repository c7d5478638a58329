import type { Engine } from './engine.js';
import type { IoLimits } from './kiocb.js';
import type { NativeFile, NativeOpenFile, NativeVolumeInfo, VolumeHandle } from './native/boundary.js';
import { OpenInode } from './open-inode.js';
import { newWriteCounts } from './write-counts.js';
import { WriteGate } from './write-gate.js';

/** What an open file is made of; only a volume makes one. */
export interface OpenedFile {
  readonly mount: Mount;
  readonly file: NativeFile;
  readonly inode: OpenInode;
  readonly flags: number;
  readonly type: number;
}

/** A mounted volume: what its files share. */
export class Mount {
  readonly engine: Engine;
  readonly handle: VolumeHandle;
  readonly limits: IoLimits;
  /** Every file is opened for direct I/O. */
  readonly direct: boolean;
  readonly counts = newWriteCounts();
  /** Every change passes it. */
  readonly gate: WriteGate;
  /** Files that are open for writing. */
  writers = 0;
  readonly #inodes = new Map<number, OpenInode>();
  /** What closes each open file. */
  readonly closers = new Set<() => Promise<void>>();

  constructor(
    engine: Engine,
    handle: VolumeHandle,
    info: NativeVolumeInfo,
    options: { readonly direct?: boolean; readonly maxFileSize?: number },
  ) {
    this.engine = engine;
    this.handle = handle;
    this.direct = options.direct === true;
    this.gate = new WriteGate(engine);
    this.limits = {
      blockBytes: info.blockSize,
      offsetAlignBytes: info.dioOffsetAlign,
      memoryAlignBytes: info.dioMemoryAlign,
      maxFileBytes: Math.min(info.maxFileSize, options.maxFileSize ?? Number.MAX_SAFE_INTEGER),
      atomicMinBytes: info.atomicWriteUnitMin ?? 0,
      atomicMaxBytes: info.atomicWriteUnitMax ?? 0,
      atomicJournalled: info.atomicWriteJournalled ?? false,
    };
  }

  /** The open inode of a file that was opened, with one more reference. */
  acquire(file: NativeOpenFile): OpenInode {
    const { inodeKey, maxSize, bitmapFormat, dax } = file;
    let inode = this.#inodes.get(inodeKey);
    if (inode === undefined) {
      const { limits } = this;
      const own = maxSize < limits.maxFileBytes ? { ...limits, maxFileBytes: maxSize } : limits;
      inode = new OpenInode(inodeKey, this.engine, own, bitmapFormat, dax);
      this.#inodes.set(inodeKey, inode);
    }
    inode.references += 1;
    return inode;
  }

  /** Forgets an inode that nobody has open any more. */
  forget(inode: OpenInode): void {
    if (inode.references === 0) this.#inodes.delete(inode.key);
  }
}
