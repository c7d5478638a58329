/** The calls that the explorer mixes. Positions and lengths are in sectors; a block is two. */
import { begin, type Task } from '../../src/engine.js';
import type { Kiocb } from '../../src/kiocb.js';
import { FallocateFlag } from '../../src/native/boundary.js';
import { fallocateInode, truncateInode, type RangeTarget } from '../../src/range-ops.js';
import { readIter } from '../../src/read-iter/read-iter.js';
import { writeIter } from '../../src/write-iter/write-iter.js';
import type { Operation, World } from './explore.js';
import type { ModelNative } from './model-native.js';

let nextValue = 0;

/** Writes bytes that no other operation writes. */
export function write(pos: number, len: number, changes: Partial<Kiocb> = {}): Operation {
  const value = (nextValue = (nextValue % 100) + 1);
  const data = Array.from({ length: len }, () => value);
  const { append = false, direct = true, nowait = false } = changes;
  const how = `${direct ? 'direct' : 'buffered'}${nowait ? ' nowait' : ''}`;
  return {
    name: `${how} write ${append ? 'append' : `${pos}+${len}`}`,
    nowait,
    apply: (file) => {
      const at = append ? file.bytes.length : pos;
      file.write(at, data);
      return { result: len };
    },
    start: (world) => {
      const io = world.io({ posBytes: pos, countBytes: len, buffer: Uint8Array.from(data), ...changes });
      return { task: writeIter(io) };
    },
  };
}

export function read(pos: number, len: number, changes: Partial<Kiocb> = {}): Operation {
  const { direct = true, nowait = false } = changes;
  return {
    name: `${direct ? 'direct' : 'buffered'}${nowait ? ' nowait' : ''} read ${pos}+${len}`,
    nowait,
    apply: (file) => {
      const bytes = file.bytes.slice(pos, pos + len);
      return { result: bytes.length, bytes, pos };
    },
    start: (world) => {
      const io = world.io({ posBytes: pos, countBytes: len, buffer: new Uint8Array(len), ...changes });
      const heard = (result: number) => ({
        result,
        bytes: [...io.buffer.subarray(0, Math.max(0, result))],
        pos,
      });
      return { task: readIter(io), heard };
    },
  };
}

export function truncate(size: number): Operation {
  return {
    name: `truncate ${size}`,
    apply: (file) => {
      file.truncate(size);
      return { result: 0 };
    },
    start: (world) => ({ task: truncateInode(target(world), size) }),
  };
}

export function punch(pos: number, len: number): Operation {
  const bits = FallocateFlag.PUNCH_HOLE | FallocateFlag.KEEP_SIZE;
  return {
    name: `punch ${pos}+${len}`,
    apply: (file) => {
      file.zero(pos, len);
      return { result: 0 };
    },
    start: (world) => ({
      task: fallocateInode(target(world), { bits, posBytes: pos, lenBytes: len, sync: false }),
    }),
  };
}

/** fallocate(2) without a mode: room for a range, and the size with it. */
export function allocate(pos: number, len: number): Operation {
  return {
    name: `allocate ${pos}+${len}`,
    apply: (file) => {
      file.truncate(Math.max(file.bytes.length, pos + len));
      return { result: 0 };
    },
    start: (world) => ({
      task: fallocateInode(target(world), { bits: 0, posBytes: pos, lenBytes: len, sync: false }),
    }),
  };
}

function target({ engine, inode }: World): RangeTarget {
  return { engine, inode, file: 1 };
}

function* syncTask({ engine }: World): Task<number> {
  return yield begin(engine, (native, op) => native.sync(op, 1, true));
}

export function fsync(): Operation {
  return { name: 'fsync', apply: () => ({ result: 0 }), start: (world) => ({ task: syncTask(world) }) };
}

/** Seven sectors: a written block, an unwritten one, a hole, and half a written one. */
export function mixedFile(model: ModelNative): void {
  const { file } = model;
  file.size = 7;
  file.diskSize = 7;
  for (const [index, written] of [
    [0, true],
    [1, false],
    [3, true],
  ] as const) {
    const { physical } = file.allocate(index, written);
    if (written) file.deviceWrite(2 * physical, index === 3 ? [201, 0] : [200, 200]);
  }
}

/** The same, with the first block in the cache and written to there. */
export function cachedFile(model: ModelNative): void {
  mixedFile(model);
  model.file.bufferedWrite(0, [210]);
}

/** {@link mixedFile}, none of whose map is in memory. */
export function unknownFile(model: ModelNative): void {
  mixedFile(model);
  model.unknown = true;
}

/** {@link cachedFile}, with somebody at work on a page. */
export function busyFile(model: ModelNative): void {
  cachedFile(model);
  model.busy = true;
}

/** Grown through the cache: i_disksize is behind i_size (E34). */
export function grownFile(model: ModelNative): void {
  mixedFile(model);
  model.file.bufferedWrite(7, [211, 212, 213]);
}

/** {@link mixedFile} with a block map, where what was unwritten is a hole. */
export function blockMapFile(model: ModelNative): void {
  mixedFile(model);
  model.file.blocks.delete(1);
  model.blockMap = true;
}

/** Nothing at all. */
export function emptyFile(): void {
  // A new file has neither size nor blocks.
}
