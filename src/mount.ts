import { open, stat, type FileHandle } from 'node:fs/promises';

import type { Engine } from './engine.js';
import { AbortError, errnoError } from './errors.js';
import type { IoLimits } from './kiocb.js';
import { EIO, ENOENT } from './native/errno.js';
import type { NativeFile, NativeOpenFile, NativeVolumeInfo, Token, VolumeHandle } from './native/boundary.js';
import { OpenInode } from './open-inode.js';
import { requestOrThrow, type Start } from './request.js';
import { openJson, type OpenOptions } from './volume-options.js';
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

/** What a container gave when it was opened. */
interface Opened {
  readonly handle: VolumeHandle;
  readonly info: NativeVolumeInfo;
  readonly options: OpenOptions;
  /** Device and inode of a container that is opened with `readOnly`; a name may lead elsewhere later. */
  readonly identity: string | undefined;
}

const IN_MEMORY = /^memory:/;

/** Which file a name leads to. */
async function identityOf(file: {
  stat: () => Promise<{ dev: bigint; ino: bigint; rdev: bigint }>;
}): Promise<string> {
  const { dev, ino, rdev } = await file.stat();
  return `${dev} ${ino} ${rdev}`;
}

function limitsOf({ info, options }: Opened): IoLimits {
  return {
    blockBytes: info.blockSize,
    offsetAlignBytes: info.dioOffsetAlign,
    memoryAlignBytes: info.dioMemoryAlign,
    maxFileBytes: Math.min(info.maxFileSize, options.maxFileSize ?? Number.MAX_SAFE_INTEGER),
    atomicMinBytes: info.atomicWriteUnitMin ?? 0,
    atomicMaxBytes: info.atomicWriteUnitMax ?? 0,
    atomicJournalled: info.atomicWriteJournalled ?? false,
  };
}

async function closeContainer(engine: Engine, handle: VolumeHandle): Promise<void> {
  await requestOrThrow(engine, { syscall: 'umount' }, (native, op) => native.closeVolume(op, handle));
}

async function openContainer(engine: Engine, container: string, options: OpenOptions): Promise<Opened> {
  const json = openJson(options);
  const { signal, ...kept } = options;
  // A function: the signal changes while we wait.
  const aborted = (): AbortError | undefined =>
    signal?.aborted === true ? new AbortError(signal) : undefined;
  const before = aborted();
  if (before !== undefined) throw before;
  let opening: Token | undefined;
  const start: Start = (native, op) => {
    native.openVolume(op, container, json);
    opening = op;
  };
  const abort = (): void => {
    if (opening !== undefined) engine.native.cancelOpen(opening);
  };
  signal?.addEventListener('abort', abort, { once: true });
  try {
    const { result } = await requestOrThrow(engine, { syscall: 'mount', path: container }, start);
    const late = aborted();
    if (late !== undefined) {
      await closeContainer(engine, result);
      throw late;
    }
    const about = { stat: () => stat(container, { bigint: true }) };
    const identity = options.readOnly === true ? await identityOf(about).catch(() => undefined) : undefined;
    return { handle: result, info: engine.native.volumeInfo(result), options: kept, identity };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw (code === 'ECANCELED' ? aborted() : undefined) ?? error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** A mounted volume: what its files share. */
export class Mount {
  readonly engine: Engine;
  /** Every file is opened for direct I/O. */
  readonly direct: boolean;
  readonly counts = newWriteCounts();
  /** Every change passes it. */
  readonly gate: WriteGate;
  /** Files that are open for writing. */
  writers = 0;
  readonly #container: string;
  readonly #inodes = new Map<number, OpenInode>();
  /** What closes each open file. */
  readonly closers = new Set<() => Promise<void>>();
  #opened: Opened;
  #limits: IoLimits;

  private constructor(engine: Engine, container: string, opened: Opened) {
    this.engine = engine;
    this.#container = container;
    this.direct = opened.options.direct === true;
    this.gate = new WriteGate(engine);
    this.#opened = opened;
    this.#limits = limitsOf(opened);
  }

  static async open(engine: Engine, container: string, options: OpenOptions): Promise<Mount> {
    // A copy: it is read again by `reopenWritable`.
    return new Mount(engine, container, await openContainer(engine, container, { ...options }));
  }

  get handle(): VolumeHandle {
    return this.#opened.handle;
  }

  get limits(): IoLimits {
    return this.#limits;
  }

  /** Opened with `readOnly`: its container cannot be written, it has to be opened anew for that. */
  get isReadOnlyContainer(): boolean {
    return this.#opened.options.readOnly === true;
  }

  async close(): Promise<void> {
    await closeContainer(this.engine, this.handle);
  }

  /**
   * Opens anew, for writing, what was opened with `readOnly`: no file is open, and no call under way. Where that fails it is
   * opened as before.
   */
  async reopenWritable(): Promise<void> {
    const before = this.#opened.options;
    const { noload: _, ...options } = before;
    const pinned = await this.#pinContainer();
    try {
      await this.close();
      try {
        this.#adopt(await openContainer(this.engine, this.#container, { ...options, readOnly: false }));
      } catch (error) {
        // By what was pinned: the name may have gone meanwhile.
        const path = pinned === undefined ? this.#container : `/proc/self/fd/${pinned.fd}`;
        const { identity } = this.#opened;
        this.#adopt({ ...(await openContainer(this.engine, path, before)), identity });
        throw error;
      }
    } finally {
      await pinned?.close();
    }
  }

  /** Makes sure that the name still leads to the container, and that this can be written, before anything is given up. */
  async #pinContainer(): Promise<FileHandle | undefined> {
    const { identity } = this.#opened;
    if (identity === undefined || IN_MEMORY.test(this.#container)) return undefined;
    const refused = (errno: number): Error => errnoError(errno, 'mount', { path: this.#container });
    const file = await open(this.#container, 'r+').catch((error: NodeJS.ErrnoException) => {
      throw refused(error.errno ?? -EIO);
    });
    const same = await identityOf({ stat: () => file.stat({ bigint: true }) }).catch(() => undefined);
    if (same === identity) return file;
    await file.close();
    throw refused(-ENOENT);
  }

  #adopt(opened: Opened): void {
    this.#opened = opened;
    this.#limits = limitsOf(opened);
  }

  /** The open inode of a file that was opened, with one more reference. */
  acquire(file: NativeOpenFile): OpenInode {
    const { inodeKey, maxSize, bitmapFormat, dax } = file;
    let inode = this.#inodes.get(inodeKey);
    if (inode === undefined) {
      const limits = this.#limits;
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
