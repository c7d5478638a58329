/**
 * One file as the engine below the policy sees it: blocks with and without data, a page cache, two sizes.
 *
 * A sector is one byte and a block two sectors, so that a whole history fits on a page. Whatever the policy must prevent
 * is possible here: zeros beside a sub-block write into a new block, writes to blocks that were freed meanwhile, pages
 * that are older than the device.
 */
export const BLOCK = 2;
/** What a block holds that nobody wrote yet: somebody else's old data. */
export const FOREIGN = 0xee;

interface Block {
  readonly physical: number;
  written: boolean;
}

interface Page {
  readonly data: [number, number];
  dirty: boolean;
}

/** A part of the device that a request covers, and where its bytes belong in the file. */
export interface Run {
  readonly pos: number;
  readonly len: number;
  readonly address: number;
}

export class ModelFile {
  size = 0;
  diskSize = 0;
  orphan = false;
  readonly blocks = new Map<number, Block>();
  readonly pages = new Map<number, Page>();
  readonly device: number[] = [];
  readonly #freed = new Set<number>();
  /** What must never happen, in words. */
  readonly violations: string[] = [];

  /** Gives a block to the file. Its old content is somebody else's. */
  allocate(index: number, written: boolean): Block {
    const physical = this.device.length / BLOCK;
    this.device.push(FOREIGN, FOREIGN);
    const block = { physical, written };
    this.blocks.set(index, block);
    return block;
  }

  free(from: number, to = Infinity): void {
    for (const [index, { physical }] of this.blocks) {
      if (index < from || index >= to) continue;
      this.blocks.delete(index);
      this.#freed.add(physical);
    }
  }

  /** On a block map a block is written once it is there. */
  markWritten(index: number): void {
    const block = this.blocks.get(index);
    if (block !== undefined) block.written = true;
  }

  /** One state for the whole range, or undefined: C25.3's single run. */
  runState(pos: number, len: number): 'written' | 'unwritten' | undefined {
    let state: 'written' | 'unwritten' | undefined;
    for (const index of blocksOf(pos, len)) {
      const block = this.blocks.get(index);
      if (block === undefined) return undefined;
      const own = block.written ? 'written' : 'unwritten';
      if (state !== undefined && state !== own) return undefined;
      state = own;
    }
    return state;
  }

  isAllocated(pos: number, len: number): boolean {
    return blocksOf(pos, len).every((index) => this.blocks.has(index));
  }

  hasPages(pos: number, len: number, dirtyOnly = false): boolean {
    return blocksOf(pos, len).some((index) => {
      const page = this.pages.get(index);
      return page !== undefined && (page.dirty || !dirtyOnly);
    });
  }

  deviceWrite(address: number, bytes: readonly number[]): void {
    for (const [index, byte] of bytes.entries()) {
      if (this.#freed.has(Math.floor((address + index) / BLOCK)))
        this.violations.push('write to a freed block');
      this.device[address + index] = byte;
    }
  }

  deviceRead(address: number): number {
    return this.#freed.has(Math.floor(address / BLOCK)) ? FOREIGN : (this.device[address] as number);
  }

  /** A byte as the device has it, zero where the map has no data. */
  byteBelowCache(pos: number): number {
    const block = this.blocks.get(Math.floor(pos / BLOCK));
    return block?.written === true ? this.deviceRead(block.physical * BLOCK + (pos % BLOCK)) : 0;
  }

  /** A12: holes become unwritten below i_size and written from there on. */
  mapForWrite(pos: number, len: number): void {
    const sizeBlocks = Math.ceil(this.size / BLOCK);
    for (const index of blocksOf(pos, len)) {
      if (this.blocks.has(index)) continue;
      const beyondSize = index >= sizeBlocks;
      if (beyondSize && !this.orphan)
        this.violations.push('A10: a block past i_size without an orphan entry');
      this.allocate(index, beyondSize);
    }
  }

  /** B5: the device writes of a request; `fresh` blocks are written whole, with zeros beside the data. */
  planWrite(
    pos: number,
    data: readonly number[],
    fresh: ReadonlySet<number>,
  ): { address: number; bytes: number[] }[] {
    const end = pos + data.length;
    return blocksOf(pos, data.length).map((index) => {
      const start = index * BLOCK;
      const { physical } = this.blocks.get(index) as Block;
      const isFresh = fresh.has(index);
      const from = isFresh ? start : Math.max(start, pos);
      const to = isFresh || end >= this.size ? start + BLOCK : Math.min(start + BLOCK, end);
      const bytes = range(from, to).map((at) => (at >= pos && at < end ? (data[at - pos] as number) : 0));
      return { address: physical * BLOCK + (from - start), bytes };
    });
  }

  /** C25.8. */
  endIo(pos: number, len: number): void {
    for (const index of blocksOf(pos, len)) {
      const block = this.blocks.get(index);
      if (block !== undefined) block.written = true;
    }
    const end = pos + len;
    if (end <= Math.min(this.size, this.diskSize)) return;
    this.#raise(end);
    this.diskSize = Math.max(this.diskSize, end);
    this.orphan = false;
  }

  bufferedWrite(pos: number, data: readonly number[]): void {
    for (const index of blocksOf(pos, data.length)) if (!this.blocks.has(index)) this.allocate(index, false);
    for (const [offset, byte] of data.entries()) {
      const page = this.#page(Math.floor((pos + offset) / BLOCK));
      page.data[(pos + offset) % BLOCK] = byte;
      page.dirty = true;
    }
    this.#raise(pos + data.length);
  }

  bufferedRead(pos: number): number {
    return this.#page(Math.floor(pos / BLOCK)).data[pos % BLOCK] as number;
  }

  writeBack(pos: number, len: number): void {
    for (const index of blocksOf(pos, len)) {
      const page = this.pages.get(index);
      const block = this.blocks.get(index);
      if (page?.dirty !== true || block === undefined) continue;
      this.deviceWrite(block.physical * BLOCK, page.data);
      block.written = true;
      page.dirty = false;
      this.diskSize = Math.max(this.diskSize, Math.min(this.size, (index + 1) * BLOCK));
    }
  }

  /** B4, B11: drops clean pages; false where a dirty one stays. */
  invalidate(pos: number, len: number): boolean {
    let all = true;
    for (const index of blocksOf(pos, len)) {
      const page = this.pages.get(index);
      if (page === undefined) continue;
      if (page.dirty) all = false;
      else this.pages.delete(index);
    }
    return all;
  }

  truncate(size: number): void {
    this.zero(size, Math.max(size, this.size));
    if (size < this.size) this.free(Math.ceil(size / BLOCK));
    for (const index of this.pages.keys()) if (index * BLOCK >= size) this.pages.delete(index);
    this.size = size;
    this.diskSize = size;
  }

  punch(pos: number, len: number): void {
    this.zero(pos, Math.min(pos + len, this.size));
    const [from, to] = [Math.ceil(pos / BLOCK), Math.floor((pos + len) / BLOCK)];
    for (let index = from; index < to; index += 1) this.pages.delete(index);
    this.free(from, to);
  }

  preallocate(pos: number, len: number): void {
    for (const index of blocksOf(pos, len)) if (!this.blocks.has(index)) this.allocate(index, false);
    this.size = Math.max(this.size, pos + len);
    this.diskSize = Math.max(this.diskSize, pos + len);
  }

  /** C25.9. */
  truncateToSize(): void {
    this.free(Math.ceil(this.size / BLOCK));
    this.orphan = false;
  }

  zero(from: number, to: number): void {
    for (const at of range(from, to)) {
      const index = Math.floor(at / BLOCK);
      const page = this.pages.get(index);
      if (page !== undefined) page.data[at % BLOCK] = 0;
      const block = this.blocks.get(index);
      if (block?.written === true) this.deviceWrite(block.physical * BLOCK + (at % BLOCK), [0]);
    }
  }

  /** What a reader of everything sees. */
  contents(): number[] {
    return range(0, this.size).map(
      (at) => this.pages.get(Math.floor(at / BLOCK))?.data[at % BLOCK] ?? this.byteBelowCache(at),
    );
  }

  /** The rules of the volume that must hold when nothing is in flight. */
  check(): void {
    if (this.orphan) this.violations.push('an orphan entry is left');
    for (const [index, { written }] of this.blocks)
      if (written && index * BLOCK >= this.size) this.violations.push('D9: a written block past i_size');
    for (const [index, page] of this.pages) {
      if (page.dirty) continue;
      for (const at of range(index * BLOCK, Math.min(this.size, (index + 1) * BLOCK)))
        if (page.data[at % BLOCK] !== this.byteBelowCache(at)) this.violations.push('B11: a stale page');
    }
  }

  #raise(end: number): void {
    // C22: what lay behind the end of the file becomes part of it, as zeros.
    if (end > this.size) this.size = end;
  }

  #page(index: number): Page {
    let page = this.pages.get(index);
    if (page === undefined) {
      const data: [number, number] = [
        this.byteBelowCache(index * BLOCK),
        this.byteBelowCache(index * BLOCK + 1),
      ];
      for (const offset of [0, 1]) if (index * BLOCK + offset >= this.size) data[offset as 0 | 1] = 0;
      page = { data, dirty: false };
      this.pages.set(index, page);
    }
    return page;
  }
}

export function range(from: number, to: number): number[] {
  const numbers: number[] = [];
  for (let number = from; number < to; number += 1) numbers.push(number);
  return numbers;
}

export function blocksOf(pos: number, len: number): number[] {
  return range(Math.floor(pos / BLOCK), Math.ceil((pos + len) / BLOCK));
}
