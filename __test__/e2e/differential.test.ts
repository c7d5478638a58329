/** The same random sequences here and on a kernel mount: the same answers, errnos, sizes, times and contents. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import type { ExecutionContext } from 'ava';

import { fastFolder } from '../../exercise/fast-folder.js';
import { Random } from '../../exercise/random.js';
import type { Volume } from '../../src/index.js';
import { FALLOCATE_MODES, patternBytes, type Step } from '../kernel-dio/case.js';
import { CaseVolume, makeVolume, runTool, type Kind } from '../kernel-dio/case-volume.js';
import { randomSteps, SEED_BYTES, SEEDS } from '../kernel-dio/random-case.js';
import { runStep, type Outcome } from '../kernel-dio/steps.js';
import { TappedEngine } from '../kernel-dio/tapped-engine.js';
import { e2eSerial, hasTool, MiB, ROOT } from './support.js';

const ATIME = Date.UTC(2000, 0, 1) / 1000;
const MTIME = Date.UTC(2001, 0, 1) / 1000;
const seed = Number(process.env['UEXT4_SEED'] ?? 1);
const tap = new TappedEngine();

/** What both sides tell of one sequence. */
interface Told {
  readonly ops: readonly { ret?: number; err?: string; data?: string }[];
  readonly size: number;
  readonly times: string;
  readonly content: string;
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Mounts the image with the kernel for as long as `work` takes. */
async function withKernelMount<T>(image: string, work: (mountPoint: string) => Promise<T>): Promise<T> {
  const mountPoint = `${image}.mnt`;
  await mkdir(mountPoint);
  runTool('mount', ['-t', 'ext4', '-o', 'loop', image, mountPoint]);
  try {
    return await work(mountPoint);
  } finally {
    runTool('umount', [mountPoint]);
  }
}

async function askKernel(mountPoint: string, seeds: string, sequences: readonly Step[][]): Promise<Told[]> {
  const program = join(ROOT, '__test__', 'kernel-dio', 'kernel-side.py');
  const child = spawn('python3', [program, mountPoint, seeds], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exit = once(child, 'exit');
  const told: Told[] = [];
  for (const op of sequences) {
    const steps = op.map((step) =>
      step.k === 'fallocate' ? { ...step, bits: FALLOCATE_MODES[step.mode] } : step,
    );
    child.stdin.write(`${JSON.stringify({ op: steps })}\n`);
  }
  child.stdin.end();
  for await (const line of createInterface({ input: child.stdout })) told.push(JSON.parse(line) as Told);
  await exit;
  return told;
}

async function runHere(volume: Volume, path: string, op: readonly Step[]): Promise<Omit<Told, 'content'>> {
  await volume.writeFile(path, '');
  await volume.utimes(path, ATIME, MTIME);
  const outcomes: Outcome[] = [];
  for (const step of op) outcomes.push(await runStep(volume, path, step));
  const { size, atimeMs, mtimeMs } = await volume.stat(path);
  const times = (atimeMs === ATIME * 1000 ? '' : 'a') + (mtimeMs === MTIME * 1000 ? '' : 'm');
  const ops = outcomes.map(({ ret, err, data }) => ({
    ...(ret === undefined ? {} : { ret }),
    ...(data === undefined ? {} : { data: digest(data) }),
    ...(err === undefined ? {} : { err }),
  }));
  return { ops, size, times };
}

/** All sequences on our volume; contents as they are after a new mount. */
async function askOurs(t: ExecutionContext, on: CaseVolume, sequences: readonly Step[][]): Promise<Told[]> {
  await on.mount();
  const told: Omit<Told, 'content'>[] = [];
  for (const [index, op] of sequences.entries()) told.push(await runHere(on.volume, `/case-${index}`, op));
  t.is(await on.judge(), undefined);
  await on.mount();
  const all: Told[] = [];
  for (const [index, one] of told.entries())
    all.push({ ...one, content: digest(await on.volume.readFile(`/case-${index}`)) });
  return all;
}

/**
 * A direct read from a hole into data, out of step with the sectors: in the data the position may be right again, and then
 * Linux refuses for the memory's sake alone.
 */
function isMemoryLuck(step: Step | undefined, kernelsError: string | undefined): boolean {
  return step?.k === 'pread' && step.direct === true && step.pos % 512 !== 0 && kernelsError === 'EINVAL';
}

/** The first answer that differs, or what is left of the file; with the sequence up to there. */
function differencesOf(here: Told, there: Told, op: readonly Step[]): string[] {
  const step = here.ops.findIndex(
    (one, index) =>
      JSON.stringify(one) !== JSON.stringify(there.ops[index]) &&
      !isMemoryLuck(op[index], there.ops[index]?.err),
  );
  if (step >= 0) {
    const [ours, kernels] = [here.ops[step], there.ops[step]].map((one) => JSON.stringify(one));
    return [`${JSON.stringify(op.slice(0, step + 1))}: here ${ours}, Linux ${kernels}`];
  }
  const [ours, kernels] = [here, there].map(({ size, times, content }) =>
    JSON.stringify({ size, times, content }),
  );
  return ours === kernels ? [] : [`${JSON.stringify(op)}: here ${ours}, Linux ${kernels}`];
}

async function compareWithKernel(t: ExecutionContext, kind: Kind, count: number): Promise<void> {
  if (process.getuid?.() !== 0 || !(await hasTool('mke2fs', '-V')) || !(await hasTool('python3', '-V'))) {
    t.log('skipped: needs root for a kernel mount, mke2fs and python3');
    t.pass();
    return;
  }
  const random = new Random(seed * 1000 + kind.fsBlock + (kind.map === 'indirect' ? 1 : 0));
  // Linux does not see delayed data in a block map: its SEEK_DATA says ENXIO until write-back.
  const seeks = kind.map === 'extent';
  const sequences = Array.from({ length: count }, () => randomSteps(random, kind.fsBlock, seeks));
  const folder = await mkdtemp(join(await fastFolder(), 'uext4-differential-'));
  const [image, twin, seeds] = ['ours.img', 'kernel.img', 'seeds'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  try {
    await writeFile(
      seeds,
      Buffer.concat(Array.from({ length: SEEDS }, (_, each) => patternBytes(each, 0, SEED_BYTES))),
    );
    await makeVolume(image, kind, 512 * MiB);
    await makeVolume(twin, kind, 512 * MiB);
    const on = new CaseVolume(image, kind, tap);
    const kernels = await withKernelMount(twin, (mountPoint) => askKernel(mountPoint, seeds, sequences));
    const ours = await askOurs(t, on, sequences);
    await on.dispose();
    t.is(kernels.length, count);
    const different = ours.flatMap((one, index) =>
      differencesOf(one, kernels[index] as Told, sequences[index] ?? []),
    );
    t.is(different.length, 0, different.slice(0, 5).join('\n'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

for (const [fsBlock, map, count] of [
  [4096, 'extent', 800],
  [1024, 'extent', 800],
  [1024, 'indirect', 600],
] as const)
  e2eSerial(`${count} sequences, seed ${seed}, ${fsBlock} byte blocks, ${map} map`, (t) =>
    compareWithKernel(t, { fsBlock, sector: 512, map, mount: 'ordered' }, count),
  );
