/** One step of a case, through the API as a user has it. */
import { allocAligned, constants, type FileHandle, type Volume } from '../../src/index.js';
import { FALLOCATE_MODES, patternBytes, type Step, type TransferStep } from './case.js';

const { O_APPEND, O_DIRECT, O_DSYNC, O_RDONLY, O_RDWR, O_SYNC } = constants;
const PAGE = 4096;

/** What a step came to. */
export interface Outcome {
  readonly ret?: number;
  readonly err?: string;
  readonly at?: 'open';
  /** What a read put into the buffer. */
  readonly data?: Buffer;
  readonly rets?: readonly (number | string)[];
  readonly offset?: number;
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** The steps that have no counterpart here throw this; the message says which. */
export class NoCounterpart extends Error {}

let arena: Buffer | undefined;

/** A part of memory that goes to the device as it is: `bytes` at `memory` bytes into a page. */
function placed(memory: number, bytes: number, from = 0): Buffer {
  const end = from + memory + bytes;
  if (arena === undefined || arena.length < end) arena = allocAligned(Math.max(2 ** 20, end));
  return arena.subarray(from + memory, end);
}

/** The same for every segment, each in pages of its own. */
function segmentsOf(step: TransferStep): Buffer[] {
  const segments: Buffer[] = [];
  let from = 0;
  for (const [memory, bytes] of step.iov ?? [[step.mem ?? 0, step.len ?? 0]]) {
    if (memory === 'bad') throw new NoCounterpart('memory that is not mapped');
    segments.push(placed(memory, bytes, from));
    from += Math.ceil((memory + bytes + 1) / PAGE) * PAGE;
  }
  return segments;
}

function openFlags(step: Step): number {
  const rwf = step.k === 'pwrite' ? (step.rwf ?? []) : [];
  const readOnly = step.k === 'pread' || step.k === 'seek' || step.k === 'statx';
  let flags = readOnly ? O_RDONLY : O_RDWR;
  if (step.direct === true) flags |= O_DIRECT;
  // RWF_APPEND, RWF_NOAPPEND and RWF_DSYNC do for one call what the flags do for all of a descriptor.
  if ((step.oappend === true || rwf.includes('APPEND')) && !rwf.includes('NOAPPEND')) flags |= O_APPEND;
  if (step.odsync === true || rwf.includes('DSYNC')) flags |= O_DSYNC;
  if (step.osync === true) flags |= O_SYNC;
  return flags;
}

/** The errno's name as Linux has it. */
export function errnoName(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) throw error;
  return code === 'ENOTSUP' ? 'EOPNOTSUPP' : code;
}

/** Opens a descriptor of its own, runs the step, closes it. `around` wraps the open. */
export async function runStep(
  volume: Volume,
  path: string,
  step: Step,
  around: (open: () => Promise<FileHandle>) => Promise<FileHandle> = (open) => open(),
): Promise<Outcome> {
  checkNumbers(step);
  if (step.k === 'chmod' || step.k === 'setcap') return runOnPath(volume, path, step);
  let file: FileHandle;
  try {
    file = await around(() => volume.open(path, openFlags(step)));
  } catch (error) {
    return { err: errnoName(error), at: 'open' };
  }
  try {
    return await runOnFile(file, step);
  } catch (error) {
    if (error instanceof NoCounterpart) throw error;
    return { err: errnoName(error) };
  } finally {
    await file.close();
  }
}

/** A security.capability attribute: version 2, effective, CAP_NET_RAW permitted. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');

async function runOnPath(
  volume: Volume,
  path: string,
  step: Extract<Step, { k: 'chmod' | 'setcap' }>,
): Promise<Outcome> {
  if (step.k === 'chmod') await volume.chmod(path, Number.parseInt(step.mode, 8));
  else await volume.setxattr(path, 'security.capability', CAPABILITY);
  return { ret: 0 };
}

/** JavaScript's numbers are exact up to here. */
function checkNumbers(step: Step): void {
  for (const value of Object.values(step))
    if (typeof value === 'number' && !Number.isSafeInteger(value))
      throw new NoCounterpart('a position or length beyond 2^53');
}

async function runOnFile(file: FileHandle, step: Exclude<Step, { k: 'chmod' | 'setcap' }>): Promise<Outcome> {
  switch (step.k) {
    case 'pwrite':
      return { ret: await writeOnce(file, step) };
    case 'pread':
      return readOnce(file, step);
    case 'write':
      return writeOneAfterTheOther(file, step);
    case 'truncate':
      await file.truncate(step.size);
      return { ret: 0 };
    case 'fallocate':
      await file.fallocate(step.pos, step.len, { mode: FALLOCATE_MODES[step.mode] });
      return { ret: 0 };
    case 'seek':
      return {
        ret: step.whence === 'DATA' ? await file.seekData(step.pos) : await file.seekHole(step.pos),
      };
    case 'statx':
      return { fields: await statFields(file) };
    case 'chattr':
    case 'fill':
      throw new Error(`${step.k} is no step of one file`);
    default:
      return step satisfies never;
  }
}

async function writeOnce(file: FileHandle, step: TransferStep): Promise<number> {
  const segments = segmentsOf(step);
  let index = 0;
  for (const segment of segments) {
    patternBytes(step.seed ?? 0, index, segment.length).copy(segment);
    index += segment.length;
  }
  const options = {
    nowait: step.rwf?.includes('NOWAIT') ?? false,
    atomic: step.rwf?.includes('ATOMIC') ?? false,
  };
  if (step.iov !== undefined)
    return (await file.writev(segments, { position: step.pos, ...options })).bytesWritten;
  // An empty buffer never leaves node:fs; an empty part of one does.
  const whole = placed(step.mem ?? 0, Math.max(1, step.len ?? 0));
  const about = { offset: 0, length: step.len ?? 0, position: step.pos, ...options };
  return (await file.write(whole, about)).bytesWritten;
}

async function readOnce(file: FileHandle, step: TransferStep): Promise<Outcome> {
  const segments = segmentsOf(step);
  for (const segment of segments) segment.fill(0);
  const options = { nowait: step.rwf?.includes('NOWAIT') ?? false };
  let ret: number;
  if (step.iov !== undefined)
    ret = (await file.readv(segments, { position: step.pos, ...options })).bytesRead;
  else if (step.len === 0) ret = 0;
  else {
    const about = { offset: 0, length: step.len ?? 0, position: step.pos, ...options };
    ret = (await file.read(segments[0] as Buffer, about)).bytesRead;
  }
  return { ret, data: Buffer.concat(segments).subarray(0, ret) };
}

/** write(2) by write(2): at the descriptor's position, which starts at 0 here; from elsewhere, at the position it would have. */
async function writeOneAfterTheOther(
  file: FileHandle,
  step: Extract<Step, { k: 'write' }>,
): Promise<Outcome> {
  const rets: (number | string)[] = [];
  let index = 0;
  let offset = step.start;
  for (const bytes of step.lens) {
    const memory = placed(0, Math.max(1, bytes));
    patternBytes(step.seed, index, bytes).copy(memory);
    index += bytes;
    const before = (await file.stat()).size;
    try {
      const position = step.start === 0 ? null : offset;
      const { bytesWritten } = await file.write(memory, 0, bytes, position);
      rets.push(bytesWritten);
      if (bytesWritten > 0) offset = (step.oappend === true ? before : offset) + bytesWritten;
    } catch (error) {
      rets.push(errnoName(error));
    }
  }
  return { rets, offset };
}

async function statFields(file: FileHandle): Promise<Record<string, unknown>> {
  const { blksize, dioMemAlign, dioOffsetAlign } = await file.stat();
  return { blksize, dioMemAlign, dioOffsetAlign };
}
