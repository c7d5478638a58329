/** Whole files: the body in direct writes where the file is direct, the tail below one device block buffered. */
import { constants as bufferConstants } from 'node:buffer';
import { constants } from 'node:fs';

import { encodingOf } from './encoding.js';
import { AbortError, errnoError, fileTooLarge, invalidType } from './errors.js';
import type { FileStreams } from './file-streams.js';
import type { Stats } from './stats.js';
import { EINVAL, EIO } from './native/errno.js';
import { bytesOf, parseFlags } from './validate.js';

const { O_APPEND } = constants;
const LARGEST_BUFFER = bufferConstants.MAX_LENGTH;
const WHAT_DATA_IS = 'be of type string or an instance of Buffer, TypedArray, or DataView';

/** What may be written as a whole file: in the end bytes, or text in the encoding of the options. */
export type FileData = Chunk | Iterable<Chunk> | AsyncIterable<Chunk>;
type Chunk = string | NodeJS.ArrayBufferView;

/** Options of `readFile`. */
export interface WholeReadOptions<Encoding> {
  encoding?: Encoding;
  /** Default 'r'. */
  flag?: string | number | undefined;
  /** Ends it with an AbortError, between two requests. */
  signal?: AbortSignal | undefined;
}

/** Of `readFile`, in all its forms. */
export type ReadFileOptions = BufferEncoding | WholeReadOptions<BufferEncoding | null | undefined> | null;

/** Options of `writeFile` and `appendFile`. */
export interface WholeWriteOptions {
  /** Of text; default 'utf8'. */
  encoding?: BufferEncoding | null | undefined;
  /** Of a file that is made; default 0o666. */
  mode?: number | string | undefined;
  /** Default 'w', or 'a' to append. */
  flag?: string | number | undefined;
  /** `sync()` before it is closed. */
  flush?: boolean | undefined;
  /** Ends it with an AbortError, between two requests; what is written by then stays. */
  signal?: AbortSignal | undefined;
}

/** What `readFile` needs of an open file. */
type WholeFile = FileStreams & { stat(): Promise<Stats> };

/** One request; large enough that a file of some MiB is one extent and one size update. */
const CHUNK_BYTES = 8 * 1024 * 1024;

/** One request of a file of unknown length. */
const REST_BYTES = 512 * 1024;

/** How many of `bytes` may go direct. */
export function directBytes(bytes: number, alignBytes: number): number {
  return bytes - (bytes % alignBytes);
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortError(signal);
}

function isChunk(data: unknown): data is Chunk {
  return typeof data === 'string' || ArrayBuffer.isView(data);
}

function isIterable(data: unknown): boolean {
  return (
    typeof data === 'object' && data !== null && (Symbol.iterator in data || Symbol.asyncIterator in data)
  );
}

function bytesOfChunk(chunk: Chunk, encoding: BufferEncoding): Uint8Array {
  return typeof chunk === 'string' ? Buffer.from(chunk, encoding) : bytesOf(chunk);
}

/** Writes what comes, one piece after the other. With direct I/O all through the page cache: no piece need end on a block. */
async function writeChunks(
  file: FileStreams,
  data: AsyncIterable<Chunk> | Iterable<Chunk>,
  encoding: BufferEncoding,
  append: boolean,
  signal: AbortSignal | undefined,
): Promise<void> {
  let position = 0;
  for await (const chunk of data) {
    checkSignal(signal);
    if (!isChunk(chunk)) throw invalidType('data', WHAT_DATA_IS, chunk);
    const bytes = bytesOfChunk(chunk, encoding);
    if (append) await writeAll(file, bytes, -1, signal);
    else await writeRest(file, bytes, 0, position);
    position += bytes.length;
  }
}

/** Writes all of `data` at `position`; -1 appends, or writes at the handle's position, through the page cache. */
export async function writeAll(
  file: FileStreams,
  data: Uint8Array,
  position: number,
  signal?: AbortSignal,
): Promise<void> {
  const body = file.isDirect && position >= 0 ? directBytes(data.length, file.directAlignBytes) : 0;
  let offset = 0;
  while (offset < data.length) {
    checkSignal(signal);
    const direct = offset < body;
    const length = Math.min(CHUNK_BYTES, (direct ? body : data.length) - offset);
    const at = position < 0 ? -1 : position + offset;
    const written = await file.transfer('write', direct, { buffer: data, offset, length, position: at });
    // Nothing written and no error: never loop on that.
    if (written === 0) throw errnoError(-EIO, 'write');
    offset += written;
    // A device that stops short of a block leaves the rest to the page cache.
    if (direct && written % file.directAlignBytes !== 0) return writeRest(file, data, offset, position);
  }
}

async function writeRest(
  file: FileStreams,
  data: Uint8Array,
  start: number,
  position: number,
): Promise<void> {
  let offset = start;
  while (offset < data.length) {
    const length = Math.min(CHUNK_BYTES, data.length - offset);
    const part = { buffer: data, offset, length, position: position + offset };
    const written = await file.transfer('write', false, part);
    if (written === 0) throw errnoError(-EIO, 'write');
    offset += written;
  }
}

/** Reads from the beginning to the end of the file, as it is when it gets there. */
export async function readAll(file: FileStreams, sizeBytes: number, signal?: AbortSignal): Promise<Buffer> {
  let data = Buffer.allocUnsafeSlow(sizeBytes);
  let offset = 0;
  for (;;) {
    checkSignal(signal);
    if (offset === data.length) {
      // Grown meanwhile? One byte tells.
      const more = Buffer.alloc(1);
      const read = await file.transfer('read', false, {
        buffer: more,
        offset: 0,
        length: 1,
        position: offset,
      });
      if (read === 0) return data;
      data = Buffer.concat([data, more, Buffer.alloc(CHUNK_BYTES - 1)]);
      offset += 1;
      continue;
    }
    const rest = data.length - offset;
    const align = file.directAlignBytes;
    const body = file.isDirect && offset % align === 0 ? directBytes(rest, align) : 0;
    const length = Math.min(CHUNK_BYTES, body > 0 ? body : rest);
    const read = await file.transfer('read', body > 0, { buffer: data, offset, length, position: offset });
    if (read === 0) return data.subarray(0, offset);
    offset += read;
  }
}

function inEncoding(data: Buffer, encoding: BufferEncoding | 'buffer' | undefined): Buffer | string {
  return encoding === undefined || encoding === 'buffer' ? data : data.toString(encoding);
}

/** The rest of a file from its handle's position on, through the page cache. */
export async function readRest(
  file: FileStreams,
  options: ReadFileOptions | undefined,
): Promise<Buffer | string> {
  const encoding = encodingOf(options);
  const { signal }: WholeReadOptions<unknown> = isObject(options) ? options : {};
  const parts: Buffer[] = [];
  for (;;) {
    checkSignal(signal);
    const buffer = Buffer.allocUnsafeSlow(REST_BYTES);
    const part = { buffer, offset: 0, length: buffer.length, position: -1 };
    const read = await file.transfer('read', false, part);
    if (read === 0) return inEncoding(Buffer.concat(parts), encoding);
    parts.push(buffer.subarray(0, read));
  }
}

/** Writes all of `data` from the handle's position on, through the page cache. */
export async function writeHere(
  file: FileStreams,
  data: FileData,
  options: BufferEncoding | Pick<WholeWriteOptions, 'encoding' | 'signal'> | null | undefined,
): Promise<void> {
  const encoding = (encodingOf(options) ?? 'utf8') as BufferEncoding;
  const { signal }: WholeWriteOptions = isObject(options) ? options : {};
  checkSignal(signal);
  if (isChunk(data)) await writeAll(file, bytesOfChunk(data, encoding), -1, signal);
  else if (isIterable(data)) await writeChunks(file, data, encoding, true, signal);
  else throw invalidType('data', WHAT_DATA_IS, data);
}

/** `readFile` on the file that `open` gives. */
export async function readWhole(
  options: ReadFileOptions | undefined,
  open: (flags: string | number) => Promise<WholeFile>,
): Promise<Buffer | string> {
  const encoding = encodingOf(options);
  const { flag, signal }: WholeReadOptions<unknown> = isObject(options) ? options : {};
  checkSignal(signal);
  const file = await open(flag ?? 'r');
  try {
    const stat = await file.stat();
    if (stat.size > LARGEST_BUFFER) throw fileTooLarge(stat.size, LARGEST_BUFFER);
    const data = await readAll(file, stat.isFile() ? stat.size : 1, signal);
    return inEncoding(data, encoding);
  } finally {
    await file.close();
  }
}

/** `writeFile` and `appendFile` on the file that `open` gives. */
export async function writeWhole(
  data: FileData,
  options: BufferEncoding | WholeWriteOptions | null | undefined,
  defaultFlag: 'w' | 'a',
  open: (flags: number, mode: number | string) => Promise<WholeFile>,
): Promise<void> {
  const encoding = (encodingOf(options) ?? 'utf8') as BufferEncoding;
  const { flag, mode, flush, signal }: WholeWriteOptions = isObject(options) ? options : {};
  if (flush !== undefined && flush !== null && typeof flush !== 'boolean')
    throw invalidType('options.flush', 'be of type boolean', flush);
  const flags = parseFlags(flag ?? defaultFlag);
  const one = isChunk(data) ? bytesOfChunk(data, encoding) : undefined;
  const length = one?.length;
  if (one === undefined && !isIterable(data)) throw invalidType('data', WHAT_DATA_IS, data);
  checkSignal(signal);
  const file = await open(flags, mode ?? 0o666);
  try {
    const append = (flags & O_APPEND) !== 0;
    if (one === undefined) await writeChunks(file, data as AsyncIterable<Chunk>, encoding, append, signal);
    // Moved to another thread since: what was to be written is gone.
    else if (one.length !== length) throw errnoError(-EINVAL, 'write');
    else await writeAll(file, one, append ? -1 : 0, signal);
    if (flush === true) await file.sync();
  } finally {
    await file.close();
  }
}

/** Runs `work` with a file that is being opened, and closes it. */
export async function withFile<F extends { close(): Promise<void> }>(
  opening: Promise<F>,
  work: (file: F) => Promise<void>,
): Promise<void> {
  const file = await opening;
  try {
    await work(file);
  } finally {
    await file.close();
  }
}
