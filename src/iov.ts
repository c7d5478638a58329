/** Several buffers as one request: gathered before a write, scattered after a read. */
import { memoryAddress } from './aligned-memory.js';

/** Alignment is asked of no more than the largest block. */
const LARGEST_BLOCK_BYTES = 65536;

/** A part of one buffer. */
export interface Segment {
  readonly buffer: Uint8Array;
  readonly offset: number;
  readonly length: number;
}

/** The memory of a direct request as far as alignment goes (A6, B1): its address, which counts as 0 where the engine copies. */
export function memoryBitsOf(buffer: Uint8Array, offset: number): number {
  return memoryAddress(buffer, offset) % LARGEST_BLOCK_BYTES;
}

/** {@link memoryBitsOf} of several segments: all addresses, and their lengths too. */
export function memoryBits(segments: readonly Segment[]): number {
  let bits = 0;
  for (const { buffer, offset, length } of segments) {
    if (length === 0) continue;
    bits |= memoryBitsOf(buffer, offset);
    if (segments.length > 1) bits |= length % LARGEST_BLOCK_BYTES;
  }
  return bits;
}

/** The segments as the one piece of memory that they are, if each begins where the one before it ends. */
function adjacent(segments: readonly Segment[]): Segment | undefined {
  const [first] = segments;
  if (first === undefined || segments.length === 1) return first;
  const start = first.buffer.byteOffset + first.offset;
  let length = 0;
  for (const segment of segments) {
    const isNext = segment.buffer.byteOffset + segment.offset === start + length;
    if (segment.buffer.buffer !== first.buffer.buffer || !isNext) return undefined;
    length += segment.length;
  }
  return { buffer: new Uint8Array(first.buffer.buffer, start, length), offset: 0, length };
}

/** All of the segments' bytes in one piece; those that are one already without a copy. */
export function gather(segments: readonly Segment[]): Segment {
  const whole = adjacent(segments);
  if (whole !== undefined) return whole;
  const parts = segments.map(({ buffer, offset, length }) => buffer.subarray(offset, offset + length));
  const buffer = Buffer.concat(parts);
  return { buffer, offset: 0, length: buffer.length };
}

/** One piece to read into; the segments themselves where they are one. */
export function readTarget(segments: readonly Segment[]): Segment {
  const whole = adjacent(segments);
  if (whole !== undefined) return whole;
  const length = segments.reduce((sum, segment) => sum + segment.length, 0);
  return { buffer: Buffer.allocUnsafeSlow(length), offset: 0, length };
}

/** What was read into {@link readTarget}, back to the segments. False: one of them was detached meanwhile. */
export function scatter(from: Uint8Array, segments: readonly Segment[], readBytes: number): boolean {
  let done = 0;
  for (const { buffer, offset, length } of segments) {
    if (buffer.buffer === from.buffer) return true;
    const count = Math.min(length, readBytes - done);
    if (count === 0) continue;
    if (buffer.length < offset + count) return false;
    buffer.set(from.subarray(done, done + count), offset);
    done += count;
  }
  return true;
}
