/** What a file's callers may see: some sequential order of their calls, consistent with real time, for every sector. */

import { EAGAIN } from '../../src/native/errno.js';

/** What one call did and heard. */
export interface Call {
  readonly name: string;
  /** Its effect on a file; returns what the caller hears: a number, for reads also the bytes. */
  readonly apply: (file: SequentialFile) => Heard;
  /** When it began and ended, in steps. */
  begun: number;
  ended: number;
  heard: Heard | undefined;
  /** NOWAIT: may also hear EAGAIN, and have done nothing. */
  readonly nowait: boolean;
}

export interface Heard {
  readonly result: number;
  /** Sector → byte, of a read. */
  readonly bytes?: readonly number[];
  readonly pos?: number;
}

/** The file that everybody has in mind. */
export class SequentialFile {
  bytes: number[];

  constructor(bytes: readonly number[]) {
    this.bytes = [...bytes];
  }

  write(pos: number, data: readonly number[]): void {
    while (this.bytes.length < pos) this.bytes.push(0);
    for (const [index, byte] of data.entries()) this.bytes[pos + index] = byte;
  }

  truncate(size: number): void {
    this.bytes.length = Math.min(this.bytes.length, size);
    while (this.bytes.length < size) this.bytes.push(0);
  }

  zero(pos: number, len: number): void {
    for (let at = pos; at < Math.min(pos + len, this.bytes.length); at += 1) this.bytes[at] = 0;
  }
}

/** Every order of the calls in which none stands before one that had ended when it began. */
function* orders(calls: readonly Call[], before: readonly Call[] = []): Generator<readonly Call[]> {
  if (calls.length === 0) {
    yield before;
    return;
  }
  for (const call of calls) {
    if (calls.some((other) => other !== call && other.ended < call.begun)) continue;
    yield* orders(
      calls.filter((other) => other !== call),
      [...before, call],
    );
  }
}

/** Stands for what callers were told and how long the file is, beside the sectors. */
const RESULTS = -1;

/**
 * What no order explains: sectors, or -1 for results. Each may have an order of its own: a device keeps the order of a
 * sector's requests, not that of whole calls, and a direct read looks at i_size when it is submitted. With `inParts` a
 * write may be two, each at its time (A16): then a sector's order need not be one of the size too.
 */
export function unexplained(
  initial: readonly number[],
  calls: readonly Call[],
  final: readonly number[],
  inParts: boolean,
): number[] {
  const sectors = Math.max(initial.length, final.length, ...calls.map((call) => spanOf(call)));
  const open = new Set([RESULTS]);
  for (let sector = 0; sector < sectors; sector += 1) open.add(sector);
  for (const order of orders(calls)) {
    explain(initial, order, final, open, inParts);
    if (open.size === 0) break;
  }
  return [...open];
}

function spanOf({ heard }: Call): number {
  return (heard?.pos ?? 0) + (heard?.bytes?.length ?? 0);
}

/** Takes out of `open` what this order explains. */
function explain(
  initial: readonly number[],
  order: readonly Call[],
  final: readonly number[],
  open: Set<number>,
  inParts: boolean,
): void {
  const file = new SequentialFile(initial);
  const wrong = new Set<number>();
  for (const call of order) {
    const heard = call.heard as Heard;
    if (call.nowait && heard.result === -EAGAIN) continue;
    const expected = call.apply(file);
    if (expected.result !== heard.result) {
      if (heard.bytes === undefined) return;
      wrong.add(RESULTS);
    }
    const pos = heard.pos ?? 0;
    for (const [index, byte] of (heard.bytes ?? []).entries())
      if (expected.bytes?.[index] !== byte) wrong.add(pos + index);
  }
  const sameSize = file.bytes.length === final.length;
  if (!sameSize && !inParts) return;
  for (const sector of open) {
    if (wrong.has(sector)) continue;
    const same = sector === RESULTS ? sameSize : (file.bytes[sector] ?? 0) === (final[sector] ?? 0);
    if (same) open.delete(sector);
  }
}
