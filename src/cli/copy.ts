/** put, get and cat: files, directories and symbolic links with their modes and times. */
import {
  chmod,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  symlink,
  utimes,
  type FileHandle as HostFile,
} from 'node:fs/promises';
import { basename, join as hostJoin } from 'node:path';

import { allocAligned, type FileHandle, type Volume } from '../index.js';
import { join } from './list.js';
import type { Shell } from './shell.js';
import { timeOf } from './time.js';

const CHUNK_BYTES = 4 * 1024 * 1024;
const PERMISSIONS = 0o7777;

/** Whether a path of the volume leads to a directory. */
export async function isDirectory(volume: Volume, path: string): Promise<boolean> {
  try {
    return (await volume.stat(path)).isDirectory();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** `put`: as `cp`, into a directory that exists, else under the name given. */
export async function put(shell: Shell, volume: Volume, from: string, to: string): Promise<void> {
  const target = (await isDirectory(volume, to)) ? join(to, basename(from)) : to;
  await putOne(shell, volume, from, target, allocAligned(CHUNK_BYTES));
}

async function putOne(shell: Shell, volume: Volume, from: string, to: string, chunk: Buffer): Promise<void> {
  const stats = await lstat(from, { bigint: true });
  if (stats.isSymbolicLink()) {
    await volume.symlink(await readlink(from), to);
    return;
  }
  if (stats.isDirectory()) {
    await volume.mkdir(to, { recursive: true });
    const names = await readdir(from);
    names.sort();
    for (const name of names) await putOne(shell, volume, hostJoin(from, name), join(to, name), chunk);
  } else if (stats.isFile()) {
    await putFile(volume, from, to, chunk);
  } else {
    shell.err(`skipped, neither file, directory nor symbolic link: ${from}`);
    return;
  }
  // After the content, which would move the time of modification.
  await volume.chmod(to, Number(stats.mode) & PERMISSIONS);
  await volume.utimes(to, timeOf(stats.atimeNs), timeOf(stats.mtimeNs));
}

async function putFile(volume: Volume, from: string, to: string, chunk: Buffer): Promise<void> {
  const source = await open(from, 'r');
  try {
    const target = await volume.open(to, 'w');
    try {
      for (;;) {
        const { bytesRead } = await source.read(chunk, 0, chunk.length, null);
        if (bytesRead === 0) break;
        let offset = 0;
        while (offset < bytesRead) {
          const { bytesWritten } = await target.write(chunk, offset, bytesRead - offset, null);
          offset += bytesWritten;
        }
      }
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** `get`: as `cp`, out of the volume, into a directory that exists, else under the name given. */
export async function get(shell: Shell, volume: Volume, from: string, to: string): Promise<void> {
  const there = await lstat(to).catch(() => undefined);
  const name = basename(from);
  const target = there?.isDirectory() === true && name !== '' ? hostJoin(to, name) : to;
  await getOne(shell, volume, from, target);
}

async function getOne(shell: Shell, volume: Volume, from: string, to: string): Promise<void> {
  const stats = await volume.lstat(from, { bigint: true });
  if (stats.isSymbolicLink()) {
    await symlink(await volume.readlink(from), to);
    return;
  }
  if (stats.isDirectory()) {
    await mkdir(to, { recursive: true });
    const names = await volume.readdir(from);
    names.sort();
    // A name is a plain name in a sound volume; a damaged one must not lead out of `to`.
    for (const name of names) {
      if (name === '' || name === '.' || name === '..' || name.includes('/'))
        throw new Error(`a name that is none in ${from}: ${JSON.stringify(name)}`);
      await getOne(shell, volume, join(from, name), hostJoin(to, name));
    }
  } else if (stats.isFile()) {
    await getFile(volume, from, to);
  } else {
    shell.err(`skipped, neither file, directory nor symbolic link: ${from}`);
    return;
  }
  await chmod(to, Number(stats.mode) & PERMISSIONS);
  await utimes(to, timeOf(stats.atimeNs), timeOf(stats.mtimeNs));
}

async function getFile(volume: Volume, from: string, to: string): Promise<void> {
  const source = await volume.open(from, 'r');
  try {
    const target = await open(to, 'w');
    try {
      const { size } = await source.stat();
      const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
      // Holes stay holes.
      for (let end = 0; end < size;) {
        const start = await source.seekData(end).catch(sizeWhereNoneFollows(size));
        end = start < size ? await source.seekHole(start) : size;
        await copyRange(source, target, { start, end, chunk });
      }
      await target.truncate(size);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** ENXIO: no data follows. */
function sizeWhereNoneFollows(size: number): (error: NodeJS.ErrnoException) => number {
  return (error) => {
    if (error.code === 'ENXIO') return size;
    throw error;
  };
}

async function copyRange(
  source: FileHandle,
  target: HostFile,
  range: { readonly start: number; readonly end: number; readonly chunk: Buffer },
): Promise<void> {
  const { end, chunk } = range;
  let position = range.start;
  while (position < end) {
    const { bytesRead } = await source.read(chunk, 0, Math.min(chunk.length, end - position), position);
    if (bytesRead === 0) return;
    let offset = 0;
    while (offset < bytesRead) {
      const { bytesWritten } = await target.write(chunk, offset, bytesRead - offset, position + offset);
      offset += bytesWritten;
    }
    position += bytesRead;
  }
}

/** `cat`. */
export async function cat(shell: Shell, volume: Volume, path: string): Promise<void> {
  const file = await volume.open(path, 'r');
  try {
    const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
      if (bytesRead === 0) return;
      await shell.out(chunk.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}
