/** What ext4 of Linux 6.18 did: the cases of data/kernel-dio.jsonl, and the bytes that they write. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One segment's place in its page, or an address that is not mapped, and its length. */
export type Segment = readonly [memory: number | 'bad', bytes: number];

/** fallocate's modes by the names of the cases, as FALLOC_FL_ bits. */
export const FALLOCATE_MODES = {
  alloc: 0,
  alloc_keep: 1,
  punch: 3,
  punch_nokeep: 2,
  punch_zero: 0x13,
  zero: 0x10,
  zero_keep: 0x11,
  collapse: 8,
  collapse_keep: 9,
  insert: 0x20,
  insert_keep: 0x21,
  unshare: 0x40,
  write_zeroes: 0x80,
} as const;
export type FallocateMode = keyof typeof FALLOCATE_MODES;

/** How a step opens its descriptor, and under what it runs. */
interface Circumstances {
  readonly direct?: boolean;
  readonly oappend?: boolean;
  readonly osync?: boolean;
  readonly odsync?: boolean;
  /** Inode flags that are set after the open and before the call. */
  readonly chattr?: string;
  /** RLIMIT_FSIZE in bytes. */
  readonly limit?: number;
  readonly as?: 'root' | 'nobody';
}

export type RwFlag = 'NOWAIT' | 'DSYNC' | 'APPEND' | 'NOAPPEND' | 'ATOMIC';

/** A pread or pwrite: a buffer at `mem` in its page, or segments. Sizes and positions in bytes. */
export interface TransferStep extends Circumstances {
  readonly k: 'pread' | 'pwrite';
  readonly pos: number;
  readonly len?: number;
  readonly mem?: number;
  readonly iov?: readonly Segment[];
  readonly seed?: number;
  readonly rwf?: readonly RwFlag[];
}

export type Step =
  | TransferStep
  | (Circumstances & {
      readonly k: 'write';
      readonly start: number;
      readonly lens: readonly number[];
      readonly seed: number;
    })
  | (Circumstances & { readonly k: 'truncate'; readonly size: number })
  | (Circumstances & {
      readonly k: 'fallocate';
      readonly mode: FallocateMode;
      readonly pos: number;
      readonly len: number;
    })
  | (Circumstances & { readonly k: 'seek'; readonly whence: 'DATA' | 'HOLE'; readonly pos: number })
  | (Circumstances & { readonly k: 'statx' })
  | (Circumstances & { readonly k: 'chmod'; readonly mode: string })
  | (Circumstances & { readonly k: 'setcap' })
  | (Circumstances & { readonly k: 'chattr'; readonly set: string })
  | (Circumstances & { readonly k: 'fill'; readonly leave: number });

/** [start, length, seed, index]: the bytes from `start` are those of that seed's buffer from `index`. */
export type Run = readonly [start: number, length: number, seed: number, index: number];

/** [start, length, kind]: 0 written, 1 unwritten, 2 inline. */
export type Extent = readonly [start: number, length: number, kind: number];

/** What the kernel answered to one step. */
export interface Answer {
  readonly ret?: number;
  readonly err?: string;
  readonly at?: 'open';
  readonly data?: readonly Run[];
  readonly rets?: readonly (number | string)[];
  readonly offset?: number;
  readonly [statxField: string]: unknown;
}

/** What was left of the file. */
export interface Result {
  readonly ops: readonly Answer[];
  readonly size: number;
  readonly times: readonly ('a' | 'm')[];
  readonly fsync?: string;
  readonly extents: readonly Extent[];
  readonly blocks?: number;
  readonly content?: readonly Run[];
  readonly sha256?: string;
  readonly contentOmitted?: boolean;
  readonly mode?: string;
  readonly cap?: unknown;
}

export interface Case {
  readonly id: string;
  readonly group: string;
  readonly fsBlock: number;
  readonly sector: number;
  readonly map: 'extent' | 'indirect' | 'inline';
  readonly mount: 'ordered' | 'journal';
  readonly init: readonly Step[];
  readonly op: readonly Step[];
  readonly result: Result;
}

/** All cases of the file. */
export function loadCases(): Case[] {
  const text = readFileSync(join(process.cwd(), '__test__', 'data', 'kernel-dio.jsonl'), 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Case);
}

const patterns = new Map<number, Buffer>();

/** Bytes `index` to `index + length` of the buffer with this seed; none is zero. */
export function patternBytes(seed: number, index: number, length: number): Buffer {
  const end = index + length;
  let known = patterns.get(seed);
  if (known === undefined || known.length < end) {
    known = Buffer.alloc(Math.max(65536, 2 * end));
    for (let at = 0; at < known.length; at += 1) {
      let hash = (Math.imul(at + 1, 0x9e3779b1) + Math.imul(seed, 0x85ebca6b)) >>> 0;
      hash ^= hash >>> 15;
      known[at] = 1 + ((hash >>> 0) % 255);
    }
    patterns.set(seed, known);
  }
  return known.subarray(index, end);
}

/** The bytes of a range of a file, of which the runs tell what is not zero. */
export function expand(runs: readonly Run[], start: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (const [from, count, seed, index] of runs) {
    const first = Math.max(from, start);
    const last = Math.min(from + count, start + length);
    if (first < last) patternBytes(seed, index + first - from, last - first).copy(bytes, first - start);
  }
  return bytes;
}
