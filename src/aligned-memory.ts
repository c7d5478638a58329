/**
 * Memory that goes to the device without a copy.
 *
 * It lies in private WebAssembly memories: nobody can detach, transfer or shrink them while the kernel uses them. One goes
 * when the collector finds that nobody has a view of it; a slice of one is used again when its owner releases it.
 */
import { outOfRange } from './errors.js';
import { validateInteger } from './validate.js';

const WASM_PAGE_BYTES = 65536;
const SLAB_BYTES = 4 * 1024 * 1024;
const PAGE_BYTES = 4096;
/** WebAssembly's own limit is 4 GiB. */
const MAX_BYTES = 2 ** 31;
/** Memories with released slices that are kept for those who come next. */
const MAX_KEPT = 4;

/** A Buffer from {@link allocAligned}. */
export interface AlignedBuffer extends Buffer<ArrayBuffer> {
  toString(encoding?: BufferEncoding, start?: number, end?: number): string;
  /**
   * Gives the memory back, to be used by the next {@link allocAligned}: neither this buffer nor a view of it may be used any
   * more. Twice is once. What is never released is collected, with all that shares its memory.
   */
  release(): void;
  [Symbol.dispose](): void;
}

/** Who must know of memories: it keeps them in place while the device uses them. */
export interface MemoryUser {
  registerMemory(memory: Uint8Array): void;
  /** Whether somebody uses the memory around these bytes. */
  memoryInUse(memory: Uint8Array): boolean;
}

/** A memory that slices share. */
interface Slab {
  readonly buffer: ArrayBuffer;
  used: number;
  /** Where released slices of a size begin. */
  readonly free: Map<number, number[]>;
}

interface Slice {
  readonly slab: Slab;
  readonly offset: number;
  readonly bytes: number;
}

/** By ArrayBuffer; what of them is alive can be told to those who come later. */
const known = new WeakSet<ArrayBufferLike>();
const alive = new Set<WeakRef<ArrayBuffer>>();
const collected = new FinalizationRegistry<WeakRef<ArrayBuffer>>((ref) => void alive.delete(ref));
const users: MemoryUser[] = [];
/** Of buffers that were not released. */
const slices = new WeakMap<Uint8Array, Slice>();
let current: Slab | undefined;
/** Those with released slices, the last one first. */
let kept: Slab[] = [];
/** Released while somebody still used them. */
let busy: Slice[] = [];

/** The part of WebAssembly that is used here; Node's types leave it to the DOM's. */
interface WasmRuntime {
  readonly Memory: new (limits: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
}

/** `undefined`: there is no WebAssembly, or no address space for a memory, which takes GiBs of it. */
function newMemory(bytes: number): ArrayBuffer | undefined {
  const wasm = (globalThis as { WebAssembly?: WasmRuntime }).WebAssembly;
  if (wasm === undefined) return undefined;
  const pages = Math.ceil(bytes / WASM_PAGE_BYTES);
  let buffer: ArrayBuffer;
  try {
    ({ buffer } = new wasm.Memory({ initial: pages, maximum: pages }));
  } catch {
    return undefined;
  }
  known.add(buffer);
  const ref = new WeakRef(buffer);
  alive.add(ref);
  collected.register(buffer, ref);
  for (const user of users) user.registerMemory(new Uint8Array(buffer));
  return buffer;
}

function newSlab(bytes: number): Slab | undefined {
  const buffer = newMemory(bytes);
  return buffer === undefined ? undefined : { buffer, used: 0, free: new Map() };
}

/** Zeroed bytes: released ones, or the next of a memory. */
function takeSlice(bytes: number): Slice | undefined {
  for (const slab of kept) {
    const offset = slab.free.get(bytes)?.pop();
    if (offset === undefined) continue;
    new Uint8Array(slab.buffer, offset, bytes).fill(0);
    return { slab, offset, bytes };
  }
  if (bytes > SLAB_BYTES / 2) {
    const own = newSlab(bytes);
    return own === undefined ? undefined : { slab: own, offset: 0, bytes };
  }
  if (current === undefined || current.used + bytes > SLAB_BYTES) {
    const slab = newSlab(SLAB_BYTES);
    if (slab === undefined) return undefined;
    current = slab;
  }
  const offset = current.used;
  current.used += bytes;
  return { slab: current, offset, bytes };
}

function giveBack(slice: Slice): void {
  const { slab, offset, bytes } = slice;
  const memory = new Uint8Array(slab.buffer, offset, bytes);
  if (users.some((user) => user.memoryInUse(memory))) {
    busy.push(slice);
    return;
  }
  const free = slab.free.get(bytes);
  if (free === undefined) slab.free.set(bytes, [offset]);
  else free.push(offset);
  if (!kept.includes(slab)) kept = [slab, ...kept].slice(0, MAX_KEPT);
}

function release(this: Uint8Array): void {
  const slice = slices.get(this);
  if (slice === undefined || !slices.delete(this)) return;
  giveBack(slice);
}

const PROTOTYPE = Object.create(Buffer.prototype, {
  release: { value: release, writable: true, configurable: true },
  [Symbol.dispose]: { value: release, writable: true, configurable: true },
}) as object;

/**
 * A page-aligned, zeroed Buffer of `size` bytes (0 to 2 GiB) for direct I/O without a copy.
 *
 * Allocate once and reuse, or give it back with `release()` or `using`. It is a slice of a larger memory, which the collector
 * takes when nobody has a view of any of it: `structuredClone` or `postMessage` of it copies, or refuses, the whole memory.
 * Where there is no WebAssembly (`--jitless`), or no room for a memory, this is an ordinary Buffer, and the engine copies.
 *
 * @throws ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE
 */
export function allocAligned(size: number): AlignedBuffer {
  validateInteger(size, 'size');
  if (size < 0 || size > MAX_BYTES) throw outOfRange('size', `>= 0 && <= ${MAX_BYTES}`, size);
  if (busy.length > 0) {
    const again = busy;
    busy = [];
    again.forEach(giveBack);
  }
  const bytes = Math.max(Math.ceil(size / PAGE_BYTES), 1) * PAGE_BYTES;
  const slice = takeSlice(bytes);
  const buffer =
    slice === undefined ? Buffer.alloc(size) : Buffer.from(slice.slab.buffer, slice.offset, size);
  Object.setPrototypeOf(buffer, PROTOTYPE);
  if (slice !== undefined) slices.set(buffer, slice);
  return buffer as AlignedBuffer;
}

/**
 * The address of `view[offset]` as far as alignment goes: 0 for memory that the engine copies, the real one
 * modulo the page size for memory of {@link allocAligned}.
 */
export function memoryAddress(view: Uint8Array, offset: number): number {
  return known.has(view.buffer) ? view.byteOffset + offset : 0;
}

/** Tells `user` about every memory, those of the past too. */
export function onMemory(user: MemoryUser): void {
  for (const ref of alive) {
    const buffer = ref.deref();
    if (buffer !== undefined) user.registerMemory(new Uint8Array(buffer));
  }
  users.push(user);
}
