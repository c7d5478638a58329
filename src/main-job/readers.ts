/** The two trees that the copied one is compared with: the volume itself, and the kernel's mount of it. */
import type { BigIntStats as HostStats } from 'node:fs';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

import { allocAligned, constants, type BigIntStats, type Volume } from '../index.js';
import { volumePath } from './copy-in.js';
import { READS_IN_FLIGHT, type Found, type Reader } from './verify.js';

const CHUNK_BYTES = 1024 * 1024;

function found(stats: HostStats | BigIntStats): Found {
  const types = [
    [stats.isFile(), 'file'],
    [stats.isDirectory(), 'directory'],
    [stats.isSymbolicLink(), 'symlink'],
  ] as const;
  return {
    type: types.find(([is]) => is)?.[1] ?? 'other',
    mode: Number(stats.mode) & 0o7777,
    mtimeNs: stats.mtimeNs,
    sizeBytes: Number(stats.size),
  };
}

/** Anything that reads like a FileHandle. */
interface Readable {
  read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
}

async function readAllOf(file: Readable, chunk: Buffer, take: (data: Uint8Array) => void): Promise<void> {
  let position = 0;
  for (;;) {
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    if (bytesRead > 0) take(chunk.subarray(0, bytesRead));
    position += bytesRead;
    // Short is the end: a further direct read would begin inside a block.
    if (bytesRead < chunk.length) return;
  }
}

/** The tree below `root` in a volume, read directly. */
export function volumeReader(volume: Volume, root: string): Reader {
  const chunks = Array.from({ length: READS_IN_FLIGHT }, () => allocAligned(CHUNK_BYTES));
  const at = (path: string): string => volumePath(root, path);
  return {
    stat: async (path) => found(await volume.lstat(at(path), { bigint: true })),
    list: (path) => volume.readdir(at(path)),
    readlink: (path) => volume.readlink(at(path), 'buffer'),
    read: async (path, worker, take) => {
      const file = await volume.open(at(path), constants.O_RDONLY | constants.O_DIRECT);
      try {
        await readAllOf(file, chunks[worker] as Buffer, take);
      } finally {
        await file.close();
      }
    },
  };
}

/** The tree below `root` on the host. */
export function hostReader(root: string): Reader {
  const at = (path: string): string => join(root, path);
  const chunks = Array.from({ length: READS_IN_FLIGHT }, () => Buffer.alloc(CHUNK_BYTES));
  return {
    stat: async (path) => found(await lstat(at(path), { bigint: true })),
    list: (path) => readdir(at(path)),
    readlink: (path) => readlink(at(path), 'buffer'),
    read: async (path, worker, take) => {
      const file = await open(at(path), 'r');
      try {
        await readAllOf(file, chunks[worker] as Buffer, take);
      } finally {
        await file.close();
      }
    },
  };
}
