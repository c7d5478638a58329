/** `npm run bench`: kernels, then uext4 beside node:fs, fio and the kernel's ext4. See bench/README.md. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import type { EngineName, VolumeInfo } from '../src/index.js';
import { fioContestant, nodeContestants, uext4Contestants } from './contestants.js';
import { mountTwin } from './kernel-loop.js';
import { measureKernels, type Kernel } from './kernels.js';
import { AIMS, rowsOf, tableOf, verdict, type Row, type Run } from './report.js';
import type { Contestant, Op } from './sample.js';
import { hasTool } from './tools.js';
import { Undo } from './undo.js';

const HELP = `npm run bench -- [options]
  --quick            about 2 minutes in all
  --dir DIR          where the containers lie (default: the temporary directory)
  --size MIB         size of the file (512; 2048 without --quick)
  --seconds S        of each run (1; 5 without --quick)
  --rounds N         runs of each contestant (3; 5 without --quick)
  --engine NAME      auto, io_uring or threads
  --only A,B         contestants by name: uext4, "uext4 sync", node:fs, "node:fs sync", fio, "loop fio", "loop node:fs"
  --ops A,B          write, read
  --depths A,B       queue depths (1,32,128)
  --no-kernels       leave the synchronous kernels out`;

interface Settings {
  readonly quick: boolean;
  readonly dir: string;
  readonly fileBytes: number;
  readonly seconds: number;
  readonly rounds: number;
  readonly engine: EngineName;
  readonly only: readonly string[] | undefined;
  readonly ops: readonly Op[];
  readonly depths: readonly number[];
  readonly kernels: boolean;
}

function numberOf(text: string | undefined, name: string, fallback: number): number {
  const number = text === undefined ? fallback : Number(text);
  if (!(number > 0)) throw new Error(`--${name} must be a number above 0, not ${text}`);
  return number;
}

function settingsOf(args: readonly string[]): Settings | undefined {
  const string = { type: 'string' } as const;
  const boolean = { type: 'boolean' } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: boolean,
      help: boolean,
      'no-kernels': boolean,
      dir: string,
      size: string,
      seconds: string,
      rounds: string,
      engine: string,
      only: string,
      ops: string,
      depths: string,
    },
  });
  if (values.help === true) return undefined;
  const quick = values.quick === true;
  const ops = (values.ops ?? 'write,read').split(',');
  if (!ops.every((op): op is Op => op === 'write' || op === 'read'))
    throw new Error(`--ops takes write and read, not ${values.ops}`);
  return {
    quick,
    dir: values.dir ?? tmpdir(),
    fileBytes: Math.ceil(numberOf(values.size, 'size', quick ? 512 : 2048)) * (1 << 20),
    seconds: numberOf(values.seconds, 'seconds', quick ? 1 : 5),
    rounds: Math.ceil(numberOf(values.rounds, 'rounds', quick ? 3 : 5)),
    engine: (values.engine ?? 'auto') as EngineName,
    only: values.only?.split(','),
    ops,
    depths: (values.depths ?? '1,32,128').split(',').map((depth) => numberOf(depth, 'depths', 1)),
    kernels: values['no-kernels'] !== true,
  };
}

/** Makes everybody who can take part here, and says in one line why somebody cannot. */
async function makeContestants(
  settings: Settings,
  folder: string,
  undo: Undo,
): Promise<{ info: VolumeInfo; contestants: Contestant[] }> {
  const { fileBytes, engine, only } = settings;
  const wanted = (name: string): boolean => only === undefined || only.includes(name);
  const withFio = hasTool('fio');
  if (!withFio) console.log('fio is missing: nothing is compared with it. Install fio.');
  const { info, contestants } = await uext4Contestants(join(folder, 'uext4.img'), { fileBytes, engine });
  if (['node:fs', 'node:fs sync', 'fio'].some(wanted)) {
    const path = join(folder, 'twin.dat');
    try {
      contestants.push(
        ...(await nodeContestants(path, { name: 'node:fs', fileBytes, withSync: true, undo })),
      );
      if (withFio) contestants.push(fioContestant(path, 'fio'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      console.log(
        `No O_DIRECT in ${folder}: nothing is compared with node:fs and fio. Choose another --dir.`,
      );
    }
  }
  if (['loop node:fs', 'loop fio'].some(wanted)) {
    if (process.getuid?.() !== 0) {
      console.log('Not root: nothing is compared with the kernel’s ext4 over a loop device.');
    } else {
      const path = join(await mountTwin(folder, fileBytes, undo), 'bench.dat');
      const options = { name: 'loop node:fs', fileBytes, withSync: false, undo };
      contestants.push(...(await nodeContestants(path, options)));
      if (withFio) contestants.push(fioContestant(path, 'loop fio'));
    }
  }
  return { info, contestants: contestants.filter((contestant) => wanted(contestant.name)) };
}

/** Everybody takes turns, and in each round somebody else begins. */
async function measure(
  settings: Settings,
  contestants: readonly Contestant[],
  say: (op: Op, queueDepth: number, runs: readonly Run[]) => void,
): Promise<Run[]> {
  const runs: Run[] = [];
  const { fileBytes } = settings;
  for (const op of settings.ops) {
    for (const contestant of contestants) {
      const queueDepth = contestant.depths?.[0] ?? 32;
      await contestant.run({ op, queueDepth, fileBytes, seconds: Math.min(0.3, settings.seconds), seed: 99 });
    }
    for (const queueDepth of settings.depths) {
      const able = contestants.filter(({ depths }) => depths?.includes(queueDepth) ?? true);
      for (let round = 0; round < settings.rounds; round += 1) {
        const job = { op, queueDepth, fileBytes, seconds: settings.seconds, seed: 1000 * queueDepth + round };
        for (let turn = 0; turn < able.length; turn += 1) {
          const contestant = able[(turn + round) % able.length] as Contestant;
          const sample = await contestant.run(job);
          runs.push({ contestant: contestant.name, op, queueDepth, round, ...sample });
        }
      }
      say(op, queueDepth, runs);
    }
  }
  return runs;
}

function printKernels(kernels: readonly Kernel[]): void {
  console.log('\nSynchronous kernels');
  const width = Math.max(...kernels.map(({ name }) => name.length));
  for (const { name, nanos, marginPercent } of kernels)
    console.log(`${name.padEnd(width)}  ${nanos.toFixed(1).padStart(8)} ns  ±${marginPercent.toFixed(1)} %`);
}

function keep(results: object): string {
  const folder = join('bench', 'results');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${new Date().toISOString().replaceAll(':', '-')}.json`);
  writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
  return path;
}

async function bench(settings: Settings): Promise<void> {
  const undo = new Undo();
  mkdirSync(settings.dir, { recursive: true });
  const folder = mkdtempSync(join(settings.dir, 'uext4-bench-'));
  undo.push(() => rmSync(folder, { recursive: true, force: true }));

  const kernels = settings.kernels
    ? await measureKernels(join(folder, 'kernels.img'), settings.quick ? 0.5 : 3)
    : [];
  if (kernels.length > 0) printKernels(kernels);

  const { info, contestants } = await makeContestants(settings, folder, undo);
  console.log(`\nuext4's backend: ${info.backend} (${info.backendReason}); ${cpus().length} CPUs.`);
  const rows: Row[] = [];
  const runs = await measure(settings, contestants, (op, queueDepth, soFar) => {
    const now = rowsOf(soFar, op, queueDepth);
    rows.push(...now);
    console.log(
      `\n4 KiB random direct ${op === 'write' ? 'overwrites' : 'reads'}, queue depth ${queueDepth}`,
    );
    console.log(tableOf(now));
  });
  for (const contestant of contestants.toReversed()) await contestant.close();
  undo.run();

  const machine = {
    node: process.version,
    kernel: release(),
    cpu: cpus()[0]?.model,
    cpus: cpus().length,
    backend: info.backend,
    backendReason: info.backendReason,
  };
  const path = keep({ date: new Date().toISOString(), settings, machine, kernels, rows, runs });
  console.log(`\nEvery run: ${path}`);
  for (const aim of AIMS) console.log(verdict(rows, aim));
}

try {
  const settings = settingsOf(process.argv.slice(2));
  if (settings === undefined) console.log(HELP);
  else await bench(settings);
} catch (error) {
  console.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(1);
}
