import { constants } from 'node:fs';

import { DirectWaiter, type Settle } from './direct-waiter.js';
import { begin, type Engine, type Operation, type Task } from './engine.js';
import { closedError, errnoError } from './errors.js';
import { FileStreams } from './file-streams.js';
import { InodeLock } from './inode-lock.js';
import { closeInode } from './inode-tasks.js';
import { gather, memoryBits, memoryBitsOf, readTarget, scatter, type Segment } from './iov.js';
import { NOT_SUBMITTED, type Kiocb } from './kiocb.js';
import type { Mount, OpenedFile } from './mount.js';
import { SeekWhence, type NativeFile, type NativeStat, type Token } from './native/boundary.js';
import { EAGAIN, EBADF, EBUSY, EINVAL, EISDIR, ENXIO } from './native/errno.js';
import type { OpenInode } from './open-inode.js';
import { fallocateBits, rangeOf, type FallocateOptions, type RangeOptions } from './range-arguments.js';
import {
  checkFallocate,
  extentsOfInode,
  fallocateInode,
  seekInode,
  truncateInode,
  type FileExtent,
  type RangeTarget,
} from './range-ops.js';
import { readHit, readIter, submitDirectRead } from './read-iter/read-iter.js';
import { request, type Start } from './request.js';
import { BigIntStats, Stats, isDirectoryType } from './stats.js';
import {
  readArguments,
  vectorArguments,
  writeArguments,
  type ReadOptions,
  type Transfer,
  type Vector,
  type VectorOptions,
  type WriteOptions,
} from './transfer-arguments.js';
import {
  parseMode,
  parseTime,
  validateBuffer,
  validateIds,
  validateInteger,
  type TimeLike,
} from './validate.js';
import { finishSharedOverwrite } from './write-iter/dio-write.js';
import { isComplete, submitSharedOverwrite } from './write-iter/shared-overwrite.js';
import { writeHit } from './write-iter/write-hit.js';
import { writeIter } from './write-iter/write-iter.js';

const { O_APPEND, O_DIRECT, O_DSYNC, O_RDONLY, O_SYNC, O_WRONLY } = constants;
const O_ACCMODE = 3;

/**
 * An open file of a volume: node:fs's FileHandle.
 *
 * With O_DIRECT (or a volume opened with `direct`) positions, lengths and memory must be multiples of what the
 * device demands, or the call fails with EINVAL; buffers that are not from `allocAligned` are copied and so
 * always well placed. Without it, data is in the page cache until `datasync`, `sync` or `close`.
 */
export class FileHandle extends FileStreams {
  readonly #mount: Mount;
  readonly #engine: Engine;
  readonly #file: NativeFile;
  readonly #inode: OpenInode;
  readonly #flags: number;
  readonly #type: number;
  readonly #isWritable: boolean;
  /** Held by calls without a position until the position has moved. */
  readonly #positionLock: InodeLock;
  readonly #closeSelf = (): Promise<void> => this.close();
  readonly #settleWrite: Settle = (io, result, buffer, resolve) => {
    this.#mount.gate.leave();
    if (isComplete(io, result)) resolve({ bytesWritten: result, buffer });
    else resolve(this.#finishWrite(io, this.#change(finishSharedOverwrite(io, result)), buffer));
    this.#release();
  };
  readonly #settleRead: Settle = (io, bytesRead, buffer, resolve) => {
    if (bytesRead >= 0) resolve({ bytesRead, buffer });
    else resolve(Promise.reject(errnoError(bytesRead, 'read', { failure: io.failure })));
    this.#release();
  };
  #position = 0;
  /** Operations in flight; closing waits for them. */
  #active = 0;
  #idle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(opened: OpenedFile) {
    super();
    this.#mount = opened.mount;
    this.#engine = opened.mount.engine;
    this.#file = opened.file;
    this.#inode = opened.inode;
    this.#flags = opened.flags;
    this.#type = opened.type;
    this.#positionLock = new InodeLock(opened.mount.engine);
    this.#mount.closers.add(this.#closeSelf);
    this.#isWritable = (opened.flags & O_ACCMODE) !== O_RDONLY;
    if (this.#isWritable) this.#mount.writers += 1;
  }

  async read<T extends NodeJS.ArrayBufferView>(
    buffer: T,
    offset?: number | null,
    length?: number | null,
    position?: number | bigint | null,
  ): Promise<{ bytesRead: number; buffer: T }>;
  async read<T extends NodeJS.ArrayBufferView>(
    buffer: T,
    options: Omit<ReadOptions<T>, 'buffer'> | null,
  ): Promise<{ bytesRead: number; buffer: T }>;
  async read<T extends NodeJS.ArrayBufferView = Buffer>(
    options?: ReadOptions<T> | null,
  ): Promise<{ bytesRead: number; buffer: T }>;
  /**
   * Reads up to `length` bytes into `buffer` at `offset`. Resolves with what was read: 0 at the end of the file.
   *
   * @param position in the file; null or left out: the handle's position, which then moves.
   * @throws EBADF (closed, or not open for reading), EISDIR, EINVAL (misaligned direct I/O), EIO
   */
  read<T extends NodeJS.ArrayBufferView = Buffer>(
    buffer?: T | ReadOptions<T> | null,
    offset?: number | null | Omit<ReadOptions<T>, 'buffer'>,
    length?: number | null,
    position?: number | bigint | null,
  ): Promise<{ bytesRead: number; buffer: T }> {
    try {
      this.#check('read');
      const args = readArguments(buffer, offset, length, position);
      if (args.length === 0) return Promise.resolve({ bytesRead: 0, buffer: args.view });
      if (!this.isDirect && this.#isReadable) {
        const bytesRead = this.#hit(this.#kiocb(args, false), args.position, readHit);
        if (bytesRead >= 0) return this.#engine.settled({ bytesRead, buffer: args.view });
      }
      return this.#startDirectRead(args) ?? this.#finishRead(args);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@link read} for a caller that cannot wait; returns the number of bytes. */
  readSync(
    buffer: NodeJS.ArrayBufferView,
    offset?: number | null | Omit<ReadOptions, 'buffer'>,
    length?: number | null,
    position?: number | bigint | null,
  ): number {
    this.#check('read');
    validateBuffer(buffer);
    const args = readArguments<NodeJS.ArrayBufferView>(buffer, offset, length, position);
    if (args.length === 0) return 0;
    const io = this.#kiocb(args, this.isDirect);
    const hit = this.#isReadable ? this.#hit(io, args.position, readHit) : -EAGAIN;
    return hit >= 0 ? hit : this.#runSync('read', io, this.#readTask(io, args.position));
  }

  /** Reads into several buffers, one after the other, as one request. */
  async readv<T extends readonly NodeJS.ArrayBufferView[]>(
    buffers: T,
    position?: number | null | VectorOptions,
  ): Promise<{ bytesRead: number; buffers: T }> {
    this.#check('readv');
    const vector = vectorArguments(buffers, position);
    const io = this.#vectorKiocb(vector, readTarget(vector.segments));
    const bytesRead = await this.#runOrThrow('read', io, this.#readvTask(io, vector));
    return { bytesRead, buffers };
  }

  /** {@link readv} for a caller that cannot wait; returns the number of bytes. */
  readvSync(buffers: readonly NodeJS.ArrayBufferView[], position?: number | null | VectorOptions): number {
    this.#check('readv');
    const vector = vectorArguments(buffers, position);
    const io = this.#vectorKiocb(vector, readTarget(vector.segments));
    return this.#runSync('read', io, this.#readvTask(io, vector));
  }

  /**
   * Writes `length` bytes of `buffer` from `offset` on, or a string (then: position, encoding).
   *
   * Resolves when the data is where it belongs: on the device for direct I/O, durable with O_DSYNC or O_SYNC.
   * The buffer must not change until then.
   *
   * @throws EBADF (closed, or not open for writing), EINVAL (misaligned direct I/O), ENOSPC, EFBIG, EPERM, EROFS, EIO
   */
  write<T extends NodeJS.ArrayBufferView | string>(
    buffer: T,
    offset?: number | null | WriteOptions,
    length?: number | null | BufferEncoding,
    position?: number | null,
  ): Promise<{ bytesWritten: number; buffer: T }> {
    try {
      this.#check('write');
      const args = writeArguments(buffer, offset, length, position);
      if (args.buffer.byteLength === 0) return Promise.resolve({ bytesWritten: 0, buffer });
      const io = this.#kiocb(args, this.isDirect);
      const bytesWritten = this.#isWritable ? this.#hit(io, args.position, writeHit) : -EAGAIN;
      if (bytesWritten >= 0) return this.#engine.settled({ bytesWritten, buffer });
      return (
        this.#startOverwrite(io, args.position, buffer) ??
        this.#finishWrite(io, this.#writeTask(io, args.position), buffer)
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@link write} for a caller that cannot wait; returns the number of bytes. */
  writeSync(
    buffer: NodeJS.ArrayBufferView | string,
    offset?: number | null | WriteOptions,
    length?: number | null | BufferEncoding,
    position?: number | null,
  ): number {
    this.#check('write');
    const args = writeArguments(buffer, offset, length, position);
    if (args.buffer.byteLength === 0) return 0;
    // It would wait for a thaw that nobody could ask for.
    if (this.#mount.gate.closed) throw errnoError(-EBUSY, 'write');
    const io = this.#kiocb(args, this.isDirect);
    const hit = this.#isWritable ? this.#hit(io, args.position, writeHit) : -EAGAIN;
    return hit >= 0 ? hit : this.#runSync('write', io, this.#writeTask(io, args.position));
  }

  /** Writes several buffers, one after the other, as one request. */
  async writev<T extends readonly NodeJS.ArrayBufferView[]>(
    buffers: T,
    position?: number | null | VectorOptions,
  ): Promise<{ bytesWritten: number; buffers: T }> {
    this.#check('writev');
    const vector = vectorArguments(buffers, position);
    if (vector.segments.length === 0) return { bytesWritten: 0, buffers };
    const io = this.#vectorKiocb(vector, gather(vector.segments));
    const bytesWritten = await this.#runOrThrow('write', io, this.#writeTask(io, vector.position));
    return { bytesWritten, buffers };
  }

  /** {@link writev} for a caller that cannot wait; returns the number of bytes. */
  writevSync(buffers: readonly NodeJS.ArrayBufferView[], position?: number | null | VectorOptions): number {
    this.#check('writev');
    const vector = vectorArguments(buffers, position);
    if (vector.segments.length === 0) return 0;
    if (this.#mount.gate.closed) throw errnoError(-EBUSY, 'write');
    const io = this.#vectorKiocb(vector, gather(vector.segments));
    return this.#runSync('write', io, this.#writeTask(io, vector.position));
  }

  async stat(options?: { bigint?: false }): Promise<Stats>;
  async stat(options: { bigint: true }): Promise<BigIntStats>;
  async stat(options: { bigint?: boolean }): Promise<Stats | BigIntStats>;
  /** The inode's fields. */
  async stat(options: { bigint?: boolean } = {}): Promise<Stats | BigIntStats> {
    const { engine, limits } = this.#mount;
    let stat: NativeStat | undefined;
    const file = this.#file;
    function* task(): Task<number> {
      const { result, value } = yield* request(engine, (native, op) => native.fstat(op, file));
      stat = value as NativeStat | undefined;
      return result;
    }
    await this.#simple('fstat', 'fstat', task());
    return options.bigint === true
      ? new BigIntStats(stat as NativeStat, limits.blockBytes)
      : new Stats(stat as NativeStat, limits.blockBytes);
  }

  /**
   * Makes the file `length` bytes long; what is added reads as zeros.
   *
   * @throws EINVAL (not open for writing), EFBIG, ENOSPC, ERR_OUT_OF_RANGE
   */
  async truncate(length: number | null = 0): Promise<void> {
    this.#check('ftruncate');
    const size = length ?? 0;
    validateInteger(size, 'len');
    await this.#simple('ftruncate', 'ftruncate', this.#change(this.#truncateTask(Math.max(0, size))));
  }

  /**
   * Allocates, frees, zeroes or moves `length` bytes from `position` on, as fallocate(2) does. What ran out of space keeps
   * what it got.
   *
   * @throws EINVAL (an empty range; a collapse or insert that is no multiple of blocks, or reaches the end), EBADF (not open
   * for writing), EPERM, EFBIG, ENOSPC, EOPNOTSUPP (not with these options, or not on this file), ESPIPE, ENODEV
   */
  async fallocate(position: number, length: number, options: FallocateOptions = {}): Promise<void> {
    this.#check('fallocate');
    validateInteger(position, 'position');
    validateInteger(length, 'length');
    const bits = fallocateBits(options);
    await this.#simple('fallocate', 'fallocate', this.#change(this.#fallocateTask(bits, position, length)));
  }

  /** The position of the next data at `position` or behind it. ENXIO: there is none. */
  async seekData(position: number): Promise<number> {
    return this.#seek(position, SeekWhence.DATA);
  }

  /** The position of the next hole at `position` or behind it; the end of the file is one. ENXIO: behind that. */
  async seekHole(position: number): Promise<number> {
    return this.#seek(position, SeekWhence.HOLE);
  }

  /** What the file lies on, in order: whatever of the range is more than a hole, as FIEMAP tells it. */
  async extents(options: RangeOptions = {}): Promise<FileExtent[]> {
    this.#check('extents');
    const found: FileExtent[] = [];
    await this.#simple('extents', 'extents', extentsOfInode(this.#target, rangeOf(options), found));
    return found;
  }

  /** Changes the permission bits. */
  async chmod(mode: number | string): Promise<void> {
    const bits = parseMode(mode, 'mode');
    await this.#changeBy('fchmod', 'fchmod', (native, op) => native.fchmod(op, this.#file, bits));
  }

  /** Changes the owners; -1: as it is. */
  async chown(uid: number, gid: number): Promise<void> {
    validateIds(uid, gid);
    await this.#changeBy('fchown', 'fchown', (native, op) => native.fchown(op, this.#file, uid, gid));
  }

  /** Sets the times of access and modification. */
  async utimes(atime: TimeLike, mtime: TimeLike): Promise<void> {
    const a = parseTime(atime, 'atime');
    const m = parseTime(mtime, 'mtime');
    await this.#changeBy('futimes', 'futime', (native, op) =>
      native.futimes(op, this.#file, a.seconds, a.nanoseconds, m.seconds, m.nanoseconds),
    );
  }

  /** fsync: data, size and all of the inode are durable when it resolves. */
  async sync(): Promise<void> {
    await this.#sync('fsync', false);
  }

  /** fdatasync: data, and what is needed to read it back, are durable when it resolves. */
  async datasync(): Promise<void> {
    await this.#sync('fdatasync', true);
  }

  #sync(name: string, datasync: boolean): Promise<number> {
    const start: Start = (native, op) => native.sync(op, this.#file, datasync);
    return this.#simple(name, name, this.#call(start));
  }

  /** Closes the file after the operations that are in flight. Closing twice is no error. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Whether reads and writes are direct. @internal */
  get isDirect(): boolean {
    return (this.#flags & O_DIRECT) !== 0;
  }

  /** What direct I/O on this file is a multiple of. @internal */
  get directAlignBytes(): number {
    return this.#mount.limits.offsetAlignBytes;
  }

  /** One read or write with the path named by the caller; for bodies and tails of whole files. @internal */
  async transfer(kind: 'read' | 'write', direct: boolean, part: Transfer): Promise<number> {
    this.#check(kind);
    const io = this.#kiocb(part, direct);
    const task = kind === 'read' ? this.#readTask(io, part.position) : this.#writeTask(io, part.position);
    return this.#runOrThrow(kind, io, task);
  }

  #check(syscall: string): void {
    if (this.#closing !== undefined) throw closedError('file', syscall);
  }

  #kiocb(part: Transfer, wantsDirect: boolean): Kiocb {
    const flags = this.#flags;
    const direct = wantsDirect && !this.#inode.dax;
    return {
      engine: this.#engine,
      inode: this.#inode,
      file: this.#file,
      limits: this.#inode.limits,
      counts: this.#mount.counts,
      buffer: part.buffer,
      offset: part.offset,
      countBytes: part.length,
      posBytes: part.position,
      memoryBits: direct ? (part.memoryBits ?? memoryBitsOf(part.buffer, part.offset)) : 0,
      direct,
      append: (flags & O_APPEND) !== 0,
      // O_SYNC contains O_DSYNC's bit.
      dsync: (flags & O_DSYNC) !== 0,
      sync: (flags & O_SYNC) === O_SYNC,
      nowait: part.nowait === true,
      atomic: part.atomic === true,
      sharedBecause: undefined,
      failure: undefined,
    };
  }

  get #isReadable(): boolean {
    return (this.#flags & O_ACCMODE) !== O_WRONLY && !isDirectoryType(this.#type);
  }

  #vectorKiocb(vector: Vector, { buffer, offset, length }: Segment): Kiocb {
    const { segments, position, nowait, atomic } = vector;
    const part = { buffer, offset, length, position, nowait, atomic, memoryBits: memoryBits(segments) };
    return this.#kiocb(part, this.isDirect);
  }

  /** The promise of a direct read or overwrite in flight. */
  #wait<R>(io: Kiocb, token: Token, settle: Settle, view: unknown): Promise<R> {
    this.#active += 1;
    return new Promise((resolve) => {
      this.#engine.wait(
        token,
        new DirectWaiter(io, token, settle, view, resolve as (value: unknown) => void),
      );
    });
  }

  /** Through the page cache at once; -EAGAIN where somebody has to be waited for, or the position moves. */
  #hit(io: Kiocb, position: number, transfer: (io: Kiocb) => number): number {
    return position >= 0 && !this.#mount.gate.closed ? transfer(io) : -EAGAIN;
  }

  /** Straight to the device where it is a shared overwrite; else nothing has happened. */
  #startOverwrite<R>(io: Kiocb, position: number, view: unknown): Promise<R> | undefined {
    if (!io.direct || position < 0 || !this.#isWritable) return undefined;
    const { gate } = this.#mount;
    if (!gate.tryEnter()) return undefined;
    let token = NOT_SUBMITTED;
    try {
      token = submitSharedOverwrite(io);
    } finally {
      if (token === NOT_SUBMITTED) gate.leave();
    }
    return token === NOT_SUBMITTED ? undefined : this.#wait(io, token, this.#settleWrite, view);
  }

  async #finishWrite<T>(
    io: Kiocb,
    task: Task<number>,
    buffer: T,
  ): Promise<{ bytesWritten: number; buffer: T }> {
    return { bytesWritten: await this.#runOrThrow('write', io, task), buffer };
  }

  /** Straight from the device where nobody has to be waited for; else nothing has happened. */
  #startDirectRead<R>(part: Transfer & { readonly view: unknown }): Promise<R> | undefined {
    if (!this.isDirect || part.position < 0 || !this.#isReadable) return undefined;
    const io = this.#kiocb(part, true);
    const token = submitDirectRead(io);
    return token === NOT_SUBMITTED ? undefined : this.#wait(io, token, this.#settleRead, part.view);
  }

  async #finishRead<T>(part: Transfer & { readonly view: T }): Promise<{ bytesRead: number; buffer: T }> {
    const io = this.#kiocb(part, this.isDirect);
    const bytesRead = await this.#runOrThrow('read', io, this.#readTask(io, part.position));
    return { bytesRead, buffer: part.view };
  }

  *#writeTask(io: Kiocb, position: number): Task<number> {
    if (!this.#isWritable) return -EBADF;
    if (position < -1) return -EINVAL;
    if (io.nowait && this.#mount.gate.closed) return -EAGAIN;
    return yield* this.#change(this.#positioned(io, position, writeIter(io)));
  }

  *#readTask(io: Kiocb, position: number): Task<number> {
    if ((this.#flags & O_ACCMODE) === O_WRONLY) return -EBADF;
    if (isDirectoryType(this.#type)) return -EISDIR;
    if (position < -1) return -EINVAL;
    return yield* this.#positioned(io, position, readIter(io));
  }

  *#readvTask(io: Kiocb, vector: Vector): Task<number> {
    const { segments, position } = vector;
    if (segments.length === 0) return -EINVAL;
    const result = yield* this.#readTask(io, position);
    if (result > 0 && !scatter(io.buffer, segments, result)) return -EINVAL;
    return result;
  }

  /** Without a position: holds the position's lock until the position has moved (C11: not on errors). */
  *#positioned(io: Kiocb, position: number, task: Task<number>): Task<number> {
    if (position >= 0) return yield* task;
    if (io.nowait && !this.#positionLock.tryWrite()) return -EAGAIN;
    if (!io.nowait) yield* this.#positionLock.write();
    try {
      io.posBytes = this.#position;
      const result = yield* task;
      if (result >= 0) this.#position = io.posBytes;
      return result;
    } finally {
      this.#positionLock.unlockWrite();
    }
  }

  *#truncateTask(size: number): Task<number> {
    if (!this.#isWritable) return -EINVAL;
    return yield* truncateInode(this.#target, size);
  }

  *#fallocateTask(bits: number, posBytes: number, lenBytes: number): Task<number> {
    const refused = checkFallocate({ bits, posBytes, lenBytes, writable: this.#isWritable });
    if (refused < 0) return refused;
    return yield* fallocateInode(this.#target, {
      bits,
      posBytes,
      lenBytes,
      sync: (this.#flags & O_SYNC) !== 0,
    });
  }

  async #seek(position: number, whence: number): Promise<number> {
    validateInteger(position, 'position');
    // lseek(2): a negative position is none of the file's.
    if (position < 0) throw errnoError(-ENXIO, 'lseek');
    return this.#simple('lseek', 'lseek', seekInode(this.#target, position, whence));
  }

  get #target(): RangeTarget {
    return { engine: this.#engine, inode: this.#inode, file: this.#file };
  }

  /** A change of the volume: waits while it is frozen. */
  #change(task: Task<number>): Task<number> {
    return this.#mount.gate.within(task);
  }

  *#call(start: Start): Task<number> {
    return yield begin(this.#engine, start);
  }

  async #changeBy(name: string, syscall: string, start: Start): Promise<void> {
    await this.#simple(name, syscall, this.#change(this.#call(start)));
  }

  /** `name` is the method that finds the file closed, `syscall` what its other errors name, as in node:fs. */
  async #simple(name: string, syscall: string, task: Task<number>): Promise<number> {
    this.#check(name);
    const operation: Operation = { failure: undefined };
    const result = await this.#run(task, operation);
    if (result < 0) throw errnoError(result, syscall, { failure: operation.failure });
    return result;
  }

  /** Runs a read or write to its end. */
  async #runOrThrow(syscall: 'read' | 'write', io: Kiocb, task: Task<number>): Promise<number> {
    const result = await this.#run(task, io);
    if (result < 0) throw errnoError(result, syscall, { failure: io.failure });
    return result;
  }

  /** As {@link #runOrThrow}, for a caller that cannot wait. */
  #runSync(syscall: 'read' | 'write', io: Kiocb, task: Task<number>): number {
    const result = this.#engine.runSync(task, io);
    if (result < 0) throw errnoError(result, syscall, { failure: io.failure });
    return result;
  }

  async #run(task: Task<number>, operation: Operation): Promise<number> {
    this.#active += 1;
    try {
      return await this.#engine.run(task, operation);
    } finally {
      this.#release();
    }
  }

  #release(): void {
    this.#active -= 1;
    if (this.#active === 0) this.#idle?.();
  }

  async #close(): Promise<void> {
    if (this.#active > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    const operation: Operation = { failure: undefined };
    const result = await this.#engine.run(closeInode(this.#mount, this.#inode, this.#file), operation);
    this.#mount.closers.delete(this.#closeSelf);
    if (this.#isWritable) this.#mount.writers -= 1;
    if (result < 0) throw errnoError(result, 'close', { failure: operation.failure });
  }
}
