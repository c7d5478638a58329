/**
 * Memory that goes to the device without a copy.
 *
 * It lies in private WebAssembly memories: nobody can detach, transfer or shrink them while the kernel uses them.
 */
import { outOfRange } from './errors.js';
import { validateInteger } from './validate.js';

const WASM_PAGE_BYTES = 65536;
const SLAB_BYTES = 4 * 1024 * 1024;
const PAGE_BYTES = 4096;
/** WebAssembly's own limit is 4 GiB. */
const MAX_BYTES = 2 ** 31;

const slabs = new Set<ArrayBufferLike>();
const listeners: ((memory: Uint8Array) => void)[] = [];
let current: { buffer: ArrayBuffer; used: number } | undefined;

/** The part of WebAssembly that is used here; Node's types leave it to the DOM's. */
interface WasmRuntime {
  readonly Memory: new (limits: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
}

function newMemory(bytes: number): ArrayBuffer | undefined {
  const wasm = (globalThis as { WebAssembly?: WasmRuntime }).WebAssembly;
  if (wasm === undefined) return undefined;
  const pages = Math.ceil(bytes / WASM_PAGE_BYTES);
  const { buffer } = new wasm.Memory({ initial: pages, maximum: pages });
  slabs.add(buffer);
  for (const listener of listeners) listener(new Uint8Array(buffer));
  return buffer;
}

/**
 * A page-aligned, zeroed Buffer of `size` bytes (0 to 2 GiB) for direct I/O without a copy.
 *
 * Allocate once and reuse: the memory is given back when the JavaScript environment ends. It is a slice of a
 * larger memory: `structuredClone` or `postMessage` of it copies, or refuses, the whole memory. Where
 * WebAssembly is missing (`--jitless`) this is an ordinary Buffer, and the engine copies.
 *
 * @throws ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE
 */
export function allocAligned(size: number): Buffer {
  validateInteger(size, 'size');
  if (size < 0 || size > MAX_BYTES) throw outOfRange('size', `>= 0 && <= ${MAX_BYTES}`, size);
  const bytes = Math.ceil(size / PAGE_BYTES) * PAGE_BYTES;
  if (bytes > SLAB_BYTES / 2) {
    const own = newMemory(bytes);
    return own === undefined ? Buffer.alloc(size) : Buffer.from(own, 0, size);
  }
  if (current === undefined || current.used + bytes > SLAB_BYTES) {
    const buffer = newMemory(SLAB_BYTES);
    if (buffer === undefined) return Buffer.alloc(size);
    current = { buffer, used: 0 };
  }
  const offset = current.used;
  current.used += bytes;
  return Buffer.from(current.buffer, offset, size);
}

/**
 * The address of `view[offset]` as far as alignment goes: 0 for memory that the engine copies, the real one
 * modulo the page size for memory of {@link allocAligned}.
 */
export function memoryAddress(view: Uint8Array, offset: number): number {
  return slabs.has(view.buffer) ? view.byteOffset + offset : 0;
}

/** Tells `listener` about every memory, those of the past too. */
export function onMemory(listener: (memory: Uint8Array) => void): void {
  for (const slab of slabs) listener(new Uint8Array(slab));
  listeners.push(listener);
}
