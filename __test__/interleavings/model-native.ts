/** The engine's calls over a {@link ModelFile}: each is cut into the steps between which others may come. */
import { LockMode, ProbeFlag, TransferFlag, type Native, type Token } from '../../src/native/boundary.js';
import { EAGAIN, ENOTBLK } from '../../src/native/errno.js';
import { BLOCK, ModelFile, blocksOf, range } from './model-file.js';

/** Rules that can be broken on purpose, to see that somebody notices. */
export interface Faults {
  /** C25.4: sub-block writes into unwritten blocks are taken for overwrites, by the probe and by the engine. */
  readonly shareUnwritten?: boolean;
  /** C25.3: holes are taken for overwrites. */
  readonly shareHoles?: boolean;
  /** The engine does not look again under the shared lock: the policy alone must be right. */
  readonly trusting?: boolean;
  /** B4: direct writes leave cached pages alone. */
  readonly keepPages?: boolean;
}

/** A step that can happen now. */
export interface Step {
  readonly name: string;
  readonly run: () => void;
}

export class ModelNative {
  file = new ModelFile();
  steps: Step[] = [];
  readonly faults: Faults;
  /** The mapping is not in memory before somebody has looked at the disk. */
  unknown = false;
  /** Indirect blocks: nothing is unwritten, and a direct write stops at a hole inside i_size (A12, B10). */
  blockMap = false;
  /** Somebody holds a page: the next direct write that wants it gone is told ENOTBLK (B4). */
  busy = false;
  #slots: Float64Array = new Float64Array(2);
  #onBatch: (count: number) => void = () => {};

  constructor(faults: Faults = {}) {
    this.faults = faults;
  }

  /** A new file, and nothing to do. */
  reset(): void {
    this.file = new ModelFile();
    this.steps = [];
    this.unknown = false;
    this.busy = false;
    this.blockMap = false;
  }

  /** As the engine's constructor wants it; calls that no scenario makes are missing. */
  get native(): Native {
    return this as unknown as Native;
  }

  start(slots: Float64Array, onBatch: (count: number) => void): void {
    this.#slots = slots;
    this.#onBatch = onBatch;
  }
  submit(): void {
    // Requests are queued as steps.
  }
  takeResult(): undefined {
    return undefined;
  }

  inodeSizes(_file: number, out: Float64Array): void {
    out[0] = this.file.size;
    out[1] = this.file.diskSize;
  }

  probeWrite(_file: number, pos: number, len: number): number {
    if (len === 0 || pos + len > this.file.size) return 0;
    return this.unknown ? ProbeFlag.UNKNOWN : this.#probe(pos, len);
  }

  lookupWrite(op: Token, _file: number, pos: number, len: number): void {
    this.#step(op, 'lookup', () => {
      this.unknown = false;
      return pos + len > this.file.size ? 0 : this.#probe(pos, len);
    });
  }

  #probe(pos: number, len: number): number {
    const { shareUnwritten, shareHoles } = this.faults;
    const state = this.file.runState(pos, len);
    if (state === undefined) return shareHoles ? ProbeFlag.OVERWRITE : 0;
    const unwritten = state === 'unwritten' && !shareUnwritten;
    return ProbeFlag.OVERWRITE | (unwritten ? ProbeFlag.UNWRITTEN : 0);
  }

  directWrite(
    ...[op, , lockMode, flags, buffer, offset, length, pos]: Parameters<Native['directWrite']>
  ): void {
    const { file } = this;
    const data = [...buffer.subarray(offset, offset + length)];
    if (lockMode === LockMode.SHARED && !this.#mayShare(pos, length)) {
      this.#finish(op, -EAGAIN);
    } else if (file.isAllocated(pos, length) && !file.hasPages(pos, length)) {
      this.#issue(op, pos, data, new Set());
    } else if ((flags & TransferFlag.NOWAIT) !== 0) {
      this.#finish(op, -EAGAIN);
    } else {
      this.#push('prepare', () => {
        if (!this.faults.keepPages) {
          file.writeBack(pos, length);
          if (!file.invalidate(pos, length) || this.busy) {
            this.busy = false;
            this.#deliver(op, -ENOTBLK);
            return;
          }
        }
        this.#push('map', () => {
          const prefix = this.blockMap ? this.#beforeHole(pos, length) : length;
          if (prefix === 0) {
            this.#deliver(op, -ENOTBLK);
            return;
          }
          const holes = new Set(blocksOf(pos, prefix).filter((index) => !file.blocks.has(index)));
          file.mapForWrite(pos, prefix);
          if (this.blockMap) for (const index of blocksOf(pos, prefix)) file.markWritten(index);
          this.#issue(op, pos, data.slice(0, prefix), holes);
        });
      });
    }
  }

  /** How much of a range lies before its first hole inside i_size. */
  #beforeHole(pos: number, length: number): number {
    const { file } = this;
    const hole = blocksOf(pos, length).find((index) => !file.blocks.has(index) && index * BLOCK < file.size);
    return hole === undefined ? length : Math.max(0, hole * BLOCK - pos);
  }

  /** Rust's second look under the shared lock. */
  #mayShare(pos: number, length: number): boolean {
    const { file, faults } = this;
    if (faults.shareHoles) return true;
    if (pos + length > Math.min(file.size, file.diskSize)) return false;
    if (faults.trusting) return true;
    const state = file.runState(pos, length);
    const aligned = pos % BLOCK === 0 && length % BLOCK === 0;
    return state === 'written' || (state === 'unwritten' && (aligned || faults.shareUnwritten === true));
  }

  #issue(op: Token, pos: number, data: readonly number[], holes: ReadonlySet<number>): void {
    const { file } = this;
    const unwritten = blocksOf(pos, data.length).filter((index) => file.blocks.get(index)?.written === false);
    const pieces = file.planWrite(pos, data, new Set([...holes, ...unwritten]));
    let outstanding = pieces.length;
    for (const piece of pieces) {
      this.#push('device write', () => {
        file.deviceWrite(piece.address, piece.bytes);
        outstanding -= 1;
        if (outstanding > 0) return;
        const end = pos + data.length;
        if (unwritten.length === 0 && end <= Math.min(file.size, file.diskSize)) {
          this.#completeWrite(op, pos, data.length);
          return;
        }
        this.#push('end_io', () => {
          file.endIo(pos, data.length);
          this.#completeWrite(op, pos, data.length);
        });
      });
    }
  }

  #completeWrite(op: Token, pos: number, length: number): void {
    this.file.invalidate(pos, length);
    this.#deliver(op, length);
  }

  directRead(...[op, , flags, buffer, offset, length, pos]: Parameters<Native['directRead']>): void {
    const { file } = this;
    const count = Math.max(0, Math.min(length, file.size - pos));
    const dirty = count > 0 && file.hasPages(pos, count, true);
    if (count === 0) this.#finish(op, 0);
    else if (dirty && (flags & TransferFlag.NOWAIT) !== 0) this.#finish(op, -EAGAIN);
    else if (dirty)
      this.#push('write back', () => {
        file.writeBack(pos, count);
        this.#issueRead(op, buffer, offset, count, pos);
      });
    else this.#issueRead(op, buffer, offset, count, pos);
  }

  #issueRead(op: Token, buffer: Uint8Array, offset: number, count: number, pos: number): void {
    const { file } = this;
    const sources = range(pos, pos + count).map((at) => {
      const block = file.blocks.get(Math.floor(at / BLOCK));
      return block?.written === true ? block.physical * BLOCK + (at % BLOCK) : undefined;
    });
    this.#step(op, 'device read', () => {
      for (const [index, source] of sources.entries())
        buffer[offset + index] = source === undefined ? 0 : file.deviceRead(source);
      return count;
    });
  }

  bufferedWrite(...[op, , , buffer, offset, length, pos]: Parameters<Native['bufferedWrite']>): void {
    const data = [...buffer.subarray(offset, offset + length)];
    this.#step(op, 'buffered write', () => {
      this.file.bufferedWrite(pos, data);
      return length;
    });
  }

  bufferedRead(...[op, , , buffer, offset, length, pos]: Parameters<Native['bufferedRead']>): void {
    this.#step(op, 'buffered read', () => {
      const count = Math.max(0, Math.min(length, this.file.size - pos));
      for (const index of range(0, count)) buffer[offset + index] = this.file.bufferedRead(pos + index);
      return count;
    });
  }

  /** At once where every page is there. */
  tryBufferedRead(...[, buffer, offset, length, pos]: Parameters<Native['tryBufferedRead']>): number {
    const count = Math.max(0, Math.min(length, this.file.size - pos));
    if (!blocksOf(pos, count).every((index) => this.file.pages.has(index))) return -EAGAIN;
    for (const index of range(0, count)) buffer[offset + index] = this.file.bufferedRead(pos + index);
    return count;
  }

  /** At once where that needs neither space nor the disk. */
  tryBufferedWrite(...[, buffer, offset, length, pos]: Parameters<Native['tryBufferedWrite']>): number {
    const ready = blocksOf(pos, length).every((index) => this.file.pages.has(index));
    if (!ready || !this.file.isAllocated(pos, length)) return -EAGAIN;
    this.file.bufferedWrite(pos, [...buffer.subarray(offset, offset + length)]);
    return length;
  }

  orphanAdd(op: Token): void {
    this.#step(op, 'orphan add', () => {
      this.file.orphan = true;
      return 0;
    });
  }
  orphanDelete(op: Token): void {
    this.#step(op, 'orphan delete', () => {
      this.file.orphan = false;
      return 0;
    });
  }
  writeAndWait(op: Token, _file: number, pos: number, len: number): void {
    this.#step(op, 'write back', () => {
      this.file.writeBack(pos, len);
      return 0;
    });
  }
  invalidate(op: Token, _file: number, pos: number, len: number): void {
    this.#step(op, 'invalidate', () => (this.file.invalidate(pos, len) ? 0 : -16));
  }
  truncate(op: Token, _file: number, size: number): void {
    this.#step(op, 'truncate', () => {
      this.file.truncate(size);
      return 0;
    });
  }
  truncateToSize(op: Token): void {
    this.#step(op, 'truncate to size', () => {
      this.file.truncateToSize();
      return 0;
    });
  }
  fallocate(op: Token, _file: number, mode: number, pos: number, len: number): void {
    this.#step(op, 'fallocate', () => {
      if (mode === 0) this.file.preallocate(pos, len);
      else this.file.punch(pos, len);
      return 0;
    });
  }
  sync(op: Token): void {
    this.#step(op, 'write back', () => {
      this.file.writeBack(0, this.file.size);
      return 0;
    });
  }

  #push(name: string, run: () => void): void {
    this.steps.push({ name, run });
  }
  #step(op: Token, name: string, work: () => number): void {
    this.#push(name, () => this.#deliver(op, work()));
  }
  #finish(op: Token, result: number): void {
    this.#step(op, 'report', () => result);
  }
  #deliver(op: Token, result: number): void {
    this.#slots[0] = op;
    this.#slots[1] = result;
    this.#onBatch(1);
  }
}
