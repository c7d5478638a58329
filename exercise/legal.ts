/** Which results operations in flight at once may have: those of any order, byte by byte. */
import { FileModel, type Outcome } from './model.js';
import type { FileOperation } from './operation.js';

/** Beyond this many operations at once, all orders are too many. */
export const MAX_TANGLED = 4;

/** What every order of some operations on one file leads to. */
export interface Legal {
  /** Per operation, its outcome in every order. */
  readonly outcomes: readonly (readonly Outcome[])[];
  /** The file after every order. */
  readonly finals: readonly FileModel[];
}

function* ordersOf(count: number): Generator<readonly number[]> {
  function* extend(order: number[]): Generator<readonly number[]> {
    if (order.length === count) yield [...order];
    for (let next = 0; next < count; next += 1) if (!order.includes(next)) yield* extend([...order, next]);
  }
  yield* extend([]);
}

export function legalResults(before: FileModel, operations: readonly FileOperation[]): Legal {
  const outcomes: Outcome[][] = operations.map(() => []);
  const finals: FileModel[] = [];
  for (const order of ordersOf(operations.length)) {
    const file = before.copy();
    for (const index of order)
      (outcomes[index] as Outcome[]).push(file.apply(operations[index] as FileOperation));
    finals.push(file);
  }
  return { outcomes, finals };
}

/** Every byte is one of those at its place in the candidates; what is beyond a candidate's end is none of its. */
export function firstIllegal(found: Buffer, candidates: readonly Buffer[]): number | undefined {
  if (candidates.some((candidate) => candidate.equals(found))) return undefined;
  for (let at = 0; at < found.length; at += 1) {
    const byte = found[at];
    if (!candidates.some((candidate) => at < candidate.length && candidate[at] === byte)) return at;
  }
  return undefined;
}

/** Whether an operation that should have had this outcome may have had that one: what must not wait may stop early. */
export function isExpected(operation: FileOperation, expected: Outcome, found: Outcome): boolean {
  if (expected.err !== found.err) return false;
  if (expected.ret === found.ret) return true;
  if (operation.k !== 'read' || operation.nowait !== true) return false;
  return (found.ret ?? 0) > 0 && (found.ret ?? 0) < (expected.ret ?? 0);
}

/** The outcome is that of some order; a read's bytes may come from several. */
export function isLegalOutcome(operation: FileOperation, found: Outcome, legal: readonly Outcome[]): boolean {
  if (!legal.some((expected) => isExpected(operation, expected, found))) return false;
  if (found.data === undefined) return true;
  return (
    firstIllegal(
      found.data,
      legal.flatMap(({ data }) => (data === undefined ? [] : [data])),
    ) === undefined
  );
}

/** Whether the operations, all on one file, have the same result in every order: then one order will do. */
export function commute(before: FileModel, operations: readonly FileOperation[]): boolean {
  if (operations.length < 2) return true;
  const ranges: { from: number; to: number; isWrite: boolean }[] = [];
  for (const operation of operations) {
    if (operation.k === 'fsync') continue;
    if (operation.k !== 'read' && operation.k !== 'write') return false;
    if (operation.k === 'write' && operation.append === true) return false;
    const length = operation.lens.reduce((sum, bytes) => sum + bytes, 0);
    const to = operation.pos + length;
    // A read past the end sees how far others have moved it.
    if (operation.k === 'read' && to > before.size) return false;
    ranges.push({ from: operation.pos, to, isWrite: operation.k === 'write' });
  }
  return ranges.every((one, index) =>
    ranges
      .slice(index + 1)
      .every((other) => !(one.isWrite || other.isWrite) || one.to <= other.from || other.to <= one.from),
  );
}
