/** Content that can be told from its place: what a block holds follows from its number and its generation. */
import { createHash } from 'node:crypto';

export const PATTERN_BYTES = 4096;

/** Fills one block; `block` and `generation` below 2^32. */
export function fillPattern(block: Uint8Array, number: number, generation: number): void {
  const words = new Uint32Array(block.buffer, block.byteOffset, PATTERN_BYTES / 4);
  let state = (Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(generation + 1, 0x85ebca6b)) >>> 0 || 1;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
}

/** The SHA-256 of a file of whole blocks, block by block of the generation given. */
export function patternSha256(generations: Uint32Array): string {
  const hash = createHash('sha256');
  const block = Buffer.alloc(PATTERN_BYTES);
  for (const [number, generation] of generations.entries()) {
    fillPattern(block, number, generation);
    hash.update(block);
  }
  return hash.digest('hex');
}
