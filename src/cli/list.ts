import type { Dirent, Stats, Volume } from '../index.js';
import type { Shell } from './shell.js';

interface Entry {
  readonly path: string;
  readonly name: string;
  readonly type: string;
  readonly stats: Stats | undefined;
  readonly target: string | undefined;
}

/** Options of `ls`. */
export interface ListOptions {
  readonly long: boolean;
  readonly recursive: boolean;
  readonly json: boolean;
}

function typeOf(inode: Dirent | Stats): string {
  if (inode.isFile()) return 'file';
  if (inode.isDirectory()) return 'directory';
  if (inode.isSymbolicLink()) return 'symlink';
  if (inode.isCharacterDevice()) return 'character device';
  if (inode.isBlockDevice()) return 'block device';
  return inode.isFIFO() ? 'fifo' : 'socket';
}

/** Joins a directory and a name inside a volume. */
export function join(directory: string, name: string): string {
  return directory.endsWith('/') ? directory + name : `${directory}/${name}`;
}

function modeText(type: string, mode: number): string {
  const kind = { file: '-', directory: 'd', symlink: 'l', fifo: 'p', socket: 's' }[type] ?? type[0];
  const bits = ['r', 'w', 'x', 'r', 'w', 'x', 'r', 'w', 'x'].map((bit, index) =>
    (mode >> (8 - index)) & 1 ? bit : '-',
  );
  if (mode & 0o4000) bits[2] = bits[2] === 'x' ? 's' : 'S';
  if (mode & 0o2000) bits[5] = bits[5] === 'x' ? 's' : 'S';
  if (mode & 0o1000) bits[8] = bits[8] === 'x' ? 't' : 'T';
  return `${kind}${bits.join('')}`;
}

async function* entries(
  volume: Volume,
  path: string,
  base: string,
  options: ListOptions,
): AsyncGenerator<Entry> {
  const children = await volume.readdir(path, { withFileTypes: true });
  children.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const child of children) {
    const full = join(path, child.name);
    const name = base === '' ? child.name : `${base}/${child.name}`;
    yield await entry(volume, full, name, typeOf(child), options);
    if (options.recursive && child.isDirectory()) yield* entries(volume, full, name, options);
  }
}

async function entry(
  volume: Volume,
  path: string,
  name: string,
  type: string,
  options: ListOptions,
): Promise<Entry> {
  const detailed = options.long || options.json;
  const stats = detailed ? await volume.lstat(path) : undefined;
  const target = detailed && type === 'symlink' ? await volume.readlink(path) : undefined;
  return { path, name, type, stats, target };
}

function longLine({ name, type, stats, target }: Entry): string {
  const { mode, nlink, uid, gid, size, mtime } = stats as Stats;
  const arrow = target === undefined ? '' : ` -> ${target}`;
  const time = mtime.toISOString().slice(0, 19).replace('T', ' ');
  return `${modeText(type, mode)} ${nlink} ${uid} ${gid} ${String(size).padStart(12)} ${time} ${name}${arrow}`;
}

function jsonEntry({ path, name, type, stats, target }: Entry): object {
  const { ino, mode, nlink, uid, gid, size, blocks, atime, mtime, ctime } = stats as Stats;
  return {
    path,
    name,
    type,
    ino,
    mode: mode & 0o7777,
    nlink,
    uid,
    gid,
    size,
    blocks,
    atime,
    mtime,
    ctime,
    target,
  };
}

/** `ls`: one name a line; a file lists itself. */
export async function list(shell: Shell, volume: Volume, path: string, options: ListOptions): Promise<void> {
  const stats = await volume.lstat(path);
  const found = stats.isDirectory()
    ? entries(volume, path, '', options)
    : [await entry(volume, path, path, typeOf(stats), options)];
  const all: object[] = [];
  for await (const one of found) {
    if (options.json) all.push(jsonEntry(one));
    else await shell.out(`${options.long ? longLine(one) : one.name}\n`);
  }
  if (options.json) await shell.out(`${JSON.stringify(all, undefined, 2)}\n`);
}
