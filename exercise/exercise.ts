/** Epochs of random rounds, each on a fresh volume; the first failure is shrunk. */
import { rm } from 'node:fs/promises';

import type { Engine } from '../src/engine.js';
import type { Features } from './features.js';
import { queuedFaults, type FaultyEngine } from './faulty-engine.js';
import { Generator } from './generate.js';
import { Failure } from './judge.js';
import { format, kindsHere, type Kind } from './kinds.js';
import { countOf, type Round } from './operation.js';
import { Random } from './random.js';
import { Session, type SessionOptions } from './session.js';
import { shrink } from './shrink.js';
import { surviveFaults } from './survive.js';

const MAX_FILE_BYTES = 256 * 1024;
const SHRINK_MS = 180_000;
/** A failure that depends on timing is given so many chances to show again. */
const TRIES = 2;
/** Of so many direct requests one fails. */
const FAULT_EVERY = 60;

/** What a list is run on. */
export interface Bench {
  readonly files: number;
  /** Where the volume is made; it is removed afterwards. */
  readonly image: string;
  /** Another than this environment's own. */
  readonly engine?: Engine;
  /** Direct requests fail now and then; or the journal's, metadata's and write-back's. */
  readonly faults?: { readonly of: 'queued' | 'blocking'; readonly engine: FaultyEngine };
}

export interface Plan extends Bench {
  readonly seed: number;
  readonly ops: number;
  readonly features: Features;
  /** Undefined: another one each epoch. */
  readonly kind: Kind | undefined;
  /** Operations before a fresh volume is made. */
  readonly epochOps: number;
  /** Told after every epoch. */
  readonly progress?: (done: Report) => void;
}

export interface Report {
  ops: number;
  rounds: number;
  epochs: number;
  /** Operations that the device's failures reached. */
  failed: number;
  /** Operations that found the volume full. */
  full: number;
  readonly byKind: Map<string, number>;
}

/** What went wrong, and the shortest list found that does it again. */
export interface Broken {
  readonly message: string;
  readonly epochSeed: number;
  readonly kind: Kind;
  readonly rounds: readonly Round[];
  /** Whether the list was seen to fail again. */
  readonly isRepeatable: boolean;
}

/** One epoch: what it is run on and where its numbers begin. */
interface Epoch {
  readonly bench: Bench;
  readonly kind: Kind;
  readonly seed: number;
}

/** Runs `plan.ops` operations, or until something is wrong. */
export async function exercise(plan: Plan): Promise<{ report: Report; broken?: Broken }> {
  const report: Report = { ops: 0, rounds: 0, epochs: 0, failed: 0, full: 0, byKind: new Map() };
  const possible = plan.kind === undefined ? await kindsHere(plan.image) : [plan.kind];
  // What is stored in place has no requests that could fail.
  const kinds = possible.filter(({ open }) => plan.faults === undefined || open.dax !== true);
  try {
    while (report.ops < plan.ops) {
      const seed = (Math.imul(plan.seed, 0x9e3779b1) + Math.imul(report.epochs, 0x85ebca6b)) | 0;
      const kind = kinds[report.epochs % kinds.length] as Kind;
      const broken = await runEpoch(plan, { bench: plan, kind, seed }, report);
      if (broken !== undefined) return { report, broken };
      report.epochs += 1;
      plan.progress?.(report);
    }
    return { report };
  } finally {
    await rm(plan.image, { force: true });
  }
}

async function startSession({ bench, kind, seed }: Epoch): Promise<Session> {
  const { files, image, faults } = bench;
  const engine = faults?.engine.engine ?? bench.engine;
  const random = new Random(seed ^ 0x5bd1e995);
  await rm(image, { force: true });
  await format(kind, image, engine);
  const options: SessionOptions = {
    files,
    kind,
    maxFileBytes: MAX_FILE_BYTES,
    ...(engine === undefined ? {} : { engine }),
  };
  if (faults?.of !== 'queued') return Session.start(image, options);
  const beforeMount = (): void => {
    faults.engine.planned = queuedFaults(random, FAULT_EVERY);
  };
  return Session.start(image, { ...options, queuedFaults: true, beforeMount });
}

async function runEpoch(plan: Plan, epoch: Epoch, report: Report): Promise<Broken | undefined> {
  const session = await startSession(epoch);
  const generator = new Generator(new Random(epoch.seed), plan.features, session.geometry);
  const rounds: Round[] = [];
  const draw = (): Round => {
    const round = generator.round(session.models);
    rounds.push(round);
    count(report, round);
    return round;
  };
  const last = Math.min(plan.ops, report.ops + plan.epochOps);
  try {
    if (plan.faults?.of === 'blocking') {
      await surviveFaults(session, plan.faults.engine, new Random(epoch.seed), draw);
    } else {
      while (report.ops < last) await session.run(draw());
      await session.finishEmpty();
    }
    report.failed += session.failed;
    report.full += session.full;
    return undefined;
  } catch (error) {
    await session.abandon();
    return explain(epoch, messageOf(error), rounds, plan.faults?.of === 'blocking');
  }
}

/** Looks for the shortest list that does it again. */
async function explain(
  epoch: Epoch,
  message: string,
  rounds: readonly Round[],
  isOnce: boolean,
): Promise<Broken> {
  const { kind, seed: epochSeed } = epoch;
  const fails = async (list: readonly Round[]): Promise<boolean> => {
    for (let left = TRIES; left > 0; left -= 1) if ((await runList(epoch, list)) !== undefined) return true;
    return false;
  };
  const isRepeatable = !isOnce && (await fails(rounds));
  if (!isRepeatable) return { message, epochSeed, kind, rounds, isRepeatable };
  const shortest = await shrink(rounds, fails, SHRINK_MS);
  const again = await runList(epoch, shortest);
  return { message: again ?? message, epochSeed, kind, rounds: shortest, isRepeatable };
}

function count(report: Report, round: Round): void {
  report.rounds += 1;
  report.ops += countOf(round);
  for (const { k } of Array.isArray(round) ? round : [round])
    report.byKind.set(k, (report.byKind.get(k) ?? 0) + 1);
}

function messageOf(error: unknown): string {
  return error instanceof Failure ? error.message : String((error as Error).stack);
}

async function runList(epoch: Epoch, rounds: readonly Round[]): Promise<string | undefined> {
  const session = await startSession(epoch);
  try {
    for (const round of rounds) await session.run(round);
    await session.finishEmpty();
    return undefined;
  } catch (error) {
    await session.abandon();
    return messageOf(error);
  }
}

/** Runs a list on a fresh volume; returns what went wrong. */
export function replay(bench: Bench, kind: Kind, rounds: readonly Round[]): Promise<string | undefined> {
  return runList({ bench, kind, seed: 0 }, rounds);
}
