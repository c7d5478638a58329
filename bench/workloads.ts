/** What is measured: each workload turns a file system into steps that a closed loop takes. */
import { Positions, REQUEST_BYTES, type Job } from './sample.js';
import { CACHED_BYTES, type BenchFile, type Target, type Transferred } from './targets.js';

/** The steps of one run. A step returns undefined when there is nothing left to do. */
export interface Steps {
  readonly requestBytes: number;
  promise(buffer: Buffer, slot: number): Promise<Transferred> | undefined;
  sync?(buffer: Buffer): number | undefined;
  finish(): Promise<void>;
}

/** What fio is told. */
export interface FioPart {
  readonly args: readonly string[];
  /** A file that it makes and that is removed after it, with this size; else the written one. */
  readonly file?: string;
  readonly fileBytes?: number;
}

/** A workload. */
export interface Workload {
  readonly name: string;
  readonly title: string;
  /** The queue depths that make a row; the sync API runs at depth 1. */
  readonly depths: readonly number[];
  /** Whether it has a row for the sync API. */
  readonly hasSync: boolean;
  /** What fio does for the same, if it can. */
  readonly fio?: FioPart;
  /** Whether node:fs on the host's own file system takes part. */
  readonly onHost: boolean;
  /** This part of the usual time: appends and allocations fill the volume. */
  readonly share: number;
  start(target: Target, job: Job): Promise<Steps>;
}

const nothing = async (): Promise<void> => {};

/** Bytes that an append or an allocating write may take in one run. */
const ROOM_BYTES = 256 << 20;
/** Sector-sized requests, each inside one block, for the unaligned workload. */
const UNALIGNED_BYTES = 512;

function randomly(
  file: BenchFile,
  kind: 'read' | 'write',
  positions: Positions,
  requestBytes = REQUEST_BYTES,
): Steps {
  return {
    requestBytes,
    promise:
      kind === 'read'
        ? (buffer) => file.read(buffer, 0, requestBytes, positions.next())
        : (buffer) => file.write(buffer, 0, requestBytes, positions.next()),
    sync:
      kind === 'read'
        ? (buffer) => file.readSync(buffer, 0, requestBytes, positions.next())
        : (buffer) => file.writeSync(buffer, 0, requestBytes, positions.next()),
    finish: nothing,
  };
}

/** Steps over a file that is made for the run and removed after it; `next` gives positions until there is no room. */
async function onNewFile(target: Target, bytes: number, next: () => number | undefined): Promise<Steps> {
  const name = 'new.dat';
  const file = await target.create(name, true);
  if (bytes > 0) await file.truncate(bytes);
  return {
    requestBytes: REQUEST_BYTES,
    promise: (buffer) => {
      const position = next();
      return position === undefined ? undefined : file.write(buffer, 0, REQUEST_BYTES, position);
    },
    sync: (buffer) => {
      const position = next();
      return position === undefined ? undefined : file.writeSync(buffer, 0, REQUEST_BYTES, position);
    },
    finish: async () => {
      await file.close();
      await target.remove(name);
    },
  };
}

/** Each of the first `count` blocks once, in an order that looks random (an odd step through a power of two). */
function everyBlockOnce(count: number, seed: number): () => number | undefined {
  const step = ((((seed * 2654435761) % 2 ** 32) | 1) >>> 0) % count;
  let index = 0;
  return () => {
    if (index >= count) return undefined;
    index += 1;
    return ((index * step) % count) * REQUEST_BYTES;
  };
}

/** Each slot appends to a file of its own and makes it durable. */
async function appendAndDatasync(target: Target, files: number): Promise<Steps> {
  const names = Array.from({ length: files }, (_, index) => `log${index}`);
  const logs = await Promise.all(names.map((name) => target.create(name, false)));
  const sizes = new Float64Array(files);
  return {
    requestBytes: REQUEST_BYTES,
    promise: async (buffer, slot) => {
      const log = logs[slot] as BenchFile;
      const position = sizes[slot] as number;
      sizes[slot] = position + REQUEST_BYTES;
      const written = await log.write(buffer, 0, REQUEST_BYTES, position);
      await log.datasync();
      return written;
    },
    finish: async () => {
      await Promise.all(logs.map((log) => log.close()));
      await Promise.all(names.map((name) => target.remove(name)));
    },
  };
}

export const WORKLOADS: readonly Workload[] = [
  {
    name: 'write',
    title: '4 KiB random direct overwrites',
    depths: [1, 32, 128],
    fio: { args: ['--rw=randwrite', '--norandommap=1'] },
    onHost: true,
    hasSync: true,
    share: 1,
    start: async (target, job) => randomly(target.file, 'write', new Positions(job)),
  },
  {
    name: 'read',
    title: '4 KiB random direct reads',
    depths: [1, 32, 128],
    fio: { args: ['--rw=randread', '--norandommap=1'] },
    onHost: true,
    hasSync: true,
    share: 1,
    start: async (target, job) => randomly(target.file, 'read', new Positions(job)),
  },
  {
    name: 'unaligned',
    title: '512-byte random direct overwrites, inside blocks',
    depths: [1, 32],
    fio: { args: ['--rw=randwrite', '--norandommap=1', `--bs=${UNALIGNED_BYTES}`] },
    onHost: false,
    hasSync: true,
    share: 0.5,
    start: async (target, job) =>
      randomly(target.file, 'write', new Positions(job, UNALIGNED_BYTES), UNALIGNED_BYTES),
  },
  {
    name: 'allocate',
    title: '4 KiB random direct writes into a hole',
    depths: [1, 32],
    fio: { args: ['--rw=randwrite', '--fallocate=none'], file: 'fio.dat', fileBytes: ROOM_BYTES },
    onHost: false,
    hasSync: true,
    share: 0.5,
    start: (target, job) =>
      onNewFile(target, ROOM_BYTES, everyBlockOnce(ROOM_BYTES / REQUEST_BYTES, job.seed)),
  },
  {
    name: 'append',
    title: '4 KiB direct appends',
    depths: [1],
    fio: { args: ['--rw=write', '--fallocate=none'], file: 'fio.dat', fileBytes: ROOM_BYTES },
    onHost: false,
    hasSync: true,
    share: 0.5,
    start: (target) => {
      let end = 0;
      return onNewFile(target, 0, () => {
        if (end >= ROOM_BYTES) return undefined;
        end += REQUEST_BYTES;
        return end - REQUEST_BYTES;
      });
    },
  },
  {
    name: 'cached-read',
    title: '4 KiB buffered reads, in the page cache',
    depths: [1, 32],
    onHost: false,
    hasSync: true,
    share: 0.5,
    start: async (target, { seed }) =>
      randomly(target.cached, 'read', new Positions({ seed, fileBytes: CACHED_BYTES })),
  },
  {
    name: 'cached-write',
    title: '4 KiB buffered overwrites, in the page cache',
    depths: [1, 32],
    onHost: false,
    hasSync: true,
    share: 0.5,
    start: async (target, { seed }) =>
      randomly(target.cached, 'write', new Positions({ seed, fileBytes: CACHED_BYTES })),
  },
  {
    name: 'append-datasync',
    title: '4 KiB buffered append and datasync, a file for each in flight',
    depths: [1, 32],
    onHost: false,
    hasSync: false,
    share: 0.5,
    start: (target, { queueDepth }) => appendAndDatasync(target, queueDepth),
  },
];

/** A workload by its name. */
export function workloadOf(name: string): Workload {
  const found = WORKLOADS.find((workload) => workload.name === name);
  if (found === undefined) throw new Error(`no workload is called ${name}`);
  return found;
}
