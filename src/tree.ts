/** Whole trees of names: `rm`, and `readdir` with `recursive`. Paths are bytes here: a name need not be UTF-8. */
import { named } from './encoding.js';
import { errnoError, invalidType } from './errors.js';
import type { NativeDirectory } from './native/boundary.js';
import { EISDIR, EUCLEAN } from './native/errno.js';
import { Dirent, isUnknownType, typeOfMode } from './stats.js';
import { pathText } from './validate.js';
import type { Volume } from './volume.js';

/** Of `readdir`, in all its forms. */
export interface ReaddirOptions {
  encoding?: BufferEncoding | 'buffer' | null;
  withFileTypes?: boolean;
  recursive?: boolean;
}

/** Options of `rm`. */
export interface RmOptions {
  /** What is missing is no error. */
  force?: boolean | undefined;
  /** Directories too, with all that is in them. */
  recursive?: boolean | undefined;
}

type Names = Pick<Volume, 'lstat' | 'stat' | 'readdir' | 'unlink' | 'rmdir'>;

const SLASH = 0x2f;

function below(directory: Buffer, name: Buffer): Buffer {
  const between = directory.length > 0 && directory.at(-1) !== SLASH ? '/' : '';
  return Buffer.concat([directory, Buffer.from(between), name]);
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** What `work` gives; nothing where a name is missing. */
async function unlessMissing<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Inodes of the directories above one, and its own. */
interface Chain {
  readonly ino: number;
  readonly above: Chain | undefined;
}

/** A directory that contains one above itself is damaged, and has no end. */
function chainTo(ino: number, above: Chain | undefined, path: Buffer): Chain {
  for (let at = above; at !== undefined; at = at.above)
    if (at.ino === ino) throw errnoError(-EUCLEAN, 'scandir', { path: pathText(path) });
  return { ino, above };
}

/** Dirents of what a directory lists. Where the disk says no type (no `filetype`), the inode is asked, as node:fs does. */
export async function direntsOf(
  volume: Pick<Volume, 'lstat'>,
  path: Buffer,
  { names, types, inos }: NativeDirectory,
  encoding: BufferEncoding | 'buffer' | undefined,
): Promise<Dirent<string | Buffer>[]> {
  const parent = pathText(path);
  const entries: Dirent<string | Buffer>[] = [];
  for (const [index, name] of names.entries()) {
    let type = types[index] ?? 0;
    if (isUnknownType(type))
      type = typeOfMode((await volume.lstat(below(path, Buffer.from(name as string)))).mode);
    entries.push(new Dirent(named(name, encoding), parent, type, inos[index]));
  }
  return entries;
}

/**
 * What is in a directory and below it, each directory before what it holds; with paths relative to `top`.
 *
 * @throws EUCLEAN where a directory contains one above itself
 */
async function* walk(
  volume: Names,
  top: Buffer,
): AsyncGenerator<{ entry: Dirent<Buffer>; relative: Buffer }, void> {
  const directories: { relative: Buffer; chain?: Chain }[] = [{ relative: Buffer.alloc(0) }];
  for (const { relative: directory, chain } of directories) {
    const path = directory.length === 0 ? top : below(top, directory);
    const entries = await volume.readdir(path, { withFileTypes: true, encoding: 'buffer' });
    const here = chain ?? chainTo((await volume.stat(path)).ino, undefined, path);
    for (const entry of entries) {
      const relative = below(directory, entry.name);
      if (entry.isDirectory())
        directories.push({ relative, chain: chainTo(entry.inode(), here, below(top, relative)) });
      yield { entry, relative };
    }
  }
}

/** `readdir` with `recursive`: paths relative to `top`, or Dirents. */
export async function readTree(
  volume: Names,
  top: Buffer,
  encoding: BufferEncoding | 'buffer' | undefined,
  withFileTypes: boolean,
): Promise<(string | Buffer)[] | Dirent<string | Buffer>[]> {
  const names: (string | Buffer)[] = [];
  const entries: Dirent<string | Buffer>[] = [];
  for await (const { entry, relative } of walk(volume, top)) {
    if (withFileTypes) entries.push(entry.called(named(entry.name, encoding)));
    else names.push(named(relative, encoding));
  }
  return withFileTypes ? entries : names;
}

/** What rmdir answers where something is in the way that can be removed first. */
const NOT_EMPTY = new Set(['ENOTEMPTY', 'EEXIST', 'EPERM']);

/**
 * `rm`, in node:fs's order: a directory goes by `rmdir` first, and only if that says that something is in it, what is in it
 * goes before. So `/link/`, `/dir/.` and their like, which no rmdir takes, lose nothing. What is gone already is no error
 * below the path itself.
 */
export async function remove(volume: Names, path: Buffer, options: RmOptions): Promise<void> {
  for (const name of ['force', 'recursive'] as const) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== 'boolean')
      throw invalidType(`options.${name}`, 'be of type boolean', value);
  }
  const asked = volume.lstat(path);
  const stats = await (options.force === true ? unlessMissing(asked) : asked);
  if (stats === undefined) return;
  if (!stats.isDirectory()) {
    await unlessMissing(volume.unlink(path));
    return;
  }
  if (options.recursive !== true) {
    // node:fs's own code for it.
    throw Object.assign(errnoError(-EISDIR, 'rm', { path: pathText(path) }), { code: 'ERR_FS_EISDIR' });
  }
  await removeDirectory(volume, path, chainTo(stats.ino, undefined, path));
}

async function removeDirectory(volume: Names, path: Buffer, chain: Chain): Promise<void> {
  try {
    await volume.rmdir(path);
    return;
  } catch (error) {
    const code = codeOf(error) ?? '';
    // A link with a slash behind it, which stays.
    if (code === 'ENOTDIR' || code === 'ENOENT') return;
    if (!NOT_EMPTY.has(code)) throw error;
  }
  const entries = await unlessMissing(volume.readdir(path, { withFileTypes: true, encoding: 'buffer' }));
  const directories: Dirent<Buffer>[] = [];
  // Directories last: the path may lead through one of them.
  for (const entry of entries ?? []) {
    if (entry.isDirectory()) directories.push(entry);
    else await unlessMissing(volume.unlink(below(path, entry.name)));
  }
  for (const entry of directories) {
    const child = below(path, entry.name);
    await removeDirectory(volume, child, chainTo(entry.inode(), chain, child));
  }
  await unlessMissing(volume.rmdir(path));
}
