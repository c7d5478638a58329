/** `npm run exercise`: random operations against a model; exit status 1 and a list to repeat it where they differ. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { exercise, replay, type Broken, type Report } from './exercise.js';
import { FaultyEngine } from './faulty-engine.js';
import { KINDS, type Kind } from './kinds.js';
import { fastFolder } from './fast-folder.js';
import { formatRounds, parseRounds } from './operation.js';
import { parseOptions, UsageError, USAGE, type Options } from './options.js';

function perSecond(ops: number, since: number): string {
  return `${Math.round(ops / ((performance.now() - since) / 1000))} a second`;
}

function describe(report: Report): string {
  const kinds = [...report.byKind].sort(([, one], [, other]) => other - one);
  const errors = [
    ['EIO', report.failed],
    ['ENOSPC', report.full],
  ] as const;
  return [...kinds, ...errors.filter(([, count]) => count > 0)].map((each) => each.join(' ')).join(', ');
}

/** What does not repeat itself is told by its end. */
const LAST_ROUNDS = 5;

function tell(broken: Broken, options: Options): void {
  const { message, kind, rounds, isRepeatable, epochSeed } = broken;
  console.log(`seed ${options.seed}: ${message}`);
  console.log(
    isRepeatable
      ? `The shortest list that fails, for --replay with --kind ${kind.name} --files ${options.files}:`
      : `It did not happen again (kind ${kind.name}, epoch seed ${epochSeed}, ${rounds.length} rounds). Its end:`,
  );
  console.log(formatRounds(isRepeatable ? rounds : rounds.slice(-LAST_ROUNDS)));
}

async function run(options: Options, image: string): Promise<number> {
  const begun = performance.now();
  if (options.replay !== undefined) {
    const rounds = parseRounds(await readFile(options.replay, 'utf8'));
    const message = await replay({ image, files: options.files }, options.kind ?? (KINDS[0] as Kind), rounds);
    console.log(message ?? `${rounds.length} rounds without a difference`);
    return message === undefined ? 0 : 1;
  }
  const progress = (report: Report): void => {
    if (!options.quiet) console.log(`${report.ops} operations, ${perSecond(report.ops, begun)}`);
  };
  const { faults: of, ...plan } = options;
  const faults = of === undefined ? {} : { faults: { of, engine: new FaultyEngine() } };
  const { report, broken } = await exercise({ ...plan, ...faults, image, progress });
  if (broken !== undefined) tell(broken, options);
  const verdict = broken === undefined ? 'clean' : 'FAILED';
  console.log(
    `seed ${options.seed}: ${report.ops} operations in ${report.rounds} rounds on ${report.epochs} volumes, ` +
      `${perSecond(report.ops, begun)}: ${verdict} (${describe(report)})`,
  );
  return broken === undefined ? 0 : 1;
}

async function main(): Promise<number> {
  let options: Options;
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message}\n${USAGE}`);
    return 2;
  }
  if (options.image !== undefined) return run(options, options.image);
  const folder = await mkdtemp(join(await fastFolder(), 'uext4-exercise-'));
  try {
    return await run(options, join(folder, 'volume.img'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

process.exitCode = await main();
