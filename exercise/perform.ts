/** Carries operations out through the API. */
import { allocAligned, constants, type FileHandle, type Volume } from '../src/index.js';
import { bytesFor, type Outcome } from './model.js';
import { bytesOf, type FileOperation, type Way } from './operation.js';

const { O_APPEND, O_CREAT, O_DIRECT, O_DSYNC, O_RDWR } = constants;

/** The most that one operation transfers. */
export const MAX_TRANSFER = 64 * 1024;
/** The most operations at once. */
export const MAX_IN_FLIGHT = 32;

/** Memory for operations in flight, each with its own. */
class Slots {
  readonly #aligned: Buffer[] = [];
  readonly #plain: Buffer[] = [];
  #next = 0;

  /** Begins a round: all memory is free. */
  reset(): void {
    this.#next = 0;
  }

  take(copied: boolean, bytes: number): Buffer {
    const slots = copied ? this.#plain : this.#aligned;
    const slot = (slots[this.#next] ??= copied ? Buffer.alloc(MAX_TRANSFER) : allocAligned(MAX_TRANSFER));
    this.#next += 1;
    return slot.subarray(0, bytes);
  }
}

/** The errno's name; anything else is no outcome but a fault of the program. */
export function errnoOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) throw error;
  return code;
}

/** Parts of a buffer, one behind the other. */
function split(buffer: Buffer, lens: readonly number[]): Buffer[] {
  let at = 0;
  return lens.map((bytes) => {
    at += bytes;
    return buffer.subarray(at - bytes, at);
  });
}

/** The open handles of a volume's files. */
export class Performer {
  readonly #volume: Volume;
  readonly #handles = new Map<string, FileHandle>();
  readonly #slots = new Slots();

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  static pathOf(file: number): string {
    return `/file-${file}`;
  }

  /** Opens what the operations need, so that they can be started together. */
  async prepare(operations: readonly FileOperation[]): Promise<void> {
    this.#slots.reset();
    for (const operation of operations) {
      const [key, flags] = keyOf(operation);
      if (!this.#handles.has(key))
        this.#handles.set(key, await this.#volume.open(Performer.pathOf(operation.file), flags));
    }
  }

  /** Starts one operation; whatever it comes to is its outcome. */
  async perform(operation: FileOperation): Promise<Outcome> {
    try {
      return await this.#start(operation);
    } catch (error) {
      return { err: errnoOf(error) };
    }
  }

  /** All of a file as a buffered reader sees it. */
  async contentOf(file: number): Promise<Buffer> {
    return this.#volume.readFile(Performer.pathOf(file));
  }

  async #start(operation: FileOperation): Promise<Outcome> {
    const handle = this.#handles.get(keyOf(operation)[0]) as FileHandle;
    switch (operation.k) {
      case 'write':
        return { ret: await this.#write(handle, operation) };
      case 'read':
        return this.#read(handle, operation);
      case 'truncate':
        await handle.truncate(operation.size);
        return { ret: 0 };
      case 'fallocate': {
        const { pos, len, mode, keepSize } = operation;
        await handle.fallocate(pos, len, { mode, keepSize });
        return { ret: 0 };
      }
      case 'seek':
        return {
          ret: await (operation.whence === 'data'
            ? handle.seekData(operation.pos)
            : handle.seekHole(operation.pos)),
        };
      case 'fsync':
        await (operation.data ? handle.datasync() : handle.sync());
        return { ret: 0 };
      case 'remake':
        await this.#remake(operation.file);
        return { ret: 0 };
      default:
        return operation satisfies never;
    }
  }

  async #write(handle: FileHandle, operation: Extract<FileOperation, { k: 'write' }>): Promise<number> {
    const { pos, lens, nowait, atomic, blocking, copied } = operation;
    const length = bytesOf(operation);
    const buffer = this.#slots.take(copied === true, length);
    bytesFor(operation.file, operation.from, length).copy(buffer);
    if (blocking === true) return handle.writeSync(buffer, 0, length, pos);
    if (lens.length > 1) return (await handle.writev(split(buffer, lens), pos)).bytesWritten;
    if (nowait !== true && atomic !== true) return (await handle.write(buffer, 0, length, pos)).bytesWritten;
    const options = { offset: 0, length, position: pos, nowait: nowait === true, atomic: atomic === true };
    return (await handle.write(buffer, options)).bytesWritten;
  }

  async #read(handle: FileHandle, operation: Extract<FileOperation, { k: 'read' }>): Promise<Outcome> {
    const { pos, lens, nowait, blocking, copied } = operation;
    const length = bytesOf(operation);
    const buffer = this.#slots.take(copied === true, length);
    let ret: number;
    if (blocking === true) ret = handle.readSync(buffer, 0, length, pos);
    else if (lens.length > 1) ret = (await handle.readv(split(buffer, lens), pos)).bytesRead;
    else if (nowait === true)
      ret = (await handle.read(buffer, { offset: 0, length, position: pos, nowait } as object)).bytesRead;
    else ret = (await handle.read(buffer, 0, length, pos)).bytesRead;
    return { ret, data: buffer.subarray(0, ret) };
  }

  async #remake(file: number): Promise<void> {
    for (const [key, handle] of this.#handles) {
      if (!key.startsWith(`${file}/`)) continue;
      this.#handles.delete(key);
      await handle.close();
    }
    await this.#volume.unlink(Performer.pathOf(file));
    await (await this.#volume.open(Performer.pathOf(file), O_RDWR | O_CREAT)).close();
  }
}

/** Which handle an operation takes, and how that is opened. */
function keyOf(operation: FileOperation): [string, number] {
  const way: Partial<Way> = operation.k === 'read' || operation.k === 'write' ? operation : {};
  let flags = O_RDWR | O_CREAT;
  if (way.direct === true) flags |= O_DIRECT;
  if (way.dsync === true) flags |= O_DSYNC;
  if (operation.k === 'write' && operation.append === true) flags |= O_APPEND;
  return [`${operation.file}/${flags}`, flags];
}
