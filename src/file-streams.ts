/** Whole contents and streams of a FileHandle. */
import { Readable, Writable } from 'node:stream';
import { callbackify } from 'node:util';

import { errnoError, invalidType } from './errors.js';
import { EIO } from './native/errno.js';
import type { Transfer } from './transfer-arguments.js';
import { validateInteger } from './validate.js';
import {
  readRest,
  writeHere,
  type FileData,
  type ReadFileOptions,
  type WholeReadOptions,
  type WholeWriteOptions,
} from './whole-file.js';

/** Options of `createReadStream`. */
export interface ReadStreamOptions {
  encoding?: BufferEncoding | undefined;
  /** First byte; left out: the handle's position. */
  start?: number | undefined;
  /** Last byte, itself included; default: to the end of the file. */
  end?: number | undefined;
  /** Bytes that are read ahead; default 64 KiB. */
  highWaterMark?: number | undefined;
  /** Default true: the handle is closed when the stream ends or fails. */
  autoClose?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** Options of `createWriteStream`. */
export interface WriteStreamOptions {
  encoding?: BufferEncoding | undefined;
  /** First byte; left out: the handle's position. */
  start?: number | undefined;
  /** Bytes that may wait; default 64 KiB. */
  highWaterMark?: number | undefined;
  /** Default true: the handle is closed when the stream ends or fails. */
  autoClose?: boolean | undefined;
  /** `sync()` before it is closed. */
  flush?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** Options of a FileHandle's `writeFile`. */
export type HandleWriteOptions = Pick<WholeWriteOptions, 'encoding' | 'signal'>;

const DEFAULT_BYTES = 64 * 1024;

/** What a stream needs of its file. */
type Streamed = Pick<FileStreams, 'isDirect' | 'directAlignBytes' | 'transfer' | 'sync' | 'close'>;

/** Direct where the file is, and the request may be: the rest goes through the page cache. */
function transfer(file: Streamed, kind: 'read' | 'write', part: Transfer): Promise<number> {
  const align = file.directAlignBytes;
  const direct =
    file.isDirect && part.position >= 0 && part.position % align === 0 && part.length % align === 0;
  return file.transfer(kind, direct, part);
}

type Callback = (error?: Error | null) => void;

function closer(
  file: Streamed,
  autoClose: boolean | undefined,
): (error: Error | null, done: Callback) => void {
  return (error, done) => {
    if (autoClose === false) {
      done(error);
      return;
    }
    callbackify(() => file.close())((failure) => done(error ?? failure));
  };
}

function startOf(start: number | undefined): number {
  if (start === undefined) return -1;
  validateInteger(start, 'start', 0);
  return start;
}

function readStream(file: Streamed, options: ReadStreamOptions): Readable {
  const { encoding, end, highWaterMark = DEFAULT_BYTES, autoClose, signal } = options;
  let position = startOf(options.start);
  if (end !== undefined && end !== Infinity) validateInteger(end, 'end', Math.max(position, 0));
  let left = end === undefined || end === Infinity ? Infinity : end - Math.max(position, 0) + 1;
  return new Readable({
    highWaterMark,
    ...(encoding !== undefined && { encoding }),
    ...(signal !== undefined && { signal }),
    read(this: Readable, bytes: number): void {
      const length = Math.min(Math.max(bytes, 1), left);
      if (length === 0) {
        this.push(null);
        return;
      }
      const buffer = Buffer.allocUnsafeSlow(length);
      const part = { buffer, offset: 0, length, position };
      callbackify(() => transfer(file, 'read', part))((error, read) => {
        // Typed as if there always were an error.
        if ((error as Error | null) !== null) {
          this.destroy(error);
          return;
        }
        left -= read;
        if (position >= 0) position += read;
        this.push(read === 0 ? null : buffer.subarray(0, read));
      });
    },
    destroy: closer(file, autoClose),
  });
}

function writeStream(file: Streamed, options: WriteStreamOptions): Writable {
  const { encoding, highWaterMark = DEFAULT_BYTES, autoClose, flush, signal } = options;
  if (flush !== undefined && typeof flush !== 'boolean')
    throw invalidType('options.flush', 'be of type boolean', flush);
  let position = startOf(options.start);
  const writeAll = async (chunk: Buffer): Promise<void> => {
    for (let offset = 0; offset < chunk.length;) {
      const length = chunk.length - offset;
      const written = await transfer(file, 'write', { buffer: chunk, offset, length, position });
      // Nothing written and no error: never loop on that.
      if (written === 0) throw errnoError(-EIO, 'write');
      offset += written;
      if (position >= 0) position += written;
    }
  };
  return new Writable({
    highWaterMark,
    ...(encoding !== undefined && { defaultEncoding: encoding }),
    ...(signal !== undefined && { signal }),
    write(chunk: Buffer, _encoding, done: Callback): void {
      callbackify(() => writeAll(chunk))(done);
    },
    final(done: Callback): void {
      if (flush === true) callbackify(() => file.sync())(done);
      else done();
    },
    destroy: closer(file, autoClose),
  });
}

/** The part of a FileHandle that is made of the rest of it. */
export abstract class FileStreams {
  /** @internal */
  abstract get isDirect(): boolean;
  /** @internal */
  abstract get directAlignBytes(): number;
  /** @internal */
  abstract transfer(kind: 'read' | 'write', direct: boolean, part: Transfer): Promise<number>;
  abstract sync(): Promise<void>;
  abstract close(): Promise<void>;

  async readFile(options?: WholeReadOptions<null | undefined> | null): Promise<Buffer>;
  async readFile(options: BufferEncoding | WholeReadOptions<BufferEncoding>): Promise<string>;
  async readFile(options?: ReadFileOptions): Promise<Buffer | string>;
  /** All from the handle's position on, which moves to the end. */
  async readFile(options?: ReadFileOptions): Promise<Buffer | string> {
    return readRest(this, options);
  }

  /** Writes all of `data` from the handle's position on; the file gets no shorter by it. */
  async writeFile(data: FileData, options?: BufferEncoding | HandleWriteOptions | null): Promise<void> {
    await writeHere(this, data, options);
  }

  /** The same: where the handle appends, `writeFile` does. */
  async appendFile(data: FileData, options?: BufferEncoding | HandleWriteOptions | null): Promise<void> {
    await writeHere(this, data, options);
  }

  /** The file as a stream. What is direct stays so where position and length allow it. */
  createReadStream(options: ReadStreamOptions = {}): Readable {
    return readStream(this, options);
  }

  /** A stream that writes the file; its data is durable when it is closed only with `flush`. */
  createWriteStream(options: WriteStreamOptions = {}): Writable {
    return writeStream(this, options);
  }
}
