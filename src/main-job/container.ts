/** The container file of the job: where it is, and whether it goes at the end. */
import { rmSync } from 'node:fs';
import { mkdtemp, open, rm, stat, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const SUPERBLOCK_MAGIC_OFFSET = 1024 + 0x38;
const SUPERBLOCK_MAGIC = 0xef53;

/** A reason to stop that is the caller's to mend; its message is one clear line. */
export class JobError extends Error {
  override readonly name = 'JobError';
}

/** A container that is about to be formatted. */
export interface Container {
  readonly path: string;
  /** Removes it, unless it was named by the caller or is to be kept. */
  remove(): Promise<void>;
  /** {@link remove} for a process that ends at once. */
  removeNow(): void;
}

/** Overwriting something else by a slip of the hand would be a pity. */
async function checkOverwritable(path: string): Promise<void> {
  const stats = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new JobError(`--image: ${error.message}`);
  });
  if (stats === undefined || (stats.isFile() && stats.size === 0)) return;
  if (!stats.isFile()) throw new JobError(`--image: ${path} is no regular file`);
  const file = await open(path, 'r');
  try {
    const magic = Buffer.alloc(2);
    await file.read(magic, 0, 2, SUPERBLOCK_MAGIC_OFFSET);
    if (magic.readUInt16LE() !== SUPERBLOCK_MAGIC)
      throw new JobError(`--image: ${path} is there and no ext4 volume; remove it first`);
  } finally {
    await file.close();
  }
}

/** The file that the caller named, or a new one in a folder of its own in the temporary directory. */
export async function makeContainer(image: string | undefined, keep: boolean): Promise<Container> {
  if (image !== undefined) {
    const path = resolve(image);
    await checkOverwritable(path);
    return { path, remove: () => Promise.resolve(), removeNow: () => {} };
  }
  const folder = await mkdtemp(join(tmpdir(), 'uext4-'));
  const options = { recursive: true, force: true };
  return {
    path: join(folder, 'volume.img'),
    remove: () => (keep ? Promise.resolve() : rm(folder, options)),
    removeNow: () => {
      if (!keep) rmSync(folder, options);
    },
  };
}

/** Throws a {@link JobError} when the host file system has no room for `bytes` at `path`. */
export async function checkHostSpace(path: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  const free = bavail * bsize;
  if (free < bytes)
    throw new JobError(
      `${dirname(path)} has ${free} bytes free, the job needs ${bytes}: name another place with --image`,
    );
}
