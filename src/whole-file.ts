/** Whole files: the body in direct writes where the file is direct, the tail below one device block buffered. */
import { errnoError } from './errors.js';
import type { FileHandle } from './file-handle.js';
import { EIO } from './native/errno.js';

/** One request; large enough that a file of some MiB is one extent and one size update. */
const CHUNK_BYTES = 8 * 1024 * 1024;

/** How many of `bytes` may go direct. */
export function directBytes(bytes: number, alignBytes: number): number {
  return bytes - (bytes % alignBytes);
}

/** Writes all of `data` at `position`; -1 appends, or writes at the handle's position, through the page cache. */
export async function writeAll(file: FileHandle, data: Uint8Array, position: number): Promise<void> {
  const body = file.isDirect && position >= 0 ? directBytes(data.length, file.directAlignBytes) : 0;
  let offset = 0;
  while (offset < data.length) {
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

async function writeRest(file: FileHandle, data: Uint8Array, start: number, position: number): Promise<void> {
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
export async function readAll(file: FileHandle, sizeBytes: number): Promise<Buffer> {
  let data = Buffer.allocUnsafeSlow(sizeBytes);
  let offset = 0;
  for (;;) {
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
