/** A file system that the workloads run on: uext4 in a container, or node:fs in a folder. */
import { closeSync, constants, readSync, readFileSync, writeSync } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import { join } from 'node:path';

import { Volume, allocAligned, type EngineName, type VolumeInfo } from '../src/index.js';
import type { Undo } from './undo.js';

const { O_CREAT, O_DIRECT, O_RDWR, O_TRUNC } = constants;
const FILL_BYTES = 1 << 20;
/** Space for what a run allocates. */
const OTHER_BYTES = 768 << 20;

/** Size of the file whose pages are all in the page cache. */
export const CACHED_BYTES = 32 << 20;

/** What FileHandle.read and FileHandle.write resolve with. */
export interface Transferred {
  readonly bytesRead?: number;
  readonly bytesWritten?: number;
}

/** An open file, of uext4 or of node:fs. */
export interface BenchFile {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<Transferred>;
  write(buffer: Buffer, offset: number, length: number, position: number): Promise<Transferred>;
  readSync(buffer: Buffer, offset: number, length: number, position: number): number;
  writeSync(buffer: Buffer, offset: number, length: number, position: number): number;
  truncate(bytes: number): Promise<void>;
  sync(): Promise<void>;
  datasync(): Promise<void>;
  close(): Promise<void>;
}

/** Requests that reached the device under the file system. */
export interface DeviceCounts {
  readonly writes: number;
  readonly flushes: number;
}

/** A file system with two files in it: one for direct I/O, written from end to end, and one that is in the page cache. */
export interface Target {
  readonly name: string;
  /** Written, opened with O_DIRECT. */
  readonly file: BenchFile;
  /** Written, {@link CACHED_BYTES} long, read once, opened without O_DIRECT. */
  readonly cached: BenchFile;
  /** Makes an empty file. */
  create(name: string, direct: boolean): Promise<BenchFile>;
  remove(name: string): Promise<void>;
  deviceCounts?(): DeviceCounts;
  close(): Promise<void>;
}

/** Bytes of a container for a file of `fileBytes`: room for the others, the journal and the inode tables. */
export function containerBytes(fileBytes: number): number {
  return fileBytes + Math.ceil(fileBytes / 8) + (1024 << 20);
}

function flagsOf(direct: boolean): number {
  return O_RDWR | O_CREAT | O_TRUNC | (direct ? O_DIRECT : 0);
}

/** Writes the whole file, so that everything after it is an overwrite of written blocks. */
async function fill(file: BenchFile, fileBytes: number): Promise<void> {
  const buffer = allocAligned(FILL_BYTES);
  for (let index = 0; index < FILL_BYTES; index += 4) buffer.writeUInt32LE((index * 2654435761) >>> 0, index);
  for (let position = 0; position < fileBytes; position += FILL_BYTES) {
    const { bytesWritten } = await file.write(buffer, 0, FILL_BYTES, position);
    if (bytesWritten !== FILL_BYTES)
      throw new Error(`filling the file stopped at ${position + (bytesWritten ?? 0)}`);
  }
  await file.sync();
}

/** Fills the two files, and writes what the others will use: allocating is to be measured here, not in the container. */
async function prepare(
  target: Pick<Target, 'file' | 'cached' | 'create' | 'remove'>,
  fileBytes: number,
): Promise<void> {
  const { cached } = target;
  const other = await target.create('other.dat', true);
  await fill(other, OTHER_BYTES);
  await fill(target.file, fileBytes);
  await fill(cached, CACHED_BYTES);
  await other.close();
  await target.remove('other.dat');
  const buffer = allocAligned(FILL_BYTES);
  for (let position = 0; position < CACHED_BYTES; position += FILL_BYTES)
    await cached.read(buffer, 0, FILL_BYTES, position);
}

/** uext4 on a container that it makes. */
export async function uext4Target(
  container: string,
  options: { fileBytes: number; engine: EngineName },
): Promise<{ info: VolumeInfo; target: Target }> {
  await Volume.format(container, { sizeBytes: containerBytes(options.fileBytes), force: true });
  const volume = await Volume.open(container, { engine: options.engine });
  const create = (name: string, direct: boolean): Promise<BenchFile> =>
    volume.open(`/${name}`, flagsOf(direct), 0o600);
  const file = await create('bench.dat', true);
  const cached = await create('cached.dat', false);
  const remove = (name: string): Promise<void> => volume.unlink(`/${name}`);
  await prepare({ file, cached, create, remove }, options.fileBytes);
  const target: Target = {
    name: 'uext4',
    file,
    cached,
    create,
    remove,
    deviceCounts: () => {
      const { deviceWrites, deviceFlushes, deviceFuaWrites } = volume.stats();
      // A FUA write makes itself durable: a host that has no FUA flushes for it, and a loop device counts that.
      return { writes: deviceWrites, flushes: deviceFlushes + deviceFuaWrites };
    },
    close: () => volume.close(),
  };
  return { info: volume.info(), target };
}

/** A loop device's own counts (the kernel's Documentation/block/stat: write I/Os and flush I/Os). */
function blockDeviceCounts(device: string): DeviceCounts {
  const fields = readFileSync(`/sys/block/${device}/stat`, 'utf8').trim().split(/\s+/).map(Number);
  return { writes: fields[4] as number, flushes: fields[15] ?? 0 };
}

/** node:fs in a folder; `device`: the name of the block device under it. */
export async function nodeTarget(
  folder: string,
  options: { name: string; fileBytes: number; device?: string; undo: Undo },
): Promise<Target> {
  const { undo, device } = options;
  const opened = new Set<number>();
  // An open file would keep its file system mounted, and undoing waits for no promise.
  undo.push(() => {
    for (const fd of opened) closeSync(fd);
    opened.clear();
  });
  const create = async (name: string, direct: boolean): Promise<BenchFile> => {
    const handle = await open(join(folder, name), flagsOf(direct), 0o600);
    const { fd } = handle;
    opened.add(fd);
    return {
      read: (buffer, offset, length, position) => handle.read(buffer, offset, length, position),
      write: (buffer, offset, length, position) => handle.write(buffer, offset, length, position),
      readSync: (buffer, offset, length, position) => readSync(fd, buffer, offset, length, position),
      writeSync: (buffer, offset, length, position) => writeSync(fd, buffer, offset, length, position),
      truncate: (bytes) => handle.truncate(bytes),
      sync: () => handle.sync(),
      datasync: () => handle.datasync(),
      close: async () => {
        if (opened.delete(fd)) await handle.close();
      },
    };
  };
  const file = await create('bench.dat', true);
  const cached = await create('cached.dat', false);
  const remove = (name: string): Promise<void> => unlink(join(folder, name));
  await prepare({ file, cached, create, remove }, options.fileBytes);
  return {
    name: options.name,
    file,
    cached,
    create,
    remove,
    ...(device === undefined ? {} : { deviceCounts: () => blockDeviceCounts(device) }),
    close: async () => {
      await Promise.all([file.close(), cached.close()]);
    },
  };
}
