/** uext4, node:fs and fio: each does the same job on a file of the same size. */
import { closeSync, constants, readSync, writeSync } from 'node:fs';
import { open, type FileHandle as NodeFileHandle } from 'node:fs/promises';

import { Volume, allocAligned, type EngineName, type VolumeInfo } from '../src/index.js';
import { closedLoop, syncLoop } from './closed-loop.js';
import { REQUEST_BYTES, type Contestant, type Job, type Sample } from './sample.js';
import { runProgram } from './tools.js';
import type { Undo } from './undo.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const FILL_BYTES = 1 << 20;

interface Writable {
  write(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>;
  sync(): Promise<void>;
}

/** Writes the whole file, so that everything after it is an overwrite of written blocks. */
async function fill(file: Writable, fileBytes: number): Promise<void> {
  const buffer = allocAligned(FILL_BYTES);
  for (let index = 0; index < FILL_BYTES; index += 4) buffer.writeUInt32LE((index * 2654435761) >>> 0, index);
  for (let position = 0; position < fileBytes; position += FILL_BYTES) {
    const { bytesWritten } = await file.write(buffer, 0, FILL_BYTES, position);
    if (bytesWritten !== FILL_BYTES)
      throw new Error(`filling the file stopped at ${position + bytesWritten}`);
  }
  await file.sync();
}

/** Bytes of a container for a file of `fileBytes`: room for the journal and the inode tables. */
export function containerBytes(fileBytes: number): number {
  return fileBytes + Math.ceil(fileBytes / 8) + (256 << 20);
}

/** uext4 on a container: the promise API, and the sync API at queue depth 1. */
export async function uext4Contestants(
  container: string,
  options: { fileBytes: number; engine: EngineName },
): Promise<{ info: VolumeInfo; contestants: Contestant[] }> {
  await Volume.format(container, { sizeBytes: containerBytes(options.fileBytes) });
  const volume = await Volume.open(container, { direct: true, engine: options.engine });
  const file = await volume.open('/bench.dat', 'w+');
  await fill(file, options.fileBytes);
  const promise: Contestant = {
    name: 'uext4',
    run: (job) =>
      job.op === 'write'
        ? closedLoop(job, (buffer, position) => file.write(buffer, 0, REQUEST_BYTES, position))
        : closedLoop(job, (buffer, position) => file.read(buffer, 0, REQUEST_BYTES, position)),
    close: async () => {
      await file.close();
      await volume.close();
    },
  };
  const sync: Contestant = {
    name: 'uext4 sync',
    depths: [1],
    run: (job) =>
      job.op === 'write'
        ? syncLoop(job, (buffer, position) => file.writeSync(buffer, 0, REQUEST_BYTES, position))
        : syncLoop(job, (buffer, position) => file.readSync(buffer, 0, REQUEST_BYTES, position)),
    close: async () => {},
  };
  return { info: volume.info(), contestants: [promise, sync] };
}

/** Makes and fills a file of the host's, and opens it for direct I/O. @throws EINVAL where it offers none */
async function openHostFile(path: string, fileBytes: number, undo: Undo): Promise<NodeFileHandle> {
  const handle = await open(path, O_RDWR | O_CREAT | O_DIRECT, 0o600);
  let closed = false;
  // An open file would keep its file system mounted.
  undo.push(() => {
    if (!closed && handle.fd >= 0) closeSync(handle.fd);
    closed = true;
  });
  const close = handle.close.bind(handle);
  handle.close = async () => {
    closed = true;
    await close();
  };
  await fill(handle, fileBytes);
  return handle;
}

/** node:fs with its default pool: FileHandle, and with `withSync` the sync calls at queue depth 1. */
export async function nodeContestants(
  path: string,
  options: { name: string; fileBytes: number; withSync: boolean; undo: Undo },
): Promise<Contestant[]> {
  const { name } = options;
  const handle = await openHostFile(path, options.fileBytes, options.undo);
  const { fd } = handle;
  const promise: Contestant = {
    name,
    run: (job) =>
      job.op === 'write'
        ? closedLoop(job, (buffer, position) => handle.write(buffer, 0, REQUEST_BYTES, position))
        : closedLoop(job, (buffer, position) => handle.read(buffer, 0, REQUEST_BYTES, position)),
    close: () => handle.close(),
  };
  if (!options.withSync) return [promise];
  const sync: Contestant = {
    name: `${name} sync`,
    depths: [1],
    run: (job) =>
      job.op === 'write'
        ? syncLoop(job, (buffer, position) => writeSync(fd, buffer, 0, REQUEST_BYTES, position))
        : syncLoop(job, (buffer, position) => readSync(fd, buffer, 0, REQUEST_BYTES, position)),
    close: async () => {},
  };
  return [promise, sync];
}

/** The part of fio's JSON that is read. */
interface FioOutput {
  readonly jobs: readonly [FioJob];
}
interface FioJob {
  readonly job_runtime: number;
  readonly usr_cpu: number;
  readonly sys_cpu: number;
  readonly read: FioDirection;
  readonly write: FioDirection;
}
interface FioDirection {
  readonly total_ios: number;
  readonly runtime: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

function sampleOf(output: string, job: Job): Sample {
  // fio may print warnings before its JSON.
  const [found] = (JSON.parse(output.slice(output.indexOf('{'))) as FioOutput).jobs;
  const { total_ios: ops, runtime, clat_ns: latency } = found[job.op];
  const seconds = runtime / 1000;
  const cpuMicros = ((found.usr_cpu + found.sys_cpu) / 100) * found.job_runtime * 1000;
  return {
    ops,
    seconds,
    iops: ops / seconds,
    cpuMicrosPerOp: cpuMicros / ops,
    p50Micros: (latency.percentile?.['50.000000'] ?? 0) / 1000,
    p99Micros: (latency.percentile?.['99.000000'] ?? 0) / 1000,
  };
}

/** fio at its best with io_uring: registered file and buffers, one submission per batch, one job. */
export function fioContestant(path: string, name: string): Contestant {
  return {
    name,
    run: async (job) => {
      const output = await runProgram('fio', [
        '--name=bench',
        `--filename=${path}`,
        `--rw=rand${job.op}`,
        `--bs=${REQUEST_BYTES}`,
        `--size=${job.fileBytes}`,
        '--direct=1',
        '--ioengine=io_uring',
        '--fixedbufs=1',
        '--registerfiles=1',
        `--iodepth=${job.queueDepth}`,
        `--iodepth_batch_submit=${job.queueDepth}`,
        '--numjobs=1',
        '--norandommap=1',
        '--scramble_buffers=0',
        `--randseed=${job.seed}`,
        '--time_based=1',
        `--runtime=${Math.round(job.seconds * 1000)}ms`,
        '--allow_file_create=0',
        '--output-format=json',
      ]);
      return sampleOf(output, job);
    },
    close: async () => {},
  };
}
