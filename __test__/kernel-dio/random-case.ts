/** Short random sequences on a fresh file: direct and buffered, aligned and not, truncation and ranges. */
import type { Random } from '../../exercise/random.js';
import { FALLOCATE_MODES, type FallocateMode, type Segment, type Step } from './case.js';

/** Seeds of the bytes that are written: 0 to this. */
export const SEEDS = 16;
/** What one seed is good for. */
export const SEED_BYTES = 65536;

const REACH = 48 * 1024;
/** All but the newest, which not every kernel has. */
const MODES = (Object.keys(FALLOCATE_MODES) as FallocateMode[]).filter((mode) => mode !== 'write_zeroes');

export function randomSteps(random: Random, blockBytes: number, seeks: boolean): Step[] {
  const draw = new Draw(random, blockBytes, seeks);
  return Array.from({ length: 3 + random.below(6) }, () => draw.step());
}

class Draw {
  readonly #random: Random;
  readonly #blockBytes: number;
  /** Seeks still find the same on Linux: what is unwritten it takes for data wherever a page is cached. */
  #seeks: boolean;

  constructor(random: Random, blockBytes: number, seeks: boolean) {
    this.#seeks = seeks;
    this.#random = random;
    this.#blockBytes = blockBytes;
  }

  step(): Step {
    const kind = this.#random.below(20);
    if (kind < 9) return this.#write();
    if (kind < 13) return this.#read();
    if (kind < 15) return { k: 'truncate', size: this.#bytes(this.#unit(false), REACH) };
    if (kind < 19 || !this.#seeks) return this.#fallocate();
    return { k: 'seek', whence: this.#random.once(2) ? 'DATA' : 'HOLE', pos: this.#bytes(1, REACH) };
  }

  #write(): Step {
    const random = this.#random;
    const seed = random.below(SEEDS);
    const transfer = this.#transfer();
    if (transfer.direct) this.#seeks = false;
    return {
      k: 'pwrite',
      ...transfer,
      seed,
      ...(random.once(8) ? { oappend: true } : {}),
      ...(random.once(30) ? { odsync: true } : {}),
    };
  }

  #read(): Step {
    return { k: 'pread', ...this.#transfer() };
  }

  #transfer():
    | { pos: number; direct: boolean; len: number; mem: number }
    | { pos: number; direct: boolean; iov: Segment[] } {
    const random = this.#random;
    const direct = random.once(2);
    const unit = this.#unit(direct);
    const pos = this.#bytes(unit, REACH);
    if (random.once(8)) {
      const segmentUnit = direct ? Math.max(512, unit) : unit;
      const iov = Array.from({ length: 1 + random.below(3) }, (): Segment => [
        0,
        this.#length(segmentUnit, 8192),
      ]);
      return { pos, direct, iov };
    }
    return { pos, direct, len: this.#length(unit, 16384), mem: 512 * random.below(2) };
  }

  #fallocate(): Step {
    this.#seeks = false;
    const random = this.#random;
    const mode = random.pick(MODES);
    const isShift = /^(collapse|insert)/.test(mode);
    const unit = isShift && !random.once(6) ? this.#blockBytes : this.#unit(false);
    return { k: 'fallocate', mode, pos: this.#bytes(unit, REACH / 2), len: this.#length(unit, 24576) };
  }

  /** Direct requests are mostly such that the device can do them. */
  #unit(direct: boolean): number {
    const random = this.#random;
    if (direct && !random.once(8)) return random.pick([512, this.#blockBytes]);
    return random.pick([1, 512, this.#blockBytes]);
  }

  #bytes(unit: number, below: number): number {
    return unit * this.#random.below(Math.ceil(below / unit));
  }

  #length(unit: number, max: number): number {
    if (this.#random.once(40)) return 0;
    return unit * (1 + this.#random.below(Math.floor(max / unit)));
  }
}
