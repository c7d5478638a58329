/** put, get and cat: trees with their owners, modes, times, hard links and holes, as `cp -a` copies them. */
import { constants } from 'node:fs';
import {
  lchown,
  link,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  readlink,
  stat,
  symlink,
  unlink,
  type FileHandle as HostFile,
} from 'node:fs/promises';
import { basename, posix } from 'node:path';

import { allocAligned, type BigIntStats, type FileHandle, type Volume } from '../index.js';
import { compareBytes, escapeName, escapeText, joinBytes, pathOf } from './bytes.js';
import type { Shell } from './shell.js';
import { timeOf } from './time.js';

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;
const CHUNK_BYTES = 4 * 1024 * 1024;
const HOLE_BYTES = 4096;
const PERMISSIONS = 0o7777;
const SET_IDS = 0o6000;
const PRIVATE = 0o600;
const PRIVATE_DIRECTORY = 0o700;

/** What both sides say of an inode. */
type Inode = Pick<
  BigIntStats,
  'dev' | 'ino' | 'mode' | 'nlink' | 'uid' | 'gid' | 'atimeNs' | 'mtimeNs' | 'isDirectory'
>;

/** A copy under way: what could not be kept, and which inodes it has made. */
class Copy {
  #isWhole = true;
  readonly #first = new Map<string, Buffer>();

  constructor(readonly shell: Shell) {}

  /** The exit status so far. */
  get status(): number {
    return this.#isWhole ? 0 : 1;
  }

  /** Says what is not kept. */
  lost(what: string, path: Buffer): void {
    this.#isWhole = false;
    this.shell.err(`uext4: ${escapeText(what)}: ${escapeName(path)}`);
  }

  /** Where the copy of another name of the same inode lies. */
  twin(stats: Inode): Buffer | undefined {
    return this.#first.get(keyOf(stats));
  }

  /** What has more names than the one that lies at `path` now. */
  made(stats: Inode, path: Buffer): void {
    if (stats.nlink > 1n && !stats.isDirectory()) this.#first.set(keyOf(stats), path);
  }
}

function keyOf({ dev, ino }: Inode): string {
  return `${dev}:${ino}`;
}

/** An error that names no path names the file that was copied. */
async function naming<T>(path: Buffer, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error && (error as NodeJS.ErrnoException).path === undefined) {
      error.message += `: ${path.toString()}`;
      Object.assign(error, { path: path.toString() });
    }
    throw error;
  }
}

/** Whether a path of the volume leads to a directory. */
export async function isDirectory(volume: Volume, path: string): Promise<boolean> {
  try {
    return (await volume.stat(path)).isDirectory();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** `put`: as `cp -a`, into a directory that exists, else under the name given. Resolves with the exit status. */
export async function put(shell: Shell, volume: Volume, from: string, to: string): Promise<number> {
  const target = (await isDirectory(volume, to)) ? posix.join(to, basename(from)) : to;
  const copy = new Copy(shell);
  const chunk = allocAligned(CHUNK_BYTES);
  await putOne(copy, volume, Buffer.from(from), Buffer.from(target), chunk);
  return copy.status;
}

async function putOne(copy: Copy, volume: Volume, from: Buffer, to: Buffer, chunk: Buffer): Promise<void> {
  const stats = await lstat(from, { bigint: true });
  const at = pathOf(to);
  const twin = copy.twin(stats);
  if (twin !== undefined) {
    await makeRoomIn(volume, at);
    await volume.link(pathOf(twin), at);
    return;
  }
  if (stats.isSymbolicLink()) {
    const target = await readlink(from, 'buffer');
    await makeRoomIn(volume, at);
    await volume.symlink(target, at);
  } else if (stats.isDirectory()) {
    await putDirectory(copy, volume, from, to, chunk);
  } else if (stats.isFile()) {
    await naming(to, () => putFile(volume, from, at, Number(stats.blocks) * 512 < Number(stats.size), chunk));
  } else {
    copy.lost('not copied, neither file, directory nor symbolic link', from);
    return;
  }
  copy.made(stats, to);
  // After the content, which would move the time of modification; the owner before the mode, whose bits it may cost.
  await volume.lchown(at, Number(stats.uid), Number(stats.gid));
  if (!stats.isSymbolicLink()) await volume.chmod(at, Number(stats.mode) & PERMISSIONS);
  await volume.lutimes(at, timeOf(stats.atimeNs), timeOf(stats.mtimeNs));
}

/** A file or link of the volume that is there goes: nothing is written through it, nor read by others meanwhile. */
async function makeRoomIn(volume: Volume, at: string | Buffer): Promise<void> {
  const there = await volume.lstat(at).catch(() => undefined);
  if (there !== undefined && !there.isDirectory()) await volume.unlink(at);
}

async function putDirectory(
  copy: Copy,
  volume: Volume,
  from: Buffer,
  to: Buffer,
  chunk: Buffer,
): Promise<void> {
  const at = pathOf(to);
  try {
    await volume.mkdir(at, typeof at === 'string' ? { recursive: true } : PRIVATE_DIRECTORY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !(await volume.stat(at)).isDirectory())
      throw error;
  }
  const names = await readdir(from, 'buffer');
  names.sort(compareBytes);
  for (const name of names) await putOne(copy, volume, joinBytes(from, name), joinBytes(to, name), chunk);
}

async function putFile(
  volume: Volume,
  from: Buffer,
  to: string | Buffer,
  isSparse: boolean,
  chunk: Buffer,
): Promise<void> {
  const source = await open(from, O_RDONLY | O_NOFOLLOW);
  try {
    await makeRoomIn(volume, to);
    const target = await volume.open(to, 'wx', PRIVATE);
    try {
      let position = 0;
      for (;;) {
        const { bytesRead } = await source.read(chunk, 0, chunk.length, position);
        if (bytesRead === 0) break;
        await writeParts(target, chunk.subarray(0, bytesRead), position, isSparse);
        position += bytesRead;
      }
      if (isSparse) await target.truncate(position);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** Writes a piece; of a file with holes, without the blocks of zeros. */
async function writeParts(
  target: FileHandle,
  data: Buffer,
  position: number,
  isSparse: boolean,
): Promise<void> {
  const isZero = (at: number): boolean => data.subarray(at, at + HOLE_BYTES).every((byte) => byte === 0);
  for (let start = 0; start < data.length;) {
    let end = isSparse ? start : data.length;
    while (end < data.length && !isZero(end)) end += HOLE_BYTES;
    end = Math.min(end, data.length);
    while (start < end) {
      const { bytesWritten } = await target.write(data, start, end - start, position + start);
      start += bytesWritten;
    }
    start = isSparse ? end + HOLE_BYTES : end;
  }
}

/** `get`: as `cp -a`, out of the volume, into a directory that exists, else under the name given. The exit status. */
export async function get(shell: Shell, volume: Volume, from: string, to: string): Promise<number> {
  const copy = new Copy(shell);
  // The one link that is followed: the user has named it.
  const there = await stat(to).catch(() => undefined);
  const name = basename(from);
  const target = there?.isDirectory() === true && name !== '' ? posix.join(to, name) : to;
  await getOne(copy, volume, Buffer.from(from), { at: Buffer.from(target), called: Buffer.from(target) });
  return copy.status;
}

/** A place on the host: how it is reached, without a link on the way, and what it is called. */
interface Place {
  readonly at: Buffer;
  readonly called: Buffer;
}

async function getOne(copy: Copy, volume: Volume, from: Buffer, to: Place): Promise<void> {
  const path = pathOf(from);
  const stats = await volume.lstat(path, { bigint: true });
  const twin = copy.twin(stats);
  if (twin !== undefined) {
    await makeRoom(to.at);
    await link(twin, to.at);
    return;
  }
  if (stats.isSymbolicLink()) {
    const target = await volume.readlink(path, 'buffer');
    await makeRoom(to.at);
    await symlink(target, to.at);
    copy.made(stats, to.called);
    if (!(await keepOwner(stats, to.at))) copy.lost('the owner is not kept', to.called);
    await lutimes(to.at, timeOf(stats.atimeNs), timeOf(stats.mtimeNs));
    return;
  }
  if (stats.isDirectory()) {
    await getDirectory(copy, volume, from, to, stats);
  } else if (stats.isFile()) {
    await naming(to.called, () => getFile(copy, volume, path, to, stats));
  } else {
    copy.lost('not copied, neither file, directory nor symbolic link', from);
    return;
  }
  copy.made(stats, to.called);
  const attributes = await volume.listxattr(path);
  if (attributes.length > 0) copy.lost(`attributes are not kept (${attributes.join(' ')})`, to.called);
}

/** A file or link that is there goes: nothing is written through it. */
async function makeRoom(at: Buffer): Promise<void> {
  const there = await lstat(at).catch(() => undefined);
  if (there !== undefined && !there.isDirectory()) await unlink(at);
}

/** Whether the owner is as in the volume. Only root may give files away. */
async function keepOwner({ uid, gid }: Inode, at: Buffer): Promise<boolean> {
  const now = await lstat(at, { bigint: true });
  if (now.uid === uid && now.gid === gid) return true;
  return lchown(at, Number(uid), Number(gid)).then(
    () => true,
    () => false,
  );
}

/** Owner, mode and times of what is open. Without its owner nothing is set-user-ID or set-group-ID. */
async function keepAttributes(copy: Copy, stats: Inode, file: HostFile, called: Buffer): Promise<void> {
  const kept = await chownOpen(stats, file);
  if (!kept) copy.lost('the owner is not kept', called);
  await file.chmod(Number(stats.mode) & (kept ? PERMISSIONS : PERMISSIONS & ~SET_IDS));
  await file.utimes(timeOf(stats.atimeNs), timeOf(stats.mtimeNs));
}

async function chownOpen({ uid, gid }: Inode, file: HostFile): Promise<boolean> {
  const now = await file.stat({ bigint: true });
  if (now.uid === uid && now.gid === gid) return true;
  return file.chown(Number(uid), Number(gid)).then(
    () => true,
    () => false,
  );
}

async function getDirectory(
  copy: Copy,
  volume: Volume,
  from: Buffer,
  to: Place,
  stats: Inode,
): Promise<void> {
  await mkdir(to.at, PRIVATE_DIRECTORY).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  // Below a descriptor: what an entry of the volume is called leads nowhere else, and no link is followed.
  const directory = await open(to.at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const names = await volume.readdir(pathOf(from), 'buffer');
    names.sort(compareBytes);
    for (const name of names) {
      // A name is a plain name in a sound volume; a damaged one must not lead out of `to`.
      if (['', '.', '..'].includes(name.toString()) || name.includes('/'))
        throw new Error(`a name that is none in ${escapeName(from)}: ${escapeName(name)}`);
      const at = joinBytes(Buffer.from(`/proc/self/fd/${directory.fd}`), name);
      await getOne(copy, volume, joinBytes(from, name), { at, called: joinBytes(to.called, name) });
    }
    await keepAttributes(copy, stats, directory, to.called);
  } finally {
    await directory.close();
  }
}

async function getFile(
  copy: Copy,
  volume: Volume,
  from: string | Buffer,
  to: Place,
  stats: Inode,
): Promise<void> {
  const source = await volume.open(from, 'r');
  try {
    await makeRoom(to.at);
    const target = await open(to.at, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, PRIVATE);
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
      await keepAttributes(copy, stats, target, to.called);
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
