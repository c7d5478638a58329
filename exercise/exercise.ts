/** Epochs of random rounds, each on a fresh volume; the first failure is shrunk. */
import { rm } from 'node:fs/promises';

import { defaultEngine } from '../src/default-engine.js';
import type { Engine } from '../src/engine.js';
import { Volume } from '../src/index.js';
import { makeBlockMapVolume } from './block-map-volume.js';
import type { Features } from './features.js';
import { Generator } from './generate.js';
import { countOf, type Round } from './operation.js';
import { Random } from './random.js';
import { Failure, Session } from './session.js';
import { shrink } from './shrink.js';

const MiB = 1024 * 1024;
const VOLUME_BYTES = 64 * MiB;
const MAX_FILE_BYTES = 256 * 1024;
const BLOCK_SIZES = [4096, 1024, 2048];
const SHRINK_MS = 180_000;
/** A failure that depends on timing is given so many chances to show again. */
const TRIES = 2;

/** What a list is run on. */
export interface Bench {
  readonly files: number;
  /** Where the volume is made; it is removed afterwards. */
  readonly image: string;
  /** Another than this environment's own. */
  readonly engine?: Engine;
  /** Data is loaded and stored in place; the image has to lie in memory. */
  readonly dax?: boolean;
  /** On a volume of mke2fs without extents. */
  readonly blockMaps?: boolean;
}

export interface Plan extends Bench {
  readonly seed: number;
  readonly ops: number;
  readonly features: Features;
  /** Undefined: another one each epoch. */
  readonly blockSize: number | undefined;
  /** Operations before a fresh volume is made. */
  readonly epochOps: number;
  /** Told after every epoch. */
  readonly progress?: (done: Report) => void;
}

export interface Report {
  ops: number;
  rounds: number;
  epochs: number;
  readonly byKind: Map<string, number>;
}

/** What went wrong, and the shortest list found that does it again. */
export interface Broken {
  readonly message: string;
  readonly epochSeed: number;
  readonly blockSize: number;
  readonly rounds: readonly Round[];
  /** Whether the list was seen to fail again. */
  readonly isRepeatable: boolean;
}

/** Runs `plan.ops` operations, or until something is wrong. */
export async function exercise(plan: Plan): Promise<{ report: Report; broken?: Broken }> {
  const report: Report = { ops: 0, rounds: 0, epochs: 0, byKind: new Map() };
  try {
    while (report.ops < plan.ops) {
      const epochSeed = (Math.imul(plan.seed, 0x9e3779b1) + Math.imul(report.epochs, 0x85ebca6b)) | 0;
      const blockSize = plan.blockSize ?? BLOCK_SIZES[report.epochs % BLOCK_SIZES.length] ?? 4096;
      const broken = await runEpoch(plan, epochSeed, blockSize, report);
      if (broken !== undefined) return { report, broken };
      report.epochs += 1;
      plan.progress?.(report);
    }
    return { report };
  } finally {
    await rm(plan.image, { force: true });
  }
}

async function startSession(bench: Bench, blockSize: number): Promise<Session> {
  const { files, image, engine, dax, blockMaps } = bench;
  await rm(image, { force: true });
  if (blockMaps === true) await makeBlockMapVolume(image, VOLUME_BYTES, blockSize);
  else await Volume.formatOn(engine ?? defaultEngine(), image, { sizeBytes: VOLUME_BYTES, blockSize });
  const options = { files, maxFileBytes: MAX_FILE_BYTES, open: { dax: dax === true } };
  return Session.start(image, engine === undefined ? options : { ...options, engine });
}

async function runEpoch(
  plan: Plan,
  epochSeed: number,
  blockSize: number,
  report: Report,
): Promise<Broken | undefined> {
  const session = await startSession(plan, blockSize);
  const generator = new Generator(new Random(epochSeed), plan.features, session.geometry);
  const rounds: Round[] = [];
  const last = Math.min(plan.ops, report.ops + plan.epochOps);
  try {
    while (report.ops < last) {
      const round = generator.round(session.models);
      rounds.push(round);
      await session.run(round);
      count(report, round);
    }
    await session.finish();
    return undefined;
  } catch (error) {
    await session.abandon();
    const { message } = error as Error;
    const fails = (list: readonly Round[]): Promise<boolean> => failsAgain(plan, blockSize, list);
    const isRepeatable = await fails(rounds);
    const shortest = isRepeatable ? await shrink(rounds, fails, SHRINK_MS) : rounds;
    const again = isRepeatable ? await replay(plan, blockSize, shortest) : undefined;
    return { message: again ?? message, epochSeed, blockSize, rounds: shortest, isRepeatable };
  }
}

function count(report: Report, round: Round): void {
  report.rounds += 1;
  report.ops += countOf(round);
  for (const { k } of Array.isArray(round) ? round : [round])
    report.byKind.set(k, (report.byKind.get(k) ?? 0) + 1);
}

async function failsAgain(bench: Bench, blockSize: number, rounds: readonly Round[]): Promise<boolean> {
  for (let left = TRIES; left > 0; left -= 1)
    if ((await replay(bench, blockSize, rounds)) !== undefined) return true;
  return false;
}

/** Runs a list on a fresh volume; returns what went wrong. */
export async function replay(
  bench: Bench,
  blockSize: number,
  rounds: readonly Round[],
): Promise<string | undefined> {
  const session = await startSession(bench, blockSize);
  try {
    for (const round of rounds) await session.run(round);
    await session.finish();
    return undefined;
  } catch (error) {
    await session.abandon();
    return error instanceof Failure ? error.message : String((error as Error).stack);
  }
}
