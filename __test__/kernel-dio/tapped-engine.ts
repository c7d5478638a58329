/** The engine with two taps that no user has: it drops a file's cached pages, and opens files past their inode flags. */
import { constants } from 'node:fs';

import { onMemory } from '../../src/aligned-memory.js';
import { Engine, begin, type Task } from '../../src/engine.js';
import type { Native, NativeFile, NativePath, Token, VolumeHandle } from '../../src/native/boundary.js';
import { loadNative } from '../../src/native/load.js';
import type { FileHandle } from '../../src/index.js';

const { O_APPEND, O_RDONLY } = constants;
const ACCESS = 3;
const EVERYTHING = 2 ** 52;

export class TappedEngine {
  readonly engine: Engine;
  /**
   * The native layer opens read-only what the handle believes is open for writing: as if the inode's flags had been
   * set after the open. Writes do not ask the native layer how it opened the file.
   */
  opensPastFlags = false;
  #lastSynced: NativeFile = -1;

  constructor() {
    const native = loadNative();
    const open = (op: Token, volume: VolumeHandle, path: NativePath, flags: number, mode: number): void => {
      const past = (flags & ~ACCESS & ~O_APPEND) | O_RDONLY;
      native.open(op, volume, path, this.opensPastFlags ? past : flags, mode);
    };
    const sync = (op: Token, file: NativeFile, datasync: boolean): void => {
      this.#lastSynced = file;
      native.sync(op, file, datasync);
    };
    this.engine = new Engine({ ...native, open, sync } satisfies Native);
    onMemory(native);
  }

  /** What the file is mapped to is in memory afterwards, holes too. The file was synced last. */
  async learnMapping(sizeBytes: number, blockBytes: number): Promise<void> {
    const native = this.#lastSynced;
    function* learn(engine: Engine): Task<number> {
      for (let pos = 0; pos < sizeBytes; pos += blockBytes) {
        const length = Math.min(blockBytes, sizeBytes - pos);
        const found = yield begin(engine, (calls, op) => calls.lookupWrite(op, native, pos, length));
        if (found < 0) return found;
      }
      return 0;
    }
    const result = await this.engine.run(learn(this.engine), { failure: undefined });
    if (result < 0) throw new Error(`lookupWrite: ${result}`);
  }

  /** fsync, then nothing of the file is cached. */
  async syncAndDrop(file: FileHandle): Promise<void> {
    await file.sync();
    const native = this.#lastSynced;
    function* drop(engine: Engine): Task<number> {
      return yield begin(engine, (calls, op) => calls.invalidate(op, native, 0, EVERYTHING));
    }
    const result = await this.engine.run(drop(this.engine), { failure: undefined });
    if (result < 0) throw new Error(`invalidate: ${result}`);
  }
}
