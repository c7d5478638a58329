/** `npm run bench`: kernels, then uext4 beside node:fs, fio and the kernel's ext4. See bench/README.md. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import type { EngineName, VolumeInfo } from '../src/index.js';
import { apiContestants, fioContestant } from './contestants.js';
import { mountTwin } from './kernel-loop.js';
import { measureKernels, type Kernel } from './kernels.js';
import { AIMS, rowsOf, slowerThanKernel, tableOf, verdict, type Row, type Run } from './report.js';
import type { Contestant } from './sample.js';
import { nodeTarget, uext4Target } from './targets.js';
import { hasTool } from './tools.js';
import { Undo } from './undo.js';
import { WORKLOADS, workloadOf, type Workload } from './workloads.js';

const HELP = `npm run bench -- [options]
  --quick            about 3 minutes in all
  --dir DIR          where the containers lie (default: the temporary directory)
  --size MIB         size of the file (512; 2048 without --quick)
  --seconds S        of each run (0.8; 5 without --quick); some workloads take half of it
  --rounds N         runs of each contestant (3; 5 without --quick)
  --engine NAME      auto, io_uring or threads
  --only A,B         contestants by name: uext4, "uext4 sync", node:fs, "node:fs sync", fio,
                     "loop node:fs", "loop node:fs sync", "loop fio"
  --workloads A,B    ${WORKLOADS.map(({ name }) => name).join(', ')}
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
  readonly workloads: readonly Workload[];
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
      workloads: string,
      depths: string,
    },
  });
  if (values.help === true) return undefined;
  const quick = values.quick === true;
  return {
    quick,
    dir: values.dir ?? tmpdir(),
    fileBytes: Math.ceil(numberOf(values.size, 'size', quick ? 512 : 2048)) * (1 << 20),
    seconds: numberOf(values.seconds, 'seconds', quick ? 0.8 : 5),
    rounds: Math.ceil(numberOf(values.rounds, 'rounds', quick ? 3 : 5)),
    engine: (values.engine ?? 'auto') as EngineName,
    only: values.only?.split(','),
    workloads: values.workloads?.split(',').map(workloadOf) ?? WORKLOADS,
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
  const { info, target } = await uext4Target(join(folder, 'uext4.img'), { fileBytes, engine });
  const contestants = apiContestants(target, { onHost: false });
  if (['node:fs', 'node:fs sync', 'fio'].some(wanted)) {
    const path = join(folder, 'host');
    mkdirSync(path);
    try {
      const host = await nodeTarget(path, { name: 'node:fs', fileBytes, undo });
      contestants.push(...apiContestants(host, { onHost: true }));
      if (withFio) contestants.push(fioContestant(path, { name: 'fio', onHost: true }));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      console.log(
        `No O_DIRECT in ${folder}: nothing is compared with node:fs and fio. Choose another --dir.`,
      );
    }
  }
  if (['loop node:fs', 'loop node:fs sync', 'loop fio'].some(wanted)) {
    if (process.getuid?.() !== 0) {
      console.log('Not root: nothing is compared with the kernel’s ext4 over a loop device.');
    } else {
      const twin = await mountTwin(folder, fileBytes, undo);
      const loop = await nodeTarget(twin.folder, {
        name: 'loop node:fs',
        fileBytes,
        device: twin.device,
        undo,
      });
      contestants.push(...apiContestants(loop, { onHost: false }));
      if (withFio) contestants.push(fioContestant(twin.folder, { name: 'loop fio', onHost: false }));
    }
  }
  return { info, contestants: contestants.filter((contestant) => wanted(contestant.name)) };
}

/** Everybody takes turns, and in each round somebody else begins. */
async function measure(
  settings: Settings,
  contestants: readonly Contestant[],
  say: (workload: Workload, queueDepth: number, runs: readonly Run[]) => void,
): Promise<Run[]> {
  const runs: Run[] = [];
  const { fileBytes } = settings;
  for (const workload of settings.workloads) {
    const { name } = workload;
    const seconds = settings.seconds * workload.share;
    for (const queueDepth of workload.depths.filter((depth) => settings.depths.includes(depth))) {
      const able = contestants.filter((contestant) => contestant.canRun(name, queueDepth));
      if (queueDepth === Math.min(...workload.depths)) {
        const warmUp = { workload: name, queueDepth, fileBytes, seconds: Math.min(0.2, seconds), seed: 99 };
        for (const contestant of able) await contestant.run(warmUp);
      }
      for (let round = 0; round < settings.rounds; round += 1) {
        const job = { workload: name, queueDepth, fileBytes, seconds, seed: 1000 * queueDepth + round };
        for (let turn = 0; turn < able.length; turn += 1) {
          const contestant = able[(turn + round) % able.length] as Contestant;
          const sample = await contestant.run(job);
          runs.push({ contestant: contestant.name, round, ...job, ...sample });
        }
      }
      say(workload, queueDepth, runs);
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
  const runs = await measure(settings, contestants, ({ name, title }, queueDepth, soFar) => {
    const now = rowsOf(soFar, name, queueDepth);
    rows.push(...now);
    console.log(`\n${title}, queue depth ${queueDepth}`);
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
  for (const line of slowerThanKernel(rows)) console.log(line);
}

try {
  const settings = settingsOf(process.argv.slice(2));
  if (settings === undefined) console.log(HELP);
  else await bench(settings);
} catch (error) {
  console.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(1);
}
