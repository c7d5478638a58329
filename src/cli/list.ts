import type { Dirent, Stats, Volume } from '../index.js';
import { compareBytes, escapeName, isText, joinBytes, pathOf } from './bytes.js';
import type { Shell } from './shell.js';

interface Entry {
  readonly path: Buffer;
  readonly name: Buffer;
  readonly type: string;
  readonly stats: Stats | undefined;
  readonly target: Buffer | undefined;
}

/** Options of `ls`. */
export interface ListOptions {
  readonly long: boolean;
  readonly recursive: boolean;
  readonly json: boolean;
}

function typeOf(inode: Dirent<Buffer> | Stats): string {
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
  path: Buffer,
  base: Buffer,
  options: ListOptions,
): AsyncGenerator<Entry> {
  const children = await volume.readdir(pathOf(path), { withFileTypes: true, encoding: 'buffer' });
  children.sort((a, b) => compareBytes(a.name, b.name));
  for (const child of children) {
    const full = joinBytes(path, child.name);
    const name = base.length === 0 ? child.name : joinBytes(base, child.name);
    yield await entry(volume, full, name, typeOf(child), options);
    if (options.recursive && child.isDirectory()) yield* entries(volume, full, name, options);
  }
}

async function entry(
  volume: Volume,
  path: Buffer,
  name: Buffer,
  type: string,
  options: ListOptions,
): Promise<Entry> {
  const detailed = options.long || options.json;
  const stats = detailed ? await volume.lstat(pathOf(path)) : undefined;
  const target = detailed && type === 'symlink' ? await volume.readlink(pathOf(path), 'buffer') : undefined;
  return { path, name, type, stats, target };
}

function longLine({ name, type, stats, target }: Entry): string {
  const { mode, nlink, uid, gid, size, mtime } = stats as Stats;
  const arrow = target === undefined ? '' : ` -> ${escapeName(target)}`;
  const time = mtime.toISOString().slice(0, 19).replace('T', ' ');
  return `${modeText(type, mode)} ${nlink} ${uid} ${gid} ${String(size).padStart(12)} ${time} ${escapeName(name)}${arrow}`;
}

function jsonEntry({ path, name, type, stats, target }: Entry): object {
  const { ino, mode, nlink, uid, gid, size, blocks, atime, mtime, ctime } = stats as Stats;
  // Bytes that are no text: what stands for them in a string does not lead back.
  const exact = isText(path) ? {} : { pathHex: path.toString('hex'), nameHex: name.toString('hex') };
  return {
    path: path.toString(),
    name: name.toString(),
    ...exact,
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
    target: target?.toString(),
  };
}

/** `ls`: one name a line; a file lists itself. */
export async function list(shell: Shell, volume: Volume, path: string, options: ListOptions): Promise<void> {
  const stats = await volume.lstat(path);
  const found = stats.isDirectory()
    ? entries(volume, Buffer.from(path), Buffer.alloc(0), options)
    : [await entry(volume, Buffer.from(path), Buffer.from(path), typeOf(stats), options)];
  const all: object[] = [];
  for await (const one of found) {
    if (options.json) all.push(jsonEntry(one));
    else await shell.out(`${options.long ? longLine(one) : escapeName(one.name)}\n`);
  }
  if (options.json) await shell.out(`${JSON.stringify(all, undefined, 2)}\n`);
}
