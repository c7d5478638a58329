/** A whole case: its file is made, brought into the state that the case begins with, and operated on. */
import { allocAligned, constants, type FileExtent, type FileHandle, type Volume } from '../../src/index.js';
import type { Case, Extent, Step } from './case.js';
import type { CaseVolume } from './case-volume.js';
import { errnoName, runStep, type Outcome } from './steps.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const ATIME = Date.UTC(2000, 0, 1) / 1000;
const MTIME = Date.UTC(2001, 0, 1) / 1000;
/** As much as is read back as a whole. */
export const WHOLE_BYTES = 2 * 1024 * 1024;

/** What our volume made of a case. */
export interface Observed {
  readonly ops: readonly Outcome[];
  readonly size: number;
  readonly times: readonly string[];
  readonly fsync: string | undefined;
  readonly extents: readonly Extent[];
  readonly blocks: number;
  readonly mode: string;
  readonly cap: boolean;
}

/** Runs `init` and then `op` of a case on a new file. */
export async function replay(on: CaseVolume, about: Case, path: string): Promise<Observed> {
  await on.mount();
  // Stays open, as a descriptor of the recorder did: the inode and what is known of its mapping stay in memory.
  const keeper = await on.volume.open(path, O_RDWR | O_CREAT, 0o666);
  for (const step of about.init) if (step.k !== 'fill') await prepare(on, path, step);
  await keeper.utimes(ATIME, MTIME);
  await on.tap.syncAndDrop(keeper);
  // The recorder's kernel knew the whole mapping by now; what must not wait depends on that.
  if (about.op.some((step) => 'rwf' in step && step.rwf.includes('NOWAIT')))
    await on.tap.learnMapping((await keeper.stat()).size, about.fsBlock);
  for (const step of about.init) if (step.k === 'fill') await fill(on.volume, step.leave, about);
  const ops: Outcome[] = [];
  for (const step of about.op) ops.push(await operate(on, path, step));
  return { ops, ...(await look(on.volume, path)) };
}

async function prepare(on: CaseVolume, path: string, step: Step): Promise<void> {
  const { err } = await operate(on, path, step);
  if (err !== undefined) throw new Error(`init ${JSON.stringify(step)}: ${err}`);
}

async function operate(on: CaseVolume, path: string, step: Step): Promise<Outcome> {
  if (step.k === 'chattr') {
    await on.chattr(path, step.set);
    return { ret: 0 };
  }
  if (step.chattr !== undefined) await on.chattr(path, step.chattr);
  await on.mount(step.limit);
  const past = async (open: () => Promise<FileHandle>): Promise<FileHandle> => {
    on.tap.opensPastFlags = step.chattr !== undefined;
    try {
      return await open();
    } finally {
      on.tap.opensPastFlags = false;
    }
  };
  return runStep(on.volume, path, step, past);
}

async function look(volume: Volume, path: string): Promise<Omit<Observed, 'ops'>> {
  const file = await volume.open(path);
  try {
    const { size, atimeMs, mtimeMs, mode } = await file.stat();
    const times = [...(atimeMs === ATIME * 1000 ? [] : ['a']), ...(mtimeMs === MTIME * 1000 ? [] : ['m'])];
    const fsync = await file.sync().then(() => undefined, errnoName);
    const { blocks } = await file.stat();
    const extents = joined(await file.extents());
    const cap = (await volume.listxattr(path)).includes('security.capability');
    return { size, times, fsync, extents, blocks, mode: (mode & 0o7777).toString(8), cap };
  } finally {
    await file.close();
  }
}

/** Touching extents of one kind become one. */
function joined(extents: readonly FileExtent[]): readonly Extent[] {
  const all: [number, number, number][] = [];
  for (const { logical, length, unwritten } of extents) {
    const kind = unwritten ? 1 : 0;
    const last = all.at(-1);
    if (last !== undefined && last[0] + last[1] === logical && last[2] === kind) last[1] += length;
    else all.push([logical, length, kind]);
  }
  return all;
}

/** Takes every free block but `leave`, with another file. */
async function fill(volume: Volume, leave: number, about: Case): Promise<void> {
  const spare = await volume.open('/spare', O_RDWR | O_CREAT | O_DIRECT);
  await takeBlocks(spare, leave * about.fsBlock, about.fsBlock);
  const rest = await volume.open('/rest', O_RDWR | O_CREAT | O_DIRECT);
  await takeBlocks(rest, Number.MAX_SAFE_INTEGER, about.fsBlock);
  await rest.close();
  await spare.close();
  await volume.unlink('/spare');
  await volume.sync();
}

async function takeBlocks(file: FileHandle, bytes: number, blockBytes: number): Promise<void> {
  const data = allocAligned(1024 * 1024);
  let chunk = data.length;
  for (let position = 0; position < bytes && chunk >= blockBytes;) {
    const length = Math.min(chunk, bytes - position);
    try {
      position += (await file.write(data, 0, length, position)).bytesWritten;
    } catch (error) {
      if (errnoName(error) !== 'ENOSPC') throw error;
      chunk /= 2;
    }
  }
}

/** The whole content, or the surroundings of what was written where the file is too large for that. */
export async function readBack(
  volume: Volume,
  about: Case,
  path: string,
): Promise<readonly { start: number; bytes: Buffer }[]> {
  const { size, content = [] } = about.result;
  const file = await volume.open(path);
  try {
    const wanted =
      size <= WHOLE_BYTES
        ? [{ start: 0, length: size }]
        : content.map(([start, length]) => {
            const first = Math.max(0, start - 8192);
            return { start: first, length: Math.min(size, start + length + 8192) - first };
          });
    const parts: { start: number; bytes: Buffer }[] = [];
    for (const { start, length } of wanted) {
      const bytes = Buffer.alloc(length);
      if (length > 0) {
        const { bytesRead } = await file.read(bytes, 0, length, start);
        if (bytesRead !== length) throw new Error(`${path}: ${bytesRead} bytes of ${length} at ${start}`);
      }
      parts.push({ start, bytes });
    }
    return parts;
  } finally {
    await file.close();
  }
}
