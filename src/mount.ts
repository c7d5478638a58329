import type { Engine } from './engine.js';
import type { IoLimits } from './kiocb.js';
import type { NativeVolumeInfo, VolumeHandle } from './native/boundary.js';
import { OpenInode } from './open-inode.js';
import { newWriteCounts } from './write-counts.js';
import { WriteGate } from './write-gate.js';

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

  constructor(engine: Engine, handle: VolumeHandle, info: NativeVolumeInfo, direct: boolean) {
    this.engine = engine;
    this.handle = handle;
    this.direct = direct;
    this.gate = new WriteGate(engine);
    this.limits = {
      blockBytes: info.blockSize,
      offsetAlignBytes: info.dioOffsetAlign,
      memoryAlignBytes: info.dioMemoryAlign,
      maxFileBytes: info.maxFileSize,
    };
  }

  /** The open inode of `key`, with one more reference. */
  acquire(key: number): OpenInode {
    let inode = this.#inodes.get(key);
    if (inode === undefined) {
      inode = new OpenInode(key, this.engine);
      this.#inodes.set(key, inode);
    }
    inode.references += 1;
    return inode;
  }

  /** Forgets an inode that nobody has open any more. */
  forget(inode: OpenInode): void {
    if (inode.references === 0) this.#inodes.delete(inode.key);
  }
}
