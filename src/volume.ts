import { constants } from 'node:fs';

import { formatContainer, recoverContainer, removeMemory } from './containers.js';
import { defaultEngine } from './default-engine.js';
import { type Engine, type Operation, type Task } from './engine.js';
import { encodingOf, named, splitNames, type EncodingOption } from './encoding.js';
import { closedError, errnoError } from './errors.js';
import { FileHandle } from './file-handle.js';
import { closeInode } from './inode-tasks.js';
import { mkdirAll, mkdirArguments, mkdirOne, type MkdirOptions } from './mkdir.js';
import { Mount } from './mount.js';
import { EBUSY, EROFS } from './native/errno.js';
import type { NativeDirectory, NativeOpenFile, NativeStat } from './native/boundary.js';
import { freeze, remount, shutdown, thaw } from './quiesce.js';
import { truncateInode } from './range-ops.js';
import { request, requestOrThrow, type About, type Outcome, type Start } from './request.js';
import { BigIntStats, Dirent, Stats, isRegularType } from './stats.js';
import { direntsOf, readTree, remove, type ReaddirOptions, type RmOptions } from './tree.js';
import {
  bytesOf,
  parseFlags,
  parseMode,
  parseTimes,
  parseXattrFlag,
  pathText,
  validateBuffer,
  validateIds,
  validateInteger,
  validatePath,
  validateXattrName,
  type PathLike,
  type TimeLike,
  type Times,
} from './validate.js';
import {
  readWhole,
  withFile,
  writeWhole,
  type FileData,
  type ReadFileOptions,
  type WholeReadOptions,
  type WholeWriteOptions,
} from './whole-file.js';
import {
  remountReadOnly,
  shutdownMode,
  type FormatOptions,
  type FormatReport,
  type OpenOptions,
  type RecoverOptions,
  type RecoveryReport,
  type ShutdownName,
  type VolumeInfo,
  type VolumeStats,
} from './volume-options.js';

const { O_CREAT, O_DIRECT, O_RDONLY, O_TRUNC, W_OK } = constants;
const O_ACCMODE = 3;
/**
 * A mounted ext4 volume. Paths are absolute within it; "/" is its root.
 *
 * One volume belongs to one JavaScript environment. Errors have node:fs's shape; damage is EUCLEAN or EBADMSG.
 */
export class Volume {
  readonly #mount: Mount;
  readonly #engine: Engine;
  #active = 0;
  #idle: (() => void) | undefined;
  /** While what was opened read-only is opened anew: every call waits. */
  #reopening: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(mount: Mount) {
    this.#mount = mount;
    this.#engine = mount.engine;
  }

  /**
   * Makes an ext4 file system with the defaults of mke2fs 1.47 in a file or on a block device. A missing file is
   * made; a file is brought to `sizeBytes`. Everything in it is lost.
   *
   * @throws EBUSY (in use), EACCES, ENOSPC, EINVAL (no such geometry), ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE
   */
  static async format(path: PathLike, options: FormatOptions): Promise<FormatReport> {
    return formatContainer(defaultEngine(), path, options);
  }

  /**
   * Mounts a volume: replays its journal if it is dirty, then opens it for reading and writing.
   *
   * @throws EBUSY (in use elsewhere), ENOENT, EINVAL (no ext4 volume), EUCLEAN or EBADMSG (damaged), ENOTSUP (a feature
   *   that is not supported), EROFS (one that is not supported for writing, or a container that cannot be written)
   */
  static async open(path: PathLike, options: OpenOptions = {}): Promise<Volume> {
    return Volume.openOn(defaultEngine(), path, options);
  }

  /**
   * Replays the journal of a volume that was not closed and processes its orphans, as the next opening would, and leaves
   * it closed. A volume that needs nothing is only read.
   *
   * @throws as {@link Volume.open}
   */
  static async recover(path: PathLike, options: RecoverOptions = {}): Promise<RecoveryReport> {
    return recoverContainer(defaultEngine(), path, options);
  }

  /**
   * Gives the memory of a container `memory:NAME` back. One that is never removed stays until the process ends.
   *
   * @throws ENOENT, EBUSY (open)
   */
  static async removeMemory(path: PathLike): Promise<void> {
    await removeMemory(defaultEngine(), path);
  }

  /** @internal */
  static async openOn(engine: Engine, path: PathLike, options: OpenOptions = {}): Promise<Volume> {
    return new Volume(await Mount.open(engine, pathText(validatePath(path)), options));
  }

  /**
   * Opens a file. `flags` as in node:fs ('r', 'w+', …, or a number with `constants.O_DIRECT`), `mode` for a file
   * that is made.
   *
   * @throws ENOENT, EEXIST, EISDIR, ENOTDIR, ELOOP, EROFS, EPERM, ENOSPC
   */
  async open(
    path: PathLike,
    flags: string | number = 'r',
    mode: number | string = 0o666,
  ): Promise<FileHandle> {
    const at = validatePath(path);
    const asked = parseFlags(flags);
    const permissions = parseMode(mode, 'mode', 0o666);
    const all = this.#mount.direct ? asked | O_DIRECT : asked;
    const operation: Operation = { failure: undefined };
    const opening = this.#openTask(at, all, permissions);
    const changes = (all & (O_CREAT | O_TRUNC)) !== 0 || (all & O_ACCMODE) !== O_RDONLY;
    const task = changes ? this.#mount.gate.within(opening) : opening;
    const opened = await this.#track('open', () => this.#engine.run(task, operation));
    if (typeof opened === 'number') throw errnoError(opened, 'open', { path: pathText(at), ...operation });
    return opened;
  }

  *#openTask(path: string | Uint8Array, flags: number, mode: number): Task<FileHandle | number> {
    const mount = this.#mount;
    // Truncation is ours: it needs the inode lock.
    const { result: file, value } = yield* request(mount.engine, (native, op) =>
      native.open(op, mount.handle, path, (flags & ~O_TRUNC) >>> 0, mode),
    );
    if (file < 0) return file;
    const opened = value as NativeOpenFile;
    const { type, size } = opened;
    const inode = mount.acquire(opened);
    const empty = size === 0 && inode.references === 1;
    if ((flags & O_TRUNC) !== 0 && isRegularType(type) && !empty) {
      const truncated = yield* truncateInode({ engine: mount.engine, inode, file }, 0);
      if (truncated < 0) {
        yield* closeInode(mount, inode, file);
        return truncated;
      }
    }
    return new FileHandle({ mount, file, inode, flags, type });
  }

  /**
   * Makes a directory. With `recursive` its missing parents too: then resolves with the first one made, and an
   * existing directory is no error.
   */
  async mkdir(path: PathLike, options?: number | string | MkdirOptions | null): Promise<string | undefined> {
    const at = validatePath(path);
    const { mode, recursive } = mkdirArguments(options);
    const operation: Operation = { failure: undefined };
    const made: { first?: string } = {};
    const mount = this.#mount;
    const task = recursive ? mkdirAll(mount, pathText(at), mode, made) : mkdirOne(mount, at, mode);
    const result = await this.#track('mkdir', () => this.#engine.run(mount.gate.within(task), operation));
    if (result < 0) throw errnoError(result, 'mkdir', { path: pathText(at), ...operation });
    return made.first;
  }

  async readdir(
    path: PathLike,
    options?:
      | BufferEncoding
      | { encoding?: BufferEncoding | null; withFileTypes?: false; recursive?: boolean }
      | null,
  ): Promise<string[]>;
  async readdir(
    path: PathLike,
    options: 'buffer' | { encoding: 'buffer'; withFileTypes?: false; recursive?: boolean },
  ): Promise<Buffer[]>;
  async readdir(
    path: PathLike,
    options: { encoding?: BufferEncoding | null; withFileTypes: true; recursive?: boolean },
  ): Promise<Dirent[]>;
  async readdir(
    path: PathLike,
    options: { encoding: 'buffer'; withFileTypes: true; recursive?: boolean },
  ): Promise<Dirent<Buffer>[]>;
  /** The names in a directory, without "." and "..", or Dirents of them; with `recursive` those below it too. */
  async readdir(
    path: PathLike,
    options?: EncodingOption | ReaddirOptions,
  ): Promise<(string | Buffer)[] | Dirent<string | Buffer>[]> {
    const at = validatePath(path);
    const encoding = encodingOf(options);
    const settings: ReaddirOptions = typeof options === 'object' && options !== null ? options : {};
    const types = settings.withFileTypes === true;
    if (settings.recursive === true) return readTree(this, Buffer.from(at), encoding, types);
    const { value } = await this.#call({ syscall: 'scandir', path: pathText(at) }, (native, op) =>
      native.readdir(op, this.#mount.handle, at),
    );
    const directory = value as NativeDirectory;
    if (!types) return directory.names.map((name) => named(name, encoding));
    return direntsOf(this, Buffer.from(at), directory, encoding);
  }

  /** Removes a name; the file goes when its last name and its last handle have gone. */
  async unlink(path: PathLike): Promise<void> {
    const at = validatePath(path);
    await this.#change({ syscall: 'unlink', path: pathText(at) }, (native, op) =>
      native.unlink(op, this.#mount.handle, at),
    );
  }

  /** Removes a file or, with `recursive`, a directory with all that is in it. @throws ERR_FS_EISDIR */
  async rm(path: PathLike, options: RmOptions = {}): Promise<void> {
    await remove(this, Buffer.from(validatePath(path)), options);
  }

  /** Removes an empty directory. */
  async rmdir(path: PathLike): Promise<void> {
    const at = validatePath(path);
    await this.#change({ syscall: 'rmdir', path: pathText(at) }, (native, op) =>
      native.rmdir(op, this.#mount.handle, at),
    );
  }

  async stat(path: PathLike, options?: { bigint?: false }): Promise<Stats>;
  async stat(path: PathLike, options: { bigint: true }): Promise<BigIntStats>;
  async stat(path: PathLike, options?: { bigint?: boolean }): Promise<Stats | BigIntStats>;
  /** The inode's fields; of a symbolic link, those of its target. */
  async stat(path: PathLike, options: { bigint?: boolean } = {}): Promise<Stats | BigIntStats> {
    return this.#stat('stat', path, true, options);
  }

  async lstat(path: PathLike, options?: { bigint?: false }): Promise<Stats>;
  async lstat(path: PathLike, options: { bigint: true }): Promise<BigIntStats>;
  async lstat(path: PathLike, options?: { bigint?: boolean }): Promise<Stats | BigIntStats>;
  /** The inode's fields; of a symbolic link, its own. */
  async lstat(path: PathLike, options: { bigint?: boolean } = {}): Promise<Stats | BigIntStats> {
    return this.#stat('lstat', path, false, options);
  }

  async #stat(
    syscall: string,
    path: PathLike,
    follow: boolean,
    options: { bigint?: boolean },
  ): Promise<Stats | BigIntStats> {
    const at = validatePath(path);
    const { value } = await this.#call({ syscall, path: pathText(at) }, (native, op) =>
      native.stat(op, this.#mount.handle, at, follow),
    );
    const { blockBytes } = this.#mount.limits;
    return options.bigint === true
      ? new BigIntStats(value as NativeStat, blockBytes)
      : new Stats(value as NativeStat, blockBytes);
  }

  /**
   * Gives a file or directory another name, in place of what has that name: a file, or an empty directory for a
   * directory. After a crash `newPath` is either as it was or as it became.
   */
  async rename(oldPath: PathLike, newPath: PathLike): Promise<void> {
    const from = validatePath(oldPath, 'oldPath');
    const to = validatePath(newPath, 'newPath');
    await this.#change({ syscall: 'rename', path: pathText(from), dest: pathText(to) }, (native, op) =>
      native.rename(op, this.#mount.handle, from, to),
    );
  }

  /** Gives a file one more name. A symbolic link gets it itself, not its target. */
  async link(existingPath: PathLike, newPath: PathLike): Promise<void> {
    const from = validatePath(existingPath, 'existingPath');
    const to = validatePath(newPath, 'newPath');
    await this.#change({ syscall: 'link', path: pathText(from), dest: pathText(to) }, (native, op) =>
      native.link(op, this.#mount.handle, from, to),
    );
  }

  /** Makes a symbolic link at `path` that says `target`. */
  async symlink(target: PathLike, path: PathLike): Promise<void> {
    const to = validatePath(target, 'target');
    const at = validatePath(path);
    await this.#change({ syscall: 'symlink', path: pathText(to), dest: pathText(at) }, (native, op) =>
      native.symlink(op, this.#mount.handle, to, at),
    );
  }

  async readlink(
    path: PathLike,
    options?: BufferEncoding | { encoding?: BufferEncoding | null } | null,
  ): Promise<string>;
  async readlink(path: PathLike, options: 'buffer' | { encoding: 'buffer' }): Promise<Buffer>;
  /** What a symbolic link says. */
  async readlink(path: PathLike, options?: EncodingOption): Promise<string | Buffer> {
    const at = validatePath(path);
    const encoding = encodingOf(options);
    const { value } = await this.#call({ syscall: 'readlink', path: pathText(at) }, (native, op) =>
      native.readlink(op, this.#mount.handle, at),
    );
    return named(value as string | Uint8Array, encoding);
  }

  /** Changes the permission bits; of a symbolic link's target. */
  async chmod(path: PathLike, mode: number | string): Promise<void> {
    const at = validatePath(path);
    const bits = parseMode(mode, 'mode');
    await this.#change({ syscall: 'chmod', path: pathText(at) }, (native, op) =>
      native.chmod(op, this.#mount.handle, at, bits),
    );
  }

  /** Changes the owners, of a symbolic link's target; -1: as it is. */
  async chown(path: PathLike, uid: number, gid: number): Promise<void> {
    await this.#chown('chown', path, uid, gid, true);
  }

  /** Changes the owners, of a symbolic link its own. */
  async lchown(path: PathLike, uid: number, gid: number): Promise<void> {
    await this.#chown('lchown', path, uid, gid, false);
  }

  async #chown(syscall: string, path: PathLike, uid: number, gid: number, follow: boolean): Promise<void> {
    const at = validatePath(path);
    validateIds(uid, gid);
    await this.#change({ syscall, path: pathText(at) }, (native, op) =>
      native.chown(op, this.#mount.handle, at, uid, gid, follow),
    );
  }

  /** Sets the times of access and modification; of a symbolic link's target. */
  async utimes(path: PathLike, atime: TimeLike, mtime: TimeLike): Promise<void> {
    await this.#utimes('utime', path, parseTimes(atime, mtime), true);
  }

  /** Sets the times of access and modification; of a symbolic link its own. */
  async lutimes(path: PathLike, atime: TimeLike, mtime: TimeLike): Promise<void> {
    await this.#utimes('lutime', path, parseTimes(atime, mtime), false);
  }

  async #utimes(syscall: string, path: PathLike, times: Times, follow: boolean): Promise<void> {
    const at = validatePath(path);
    await this.#change({ syscall, path: pathText(at) }, (native, op) =>
      native.utimes(op, this.#mount.handle, at, ...times, follow),
    );
  }

  /**
   * The value of an extended attribute; of a symbolic link's target, as in all four calls.
   *
   * @throws ENODATA (no such attribute), ENOTSUP (no name with a prefix `user.`, `trusted.` or `security.`, or of an
   *   ACL; an ACL is given as ext4 stores it), ERANGE (an empty name, or one above 255 bytes)
   */
  async getxattr(path: PathLike, name: string | Buffer): Promise<Buffer> {
    const at = validatePath(path);
    const attribute = validateXattrName(name);
    const { value } = await this.#call({ syscall: 'getxattr', path: pathText(at) }, (native, op) =>
      native.getxattr(op, this.#mount.handle, at, attribute),
    );
    return Buffer.from(value as string);
  }

  /**
   * Sets an extended attribute. All attributes of a file must fit its inode: 88 bytes of names and values or so with
   * inodes of 256 bytes. `flag` 'create': it must be new; 'replace': it must be there.
   *
   * @throws ENOSPC (does not fit), EEXIST, ENODATA, EPERM (`user.` on what is neither file nor directory), ENOTSUP
   *   (as getxattr, and an ACL), ERANGE, E2BIG (above 64 KiB), EROFS
   */
  async setxattr(
    path: PathLike,
    name: string | Buffer,
    value: string | NodeJS.ArrayBufferView,
    options: { flag?: 'create' | 'replace' } = {},
  ): Promise<void> {
    const at = validatePath(path);
    const attribute = validateXattrName(name);
    if (typeof value !== 'string') validateBuffer(value, 'value');
    const bytes = typeof value === 'string' ? Buffer.from(value) : bytesOf(value);
    const flags = parseXattrFlag(options.flag);
    await this.#change({ syscall: 'setxattr', path: pathText(at) }, (native, op) =>
      native.setxattr(op, this.#mount.handle, at, attribute, bytes, flags),
    );
  }

  async listxattr(
    path: PathLike,
    options?: BufferEncoding | { encoding?: BufferEncoding | null } | null,
  ): Promise<string[]>;
  async listxattr(path: PathLike, options: 'buffer' | { encoding: 'buffer' }): Promise<Buffer[]>;
  /** The names of the extended attributes. */
  async listxattr(path: PathLike, options?: EncodingOption): Promise<(string | Buffer)[]> {
    const at = validatePath(path);
    const encoding = encodingOf(options);
    const { value } = await this.#call({ syscall: 'listxattr', path: pathText(at) }, (native, op) =>
      native.listxattr(op, this.#mount.handle, at),
    );
    return splitNames(Buffer.from(value as string)).map((name) => named(name, encoding));
  }

  /** Removes an extended attribute. */
  async removexattr(path: PathLike, name: string | Buffer): Promise<void> {
    const at = validatePath(path);
    const attribute = validateXattrName(name);
    await this.#change({ syscall: 'removexattr', path: pathText(at) }, (native, op) =>
      native.removexattr(op, this.#mount.handle, at, attribute),
    );
  }

  async readFile(path: PathLike, options?: WholeReadOptions<null | undefined> | null): Promise<Buffer>;
  async readFile(path: PathLike, options: BufferEncoding | WholeReadOptions<BufferEncoding>): Promise<string>;
  async readFile(path: PathLike, options?: ReadFileOptions): Promise<Buffer | string>;
  /** All of a file. With direct I/O, the tail below one device block goes through the page cache. */
  async readFile(path: PathLike, options?: ReadFileOptions): Promise<Buffer | string> {
    return readWhole(options, (flags) => this.open(path, flags));
  }

  /** Whether the path leads to something; permission bits are not enforced. @throws EROFS (`W_OK`, read-only volume) */
  async access(path: PathLike, mode: number = constants.F_OK): Promise<void> {
    const at = validatePath(path);
    validateInteger(mode, 'mode', 0, 7);
    await this.#stat('access', at as Buffer, true, {});
    if ((mode & W_OK) !== 0 && this.info().readOnly)
      throw errnoError(-EROFS, 'access', { path: pathText(at) });
  }

  /** Makes a file `length` bytes long. */
  async truncate(path: PathLike, length: number | null = 0): Promise<void> {
    await withFile(this.open(path, 'r+'), (file) => file.truncate(length));
  }

  /** Replaces (or with flag 'a' appends to) a file. With direct I/O, the tail below one device block is buffered. */
  async writeFile(
    path: PathLike,
    data: FileData,
    options?: BufferEncoding | WholeWriteOptions | null,
  ): Promise<void> {
    return writeWhole(data, options, 'w', (flags, mode) => this.open(path, flags, mode));
  }

  /** Appends to a file, and makes it if it is missing. */
  async appendFile(
    path: PathLike,
    data: FileData,
    options?: BufferEncoding | WholeWriteOptions | null,
  ): Promise<void> {
    return writeWhole(data, options, 'a', (flags, mode) => this.open(path, flags, mode));
  }

  /** Everything written so far is durable when it resolves. */
  async sync(): Promise<void> {
    await this.#call({ syscall: 'sync' }, (native, op) => native.syncVolume(op, this.#mount.handle));
  }

  /**
   * Writes everything and lets nothing change until {@link thaw}: the container is a clean volume that may be copied.
   * Changes wait meanwhile, reads go on; `writeSync` fails with EBUSY.
   *
   * @throws EBUSY (frozen already), EROFS, EIO
   */
  async freeze(): Promise<void> {
    await this.#rest('freeze', freeze(this.#mount));
    // Closed meanwhile: whoever waits must not wait for ever.
    if (this.#closing !== undefined) await this.#engine.run(thaw(this.#mount), { failure: undefined });
  }

  /** Ends a {@link freeze}. @throws EINVAL (not frozen), EIO */
  async thaw(): Promise<void> {
    await this.#rest('thaw', thaw(this.#mount));
  }

  /**
   * Makes the volume read-only, and clean on its container, or writable again. One that was opened with `readOnly` is opened
   * anew for it: no file may be open then, its journal is replayed, and if that fails it is open as before.
   *
   * @throws EBUSY (a file is open for writing or has lost its last name; frozen; opened with `readOnly` and in use, here or
   *   elsewhere), EROFS (read-only since an error, or on a container that cannot be written); those of {@link Volume.open}
   */
  async remount(options: { readOnly: boolean }): Promise<void> {
    const readOnly = remountReadOnly(options);
    if (readOnly || !this.#mount.isReadOnlyContainer || this.#reopening !== undefined) {
      await this.#rest('remount', remount(this.#mount, readOnly));
      return;
    }
    this.#check('remount');
    this.#reopening = this.#reopen().finally(() => {
      this.#reopening = undefined;
    });
    await this.#reopening;
  }

  async #reopen(): Promise<void> {
    await this.#settled();
    if (this.#mount.closers.size > 0) throw errnoError(-EBUSY, 'remount');
    await this.#mount.reopenWritable();
  }

  /**
   * Stops the volume for good: later calls but `close` fail with EIO. 'default' writes everything first and leaves the
   * volume clean, 'logflush' commits first, 'nologflush' does neither: a power cut.
   *
   * @throws EIO (what was to be written first was not; the volume is stopped all the same)
   */
  async shutdown(mode: ShutdownName = 'default'): Promise<void> {
    await this.#rest('shutdown', shutdown(this.#mount, shutdownMode(mode)));
  }

  /** What the volume is: geometry, features, free space, and which backend does its I/O, and why. */
  info(): VolumeInfo {
    this.#checkNow('info');
    return this.#engine.native.volumeInfo(this.#mount.handle);
  }

  /** What the engine has counted since the volume was opened. */
  stats(): VolumeStats {
    this.#checkNow('stats');
    const engine = this.#engine.native.volumeStats(this.#mount.handle);
    return { ...engine, writes: structuredClone(this.#mount.counts) };
  }

  /** Closes the files that are still open, writes everything back and unmounts. Closing twice is no error. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    await this.#reopening?.catch(() => undefined);
    // Where it fails the volume was stopped or is not frozen yet: nobody waits then.
    if (this.#mount.gate.closed) await this.#engine.run(thaw(this.#mount), { failure: undefined });
    await this.#settled();
    const closed = await Promise.allSettled(Array.from(this.#mount.closers, (close) => close()));
    await this.#mount.close();
    for (const outcome of closed) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** Waits until no call is under way. */
  async #settled(): Promise<void> {
    if (this.#active > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  #check(syscall: string): void {
    if (this.#closing !== undefined) throw closedError('volume', syscall);
  }

  #checkNow(syscall: string): void {
    this.#check(syscall);
    if (this.#reopening !== undefined) throw errnoError(-EBUSY, syscall);
  }

  #call(about: About, start: Start): Promise<Outcome> {
    return this.#track(about.syscall, () => requestOrThrow(this.#engine, about, start));
  }

  /** A call that changes the volume: waits while it is frozen. */
  #change(about: About, start: Start): Promise<Outcome> {
    return this.#track(about.syscall, () => requestOrThrow(this.#engine, about, start, this.#mount.gate));
  }

  async #rest(syscall: string, task: Task<number>): Promise<void> {
    const operation: Operation = { failure: undefined };
    const result = await this.#track(syscall, () => this.#engine.run(task, operation));
    if (result < 0) throw errnoError(result, syscall, operation);
  }

  async #track<T>(syscall: string, work: () => Promise<T>): Promise<T> {
    this.#check(syscall);
    while (this.#reopening !== undefined) {
      await this.#reopening.catch(() => undefined);
      this.#check(syscall);
    }
    this.#active += 1;
    try {
      return await work();
    } finally {
      this.#active -= 1;
      if (this.#active === 0) this.#idle?.();
    }
  }
}
