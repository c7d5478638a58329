/** The job: make a volume, fill it, mount it again, compare, and have others look. */
import { join } from 'node:path';

import { Volume } from '../index.js';
import { checkHostSpace, JobError } from './container.js';
import { copyIn } from './copy-in.js';
import { defaultBytes, demandOf, loadBytes } from './geometry.js';
import { judgeWithE2fsck, judgeWithKernel, type Verdict } from './judges.js';
import { LOAD_ROOT, loadTree, runLoad } from './load.js';
import type { JobOptions } from './options.js';
import { withProgress } from './progress.js';
import { hostReader, volumeReader } from './readers.js';
import { reportCopy, reportLoad, reportVerdict, reportVolume, reportWrites } from './report.js';
import { bytesText } from './text.js';
import { filesOf, readTree, type Tree } from './tree.js';
import { compare, type Reader } from './verify.js';

const TREE_ROOT = '/tree';
const LABEL = 'uext4';

/** What the job leaves in the volume: a tree, and where it is. */
interface Placed {
  readonly tree: Tree;
  readonly root: string;
}

async function treeOf(from: string): Promise<Tree> {
  const tree = await readTree(from).catch((error: Error) => {
    throw new JobError(`--from: ${error.message}`);
  });
  if (tree.entries[0]?.type !== 'directory') throw new JobError(`--from: ${from} is no directory`);
  return tree;
}

async function format(image: string, sizeBytes: number, tree: Tree): Promise<void> {
  const { bytes, inodes } = demandOf(tree);
  const tooSmall = (has: string): JobError =>
    new JobError(
      `a volume of ${bytesText(sizeBytes)} ${has}, the tree needs ${bytesText(bytes)} and ${inodes} inodes: give a larger --size`,
    );
  const needed = bytes + loadBytes(sizeBytes);
  if (sizeBytes < needed) throw tooSmall('is too small');
  await checkHostSpace(image, needed);
  await Volume.format(image, { sizeBytes, label: LABEL, force: true });
  const volume = await Volume.open(image, { readOnly: true });
  const { freeBlocks, blockSize, freeInodes } = volume.info();
  await volume.close();
  if (freeBlocks * blockSize < needed) throw tooSmall(`has ${bytesText(freeBlocks * blockSize)} free`);
  if (freeInodes < inodes) throw tooSmall(`has ${freeInodes} inodes free`);
}

/** Runs `work` with the volume mounted; it is unmounted whatever happens. */
async function mounted<T>(
  image: string,
  readOnly: boolean,
  work: (volume: Volume) => Promise<T>,
): Promise<T> {
  const volume = await Volume.open(image, { readOnly });
  try {
    return await work(volume);
  } finally {
    await volume.close();
  }
}

/** Steps 1 and 2: the volume with everything in it, closed. */
async function fill(image: string, tree: Tree, options: JobOptions, signal: AbortSignal): Promise<Placed[]> {
  return mounted(image, false, async (volume) => {
    const info = volume.info();
    reportVolume(image, info);
    const start = performance.now();
    const about = { title: 'Copying', total: filesOf(tree).length, unit: 'files' };
    const bytes = await withProgress(about, (progress) =>
      copyIn(tree, { volume, root: TREE_ROOT }, progress, signal),
    );
    reportCopy(tree, bytes, (performance.now() - start) / 1000);
    const sizeBytes = loadBytes(info.blockCount * info.blockSize);
    const reports = await runLoad(volume, { sizeBytes, forSeconds: options.overwriteSeconds }, signal);
    reportLoad(reports);
    reportWrites(volume.stats());
    return [
      { tree, root: TREE_ROOT },
      { tree: await loadTree(volume, reports), root: LOAD_ROOT },
    ];
  });
}

async function compareAll(
  title: string,
  placed: readonly Placed[],
  readerOf: (root: string) => Reader,
  signal: AbortSignal,
): Promise<string[]> {
  const total = placed.reduce((sum, { tree }) => sum + tree.entries.length, 0);
  return withProgress({ title, total, unit: 'entries' }, async (progress) => {
    const differences: string[] = [];
    for (const { tree, root } of placed)
      differences.push(...(await compare(tree, readerOf(root), progress, signal)));
    return differences;
  });
}

/** Step 3: mounted again, every file has the hash that was written. */
async function verify(image: string, placed: readonly Placed[], signal: AbortSignal): Promise<Verdict> {
  const differences = await mounted(image, true, (volume) =>
    compareAll('Comparing after a new mount', placed, (root) => volumeReader(volume, root), signal),
  );
  return differences.length === 0
    ? { verdict: 'passed', detail: 'the same tree, modes, times, link targets and SHA-256' }
    : { verdict: 'failed', detail: differences.join('\n') };
}

/** Runs the job on the container at `image`; returns whether all held. */
export async function runJob(image: string, options: JobOptions, signal: AbortSignal): Promise<boolean> {
  const tree = await treeOf(options.from);
  await format(image, options.sizeBytes ?? defaultBytes(tree), tree);
  const placed = await fill(image, tree, options, signal);
  const verdicts = new Map<string, Verdict>();
  const judge = async (name: string, work: () => Promise<Verdict>): Promise<void> => {
    const verdict = await work();
    // A judge that was interrupted says nothing.
    signal.throwIfAborted();
    verdicts.set(name, verdict);
  };
  await judge('mount again', () => verify(image, placed, signal));
  await judge('e2fsck', () => judgeWithE2fsck(image));
  await judge('kernel', () =>
    judgeWithKernel(image, (mountPoint) =>
      compareAll(
        'Comparing through the kernel',
        placed,
        (root) => hostReader(join(mountPoint, root)),
        signal,
      ),
    ),
  );
  for (const [name, verdict] of verdicts) reportVerdict(name, verdict);
  return [...verdicts.values()].every(({ verdict }) => verdict !== 'failed');
}
