/** Draws rounds of operations that suit what the files hold. */
import { CLASSES, type FileModel, type Units } from './model.js';
import type { FallocateMode, FileOperation, Round, Way } from './operation.js';
import type { Features } from './features.js';
import { MAX_IN_FLIGHT, MAX_TRANSFER } from './perform.js';
import type { Random } from './random.js';

/** What operations have to respect. In bytes. */
export interface Geometry extends Units {
  readonly maxFileBytes: number;
  /** The volume is all but full. */
  readonly isTight: boolean;
}

/** Operations at once on one file where their order does not matter, and where it does. */
const MAX_APART = 6;
const MAX_TANGLED = 3;

export class Generator {
  readonly #random: Random;
  readonly #features: Features;
  readonly #geometry: Geometry;

  constructor(random: Random, features: Features, geometry: Geometry) {
    this.#random = random;
    this.#features = features;
    this.#geometry = geometry;
  }

  round(files: readonly FileModel[]): Round {
    const random = this.#random;
    if (this.#features.has('reopen') && random.once(120)) return { k: 'remount', check: random.once(4) };
    if (this.#features.has('fsync') && random.once(150)) return { k: 'sync' };
    const operations: FileOperation[] = [];
    const first = random.below(files.length);
    const count = this.#features.has('concurrent') ? 1 + random.below(Math.min(files.length, 8)) : 1;
    for (let index = 0; index < count && operations.length + MAX_APART <= MAX_IN_FLIGHT; index += 1) {
      const file = (first + index) % files.length;
      operations.push(...this.#onOneFile(file, files[file] as FileModel));
    }
    return operations;
  }

  #onOneFile(file: number, model: FileModel): FileOperation[] {
    const random = this.#random;
    const kind = this.#features.has('concurrent') ? random.below(12) : 11;
    if (kind < 3) return this.#apart(file, model);
    if (kind < 4 && this.#features.has('overlap'))
      return Array.from({ length: 2 + random.below(MAX_TANGLED - 1) }, () => this.#tangled(file, model));
    return [this.#any(file, model)];
  }

  /** Reads and writes of ranges that do not meet, though their blocks may. */
  #apart(file: number, model: FileModel): FileOperation[] {
    const operations: FileOperation[] = [];
    const random = this.#random;
    let pos = this.#position(model, true);
    for (let left = 2 + random.below(MAX_APART - 1); left > 0; left -= 1) {
      const way = this.#way();
      const unit = this.#unit(way);
      const from = Math.ceil(pos / unit) * unit;
      const len = this.#length(unit, MAX_TRANSFER / 4);
      if (from + len > this.#geometry.maxFileBytes) break;
      const isRead = from + len <= model.size && random.once(3);
      operations.push(
        isRead
          ? { k: 'read', file, ...way, pos: from, lens: [len] }
          : { k: 'write', file, ...way, pos: from, lens: [len], from: this.#from() },
      );
      pos = from + len + (random.once(2) ? 0 : random.below(8192));
    }
    return operations.length > 0 ? operations : [this.#any(file, model)];
  }

  /** One of several whose order matters. */
  #tangled(file: number, model: FileModel): FileOperation {
    for (;;) {
      const operation = this.#any(file, model);
      // Making a file anew closes its handles under the others; seeks are judged by one state.
      if (operation.k === 'remake' || operation.k === 'seek') continue;
      // What it could not allocate all of leaves one of many sizes.
      if (operation.k === 'fallocate' && this.#geometry.isTight) continue;
      // A16: what a hole leaves of a direct write comes later, when others may have had their turn.
      if (operation.k === 'write' && operation.direct && this.#geometry.bitmapFormat) continue;
      return operation;
    }
  }

  #any(file: number, model: FileModel): FileOperation {
    const features = this.#features;
    for (;;) {
      const draw = this.#random.below(100);
      if (draw < 42) return this.#write(file, model);
      if (draw < 74) return this.#read(file, model);
      if (draw < 80 && features.has('truncate')) return { k: 'truncate', file, size: this.#newSize(model) };
      if (draw < 94) {
        const mode = this.#random.pick(FALLOCATE);
        if (features.has(mode.feature)) return this.#fallocate(file, model, mode.mode);
      } else if (draw < 96 && features.has('seek')) {
        const whence = this.#random.once(2) ? 'data' : 'hole';
        return { k: 'seek', file, whence, pos: this.#position(model, true) };
      } else if (draw < 99 && features.has('fsync')) {
        if (this.#random.once(3)) return { k: 'fsync', file, data: this.#random.once(2) };
      } else if (features.has('remake') && this.#random.once(3)) return { k: 'remake', file };
    }
  }

  #write(file: number, model: FileModel): FileOperation {
    const random = this.#random;
    const way = this.#way();
    if (way.direct && way.blocking !== true && this.#features.has('atomic') && random.once(12))
      return this.#atomicWrite(file, model, way);
    const unit = this.#unit(way);
    const from = this.#from();
    // With a block map it depends on where the holes are whether one that others have misaligned is refused.
    const mayAppend = way.blocking !== true && !(way.direct && this.#geometry.bitmapFormat);
    const append = mayAppend && model.size % unit === 0 && random.once(12);
    const pos = append ? model.size : this.#aligned(this.#position(model, false), unit);
    const room = this.#geometry.maxFileBytes - pos;
    if (room < unit) return { k: 'truncate', file, size: 0 };
    const lens = this.#lengths(way, unit, Math.min(room, MAX_TRANSFER));
    const options = lens.length > 1 || way.blocking === true ? {} : this.#writeOptions(way);
    return { k: 'write', file, ...way, pos, lens, from, ...(append ? { append } : {}), ...options };
  }

  #atomicWrite(file: number, model: FileModel, way: Way): FileOperation {
    const random = this.#random;
    const { blockBytes, maxFileBytes } = this.#geometry;
    const unit = blockBytes * 2 ** random.below(Math.log2(MAX_TRANSFER / blockBytes) + 1);
    const last = this.#aligned(maxFileBytes - unit, unit);
    const pos = Math.min(this.#aligned(this.#position(model, false), unit), last);
    // Now and then what must be refused: a length or a position that is no power of two's multiple.
    const [len, shift] = random.pick([
      [unit, 0],
      [unit, 0],
      [unit, 0],
      [unit, 0],
      [3 * blockBytes, 0],
      [unit, 512],
    ] as const);
    const isOutside = pos + shift + len > maxFileBytes;
    const range = isOutside ? { pos, lens: [unit] } : { pos: pos + shift, lens: [len] };
    return { k: 'write', file, ...way, ...range, from: this.#from(), atomic: true };
  }

  #writeOptions(way: Way): { nowait?: boolean } {
    if (way.direct && this.#features.has('nowait') && this.#random.once(10)) return { nowait: true };
    return {};
  }

  #read(file: number, model: FileModel): FileOperation {
    const way = this.#way();
    const unit = this.#unit(way);
    const pos = this.#aligned(this.#position(model, true), unit);
    const lens = this.#lengths(way, unit, MAX_TRANSFER);
    const nowait = this.#features.has('nowait') && lens.length === 1 && way.blocking !== true;
    return { k: 'read', file, ...way, pos, lens, ...(nowait && this.#random.once(10) ? { nowait } : {}) };
  }

  #fallocate(file: number, model: FileModel, mode: FallocateMode): FileOperation {
    const { blockBytes, maxFileBytes } = this.#geometry;
    const random = this.#random;
    const shifts = mode === 'collapse-range' || mode === 'insert-range';
    // Now and then what must be refused.
    const unit = shifts && !random.once(20) ? blockBytes : random.pick([1, 512, blockBytes]);
    const pos = this.#aligned(this.#position(model, true), unit);
    let len = unit * (1 + random.below(Math.max(1, Math.floor(MAX_TRANSFER / unit))));
    if (mode === 'insert-range') len = Math.min(len, this.#aligned(maxFileBytes - model.size, unit));
    else len = Math.min(len, this.#aligned(maxFileBytes - pos, unit));
    if (len <= 0) return { k: 'truncate', file, size: random.below(blockBytes) };
    const keepSize = mode === 'punch-hole' || (!shifts && random.once(2));
    return { k: 'fallocate', file, mode, keepSize, pos, len };
  }

  #way(): Way {
    const random = this.#random;
    const features = this.#features;
    const direct = features.has('direct') && (!features.has('buffered') || random.once(2));
    return {
      direct,
      ...(features.has('fsync') && random.once(60) ? { dsync: true } : {}),
      ...(features.has('blocking') && random.once(8) ? { blocking: true } : {}),
      ...(random.once(4) ? { copied: true } : {}),
    };
  }

  /** What positions and lengths are multiples of. */
  #unit(way: Way): number {
    const { blockBytes, directAlignBytes } = this.#geometry;
    if (way.direct) return this.#random.once(2) ? blockBytes : directAlignBytes;
    return this.#random.pick([1, 1, 512, blockBytes]);
  }

  /** Mostly within the file or at its end. */
  #position(model: FileModel, isLook: boolean): number {
    const random = this.#random;
    const { maxFileBytes, blockBytes } = this.#geometry;
    if (random.once(4)) return Math.max(0, model.size - random.below(2 * blockBytes));
    if (model.size > 0 && !random.once(5)) return random.below(model.size);
    return random.below(isLook ? maxFileBytes : Math.min(maxFileBytes, model.size + MAX_TRANSFER));
  }

  #newSize(model: FileModel): number {
    const { maxFileBytes, blockBytes } = this.#geometry;
    const size = this.#random.once(2) ? this.#position(model, true) : this.#random.below(maxFileBytes);
    return this.#random.once(3) ? this.#aligned(size, blockBytes) : size;
  }

  /** Short ones more often. */
  #length(unit: number, max: number): number {
    const limit = this.#random.once(3) ? max : Math.min(max, 12 * 1024);
    return unit * (1 + this.#random.below(Math.max(1, Math.floor(limit / unit))));
  }

  #lengths(way: Way, unit: number, max: number): number[] {
    if (!this.#features.has('vectors') || way.blocking === true || !this.#random.once(8))
      return [this.#length(unit, max)];
    const count = 2 + this.#random.below(3);
    const share = Math.floor(max / count);
    if (share < unit) return [this.#length(unit, max)];
    return Array.from({ length: count }, () => this.#length(unit, share));
  }

  #aligned(bytes: number, unit: number): number {
    return Math.floor(bytes / unit) * unit;
  }

  #from(): number {
    return this.#random.below(2 ** 30);
  }
}

const FALLOCATE = [
  { feature: 'preallocate', mode: 'allocate' },
  { feature: 'punch', mode: 'punch-hole' },
  { feature: 'zero', mode: 'zero-range' },
  { feature: 'collapse', mode: 'collapse-range' },
  { feature: 'insert', mode: 'insert-range' },
] as const;

/** The most files whose bytes can be told apart. */
export const MAX_FILES = CLASSES;
