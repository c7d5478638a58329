/** Whole trees of names: `rm`, and `readdir` with `recursive`. Paths are bytes here: a name need not be UTF-8. */
import { named } from './encoding.js';
import { errnoError, invalidType } from './errors.js';
import { EISDIR } from './native/errno.js';
import type { Dirent } from './stats.js';
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

type Names = Pick<Volume, 'lstat' | 'readdir' | 'unlink' | 'rmdir'>;

const SLASH = 0x2f;

function below(directory: Buffer, name: Buffer): Buffer {
  const between = directory.length > 0 && directory.at(-1) !== SLASH ? '/' : '';
  return Buffer.concat([directory, Buffer.from(between), name]);
}

/** What `work` gives; `otherwise` where a name is missing and that is forgiven. */
async function forgiving<T>(force: boolean, work: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (force && (error as NodeJS.ErrnoException).code === 'ENOENT') return otherwise;
    throw error;
  }
}

/**
 * What is in a directory and below it, each directory before what it holds; with paths relative to `top`. `force`: what
 * others remove meanwhile is empty.
 */
async function* walk(
  volume: Names,
  top: Buffer,
  force = false,
): AsyncGenerator<{ entry: Dirent<Buffer>; relative: Buffer }, void> {
  const directories: Buffer[] = [Buffer.alloc(0)];
  for (const directory of directories) {
    const path = directory.length === 0 ? top : below(top, directory);
    const entries = volume.readdir(path, { withFileTypes: true, encoding: 'buffer' });
    for (const entry of await forgiving(force, entries, [])) {
      const relative = below(directory, entry.name);
      if (entry.isDirectory()) directories.push(relative);
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

/** `rm`. What appears in the tree meanwhile stays, and so do the directories above it: ENOTEMPTY. */
export async function remove(volume: Names, path: Buffer, options: RmOptions): Promise<void> {
  for (const name of ['force', 'recursive'] as const) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== 'boolean')
      throw invalidType(`options.${name}`, 'be of type boolean', value);
  }
  const force = options.force === true;
  const stats = await forgiving(force, volume.lstat(path), undefined);
  if (stats === undefined) return;
  if (!stats.isDirectory()) {
    await forgiving(force, volume.unlink(path), undefined);
    return;
  }
  if (options.recursive !== true) {
    // node:fs's own code for it.
    throw Object.assign(errnoError(-EISDIR, 'rm', { path: pathText(path) }), { code: 'ERR_FS_EISDIR' });
  }
  const directories = [path];
  for await (const { entry, relative } of walk(volume, path, force)) {
    if (entry.isDirectory()) directories.push(below(path, relative));
    else await forgiving(force, volume.unlink(below(path, relative)), undefined);
  }
  for (const directory of directories.toReversed())
    await forgiving(force, volume.rmdir(directory), undefined);
}
