/** Whether what came of the operations of a round on one file is legal. */
import { commute, firstIllegal, isExpected, isLegalOutcome, legalResults } from './legal.js';
import { startInPool, type FileModel, type Outcome } from './model.js';
import { bytesOf, type FileOperation } from './operation.js';

/** The volume did what it must not do. */
export class Failure extends Error {
  override readonly name = 'Failure';
}

/** One operation and what came of it. */
export interface Done {
  readonly operation: FileOperation;
  readonly outcome: Outcome;
}

/** What is to be known of the file beside the outcomes. */
export interface Evidence {
  readonly file: number;
  readonly content: () => Promise<Buffer>;
}

/** Brings the model to where the file is. Throws {@link Failure}. */
export async function judge(model: FileModel, done: readonly Done[], evidence: Evidence): Promise<void> {
  // What would have had to wait has not happened.
  const happened = done.filter(({ operation, outcome }) => !isRefusal(operation, outcome));
  const operations = happened.map(({ operation }) => operation);
  if (commute(model, operations)) {
    for (const each of happened) judgeOne(model, each);
    return;
  }
  const legal = legalResults(model, operations);
  happened.forEach(({ operation, outcome }, index) => {
    const expected = legal.outcomes[index] ?? [];
    if (isLegalOutcome(operation, outcome, expected)) return;
    const [first] = expected;
    const how =
      outcome.data === undefined || first?.data === undefined ? '' : `: ${differ(outcome.data, first.data)}`;
    throw new Failure(
      `${describe(operation)} gave ${show(outcome)}, which no order of the round gives${how}`,
    );
  });
  await adoptOneOf(model, legal.finals, evidence);
}

/** Whether an operation's failure is nothing to wonder at. */
export type MayFail = (done: Done) => boolean;

/** The device refuses direct requests now and then. */
export const deviceFails: MayFail = ({ operation, outcome }) =>
  outcome.err === 'EIO' && (operation.k === 'read' || operation.k === 'write') && operation.direct;

/** The volume is full. */
export const spaceFails: MayFail = ({ operation, outcome }) =>
  outcome.err === 'ENOSPC' && (operation.k === 'write' || operation.k === 'fallocate');

/** Writes that ended where the space did, as what they came to; an atomic one has no such end. */
export function cutShort(done: Done): Done {
  const { operation, outcome } = done;
  if (operation.k !== 'write' || operation.atomic === true) return done;
  const { ret } = outcome;
  if (ret === undefined || ret === 0 || ret >= bytesOf(operation)) return done;
  const from = startInPool(operation.from, bytesOf(operation));
  return { operation: { ...operation, from, lens: [ret] }, outcome };
}

/**
 * The same where operations may fail: each of those has changed its range, or a part of it, or nothing (B9). The size has
 * changed by what fallocate got, and not at all by a write.
 */
export async function judgeWithFailures(
  model: FileModel,
  done: readonly Done[],
  evidence: Evidence,
  isFailed: MayFail,
): Promise<void> {
  const failed = done.filter((each) => isFailed(each) && each.operation.k !== 'read');
  const others = done.filter((each) => !isFailed(each) && !isRefusal(each.operation, each.outcome));
  if (failed.length === 0) return judge(model, others, evidence);
  const apart = commute(
    model,
    [...others, ...failed].map(({ operation }) => operation),
  );
  const { sizes, contents } = apart
    ? failedApart(model, others, failed)
    : failedTangled(model, others, failed);
  const found = await evidence.content();
  if (!sizes.some(([least, most]) => found.length >= least && found.length <= most))
    throw new Failure(`file ${evidence.file} is ${found.length} bytes long after a write that failed`);
  const at = firstIllegal(found, contents);
  if (at !== undefined)
    throw new Failure(`file ${evidence.file} has ${found[at]} at ${at}, which is neither old nor new`);
  model.adopt(found);
  return undefined;
}

interface Possible {
  /** From, to. */
  readonly sizes: readonly (readonly [number, number])[];
  readonly contents: readonly Buffer[];
}

/** The ranges do not meet: the others are judged as ever. */
function failedApart(model: FileModel, others: readonly Done[], failed: readonly Done[]): Possible {
  for (const each of others) judgeOne(model, each);
  const done = model.copy();
  for (const { operation } of failed) if (mayBePartial(operation)) done.apply(operation);
  const grows = failed.some(({ operation }) => operation.k === 'fallocate');
  return { sizes: [[model.size, grows ? done.size : model.size]], contents: [model.content, done.content] };
}

/** Shifting a file's blocks is done or not. */
function mayBePartial(operation: FileOperation): boolean {
  if (operation.k === 'write') return operation.atomic !== true;
  return operation.k === 'fallocate' && !['collapse-range', 'insert-range'].includes(operation.mode);
}

/** Every order, with and without each of those that failed. */
function failedTangled(model: FileModel, others: readonly Done[], failed: readonly Done[]): Possible {
  const outcomes = others.map((): Outcome[] => []);
  const sizes: [number, number][] = [];
  const contents: Buffer[] = [];
  for (let subset = 0; subset < 2 ** failed.length; subset += 1) {
    const some = failed.filter((_, index) => ((subset >> index) & 1) === 1);
    const legal = legalResults(
      model,
      [...others, ...some].map(({ operation }) => operation),
    );
    others.forEach((_, index) => outcomes[index]?.push(...(legal.outcomes[index] ?? [])));
    for (const { content, size } of legal.finals) {
      contents.push(content);
      if (subset === 0) sizes.push([size, size]);
    }
  }
  others.forEach(({ operation, outcome }, index) => {
    if (isLegalOutcome(operation, outcome, outcomes[index] ?? [])) return;
    throw new Failure(`${describe(operation)} gave ${show(outcome)} beside a write that failed`);
  });
  return { sizes, contents };
}

async function adoptOneOf(model: FileModel, finals: readonly FileModel[], evidence: Evidence): Promise<void> {
  const { file } = evidence;
  const found = await evidence.content();
  const contents = finals.map(({ content }) => content);
  if (!contents.some(({ length }) => length === found.length))
    throw new Failure(`file ${file} is ${found.length} bytes long, which no order of the round gives`);
  const at = firstIllegal(found, contents);
  if (at !== undefined)
    throw new Failure(`file ${file} has ${found[at]} at ${at}, which no order of the round gives`);
  model.adopt(found);
}

function isRefusal(operation: FileOperation, { err }: Outcome): boolean {
  return 'nowait' in operation && (err === 'EAGAIN' || (err === 'ENOTSUP' && operation.k === 'write'));
}

function judgeOne(model: FileModel, { operation, outcome }: Done): void {
  if (operation.k === 'seek') {
    if (model.allowsSeek(operation, outcome)) return;
    throw new Failure(`${describe(operation)} gave ${show(outcome)} in a file of ${model.size} bytes`);
  }
  const expected = model.apply(operation);
  if (!isExpected(operation, expected, outcome))
    throw new Failure(`${describe(operation)} gave ${show(outcome)} instead of ${show(expected)}`);
  if (expected.data === undefined || outcome.data === undefined) return;
  const data = expected.data.subarray(0, outcome.data.length);
  if (!data.equals(outcome.data)) throw new Failure(`${describe(operation)}: ${differ(outcome.data, data)}`);
}

/** In words, for people. */
export function differ(found: Buffer, expected: Buffer): string {
  if (found.length !== expected.length) return `${found.length} bytes instead of ${expected.length}`;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  let last = found.length - 1;
  while (last > at && found[last] === expected[last]) last -= 1;
  return `bytes ${at} to ${last} differ, the first is ${found[at]} instead of ${expected[at]}`;
}

function show({ ret, err }: Outcome): string {
  return err ?? String(ret);
}

function describe(operation: FileOperation): string {
  return JSON.stringify(operation);
}
