/** The native module by itself: what it exports, what it refuses, and memory that goes away. */
import { readFileSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { LockMode, TransferFlag, type Native } from '../../src/native/boundary.js';
import { loadNative } from '../../src/native/load.js';
import { MIB, temporaryPath } from './volumes.js';

const EAGAIN = 11;
const EBADF = 9;
const EBUSY = 16;
const EINVAL = 22;
const EOPNOTSUPP = 95;
const O_RDWR = 2;
const O_CREAT = 0o100;

/** The module with a table of pending operations; start() may be called once per environment. */
class Bare {
  readonly native: Native = loadNative();
  readonly #slots = new Float64Array(64);
  readonly #waiting = new Map<number, (result: number) => void>();
  #next = 1;

  constructor() {
    this.native.start(this.#slots, (count) => {
      for (let pair = 0; pair < count; pair += 1) {
        const op = this.#slots[2 * pair] as number;
        this.#waiting.get(op)?.(this.#slots[2 * pair + 1] as number);
        this.#waiting.delete(op);
      }
    });
  }

  async call(start: (op: number) => void): Promise<{ op: number; result: number }> {
    const op = this.#next;
    this.#next += 1;
    const result = await new Promise<number>((resolve) => {
      this.#waiting.set(op, resolve);
      start(op);
      this.native.submit();
    });
    return { op, result };
  }
}

let shared: Bare | undefined;
function bare(): Bare {
  shared ??= new Bare();
  return shared;
}

async function opened(
  t: ExecutionContext,
): Promise<{ volume: number; file: number; close: () => Promise<void> }> {
  const path = temporaryPath(t);
  const { native } = bare();
  const sizes = JSON.stringify({ sizeBytes: 16 * MIB });
  t.is((await bare().call((op) => native.formatVolume(op, path, sizes))).result, 0);
  const { result: volume } = await bare().call((op) => native.openVolume(op, path, '{}'));
  const { result: file } = await bare().call((op) => native.open(op, volume, '/f', O_RDWR | O_CREAT, 0o644));
  t.true(volume > 0 && file > 0);
  return {
    volume,
    file,
    close: async () => {
      t.is((await bare().call((op) => native.closeFile(op, file))).result, 0);
      t.is((await bare().call((op) => native.closeVolume(op, volume))).result, 0);
    },
  };
}

test('it exports what boundary.d.ts declares, and nothing else', (t) => {
  const declared = readFileSync('crates/ext4-napi/boundary.d.ts', 'utf8').matchAll(
    /^export declare function (\w+)/gm,
  );
  const names = Array.from(declared, ([, name]) => name as string).sort();
  t.deepEqual(Object.keys(loadNative()).sort(), names);
  const contract = readFileSync('src/native/boundary.ts', 'utf8');
  const methods = contract.slice(contract.indexOf('export interface Native {')).matchAll(/^ {2}(\w+)\(/gm);
  t.deepEqual(Array.from(methods, ([, name]) => name as string).sort(), names);
});

test('handles that name nothing', async (t) => {
  const { native } = bare();
  const { volume, file, close } = await opened(t);
  const bytes = new Uint8Array(4096);
  for (const bad of [0, -1, 1.5, 2 ** 40, Number.NaN, Infinity, volume]) {
    t.is((await bare().call((op) => native.fstat(op, bad))).result, -EBADF);
    t.is((await bare().call((op) => native.closeFile(op, bad))).result, -EBADF);
    t.is((await bare().call((op) => native.directWrite(op, bad, 0, 0, bytes, 0, 4096, 0))).result, -EBADF);
    t.is((await bare().call((op) => native.bufferedRead(op, bad, 0, bytes, 0, 4096, 0))).result, -EBADF);
    t.is((await bare().call((op) => native.sync(op, bad, true))).result, -EBADF);
    t.is(native.probeWrite(bad, 0, 1), -EBADF);
    t.is(native.tryBufferedRead(bad, bytes, 0, 4096, 0), -EBADF);
    t.is(native.tryBufferedWrite(bad, bytes, 0, 4096, 0), -EBADF);
    t.throws(() => native.inodeSizes(bad, new Float64Array(2)));
  }
  for (const bad of [0, -1, file, volume + 1]) {
    t.is((await bare().call((op) => native.stat(op, bad, '/', true))).result, -EBADF);
    t.is((await bare().call((op) => native.closeVolume(op, bad))).result, -EBADF);
    t.throws(() => native.volumeInfo(bad));
  }
  t.is((await bare().call((op) => native.closeVolume(op, volume))).result, -EBUSY);
  await close();
  t.is((await bare().call((op) => native.fstat(op, file))).result, -EBADF);
  t.is((await bare().call((op) => native.closeVolume(op, volume))).result, -EBADF);
});

test('arguments of a wrong type or out of range throw, and start nothing', async (t) => {
  const { native } = bare();
  const { file, volume, close } = await opened(t);
  const bytes = new Uint8Array(4096);
  const loose = native as unknown as Record<string, (...args: unknown[]) => unknown>;
  const type = { instanceOf: TypeError };
  const range = { instanceOf: RangeError };
  for (const op of [-1, 1.5, 2 ** 32, Number.NaN]) t.throws(() => native.fstat(op, file), range);
  t.throws(() => loose['fstat']?.('1', file), type);
  t.throws(() => loose['fstat']?.(), type);
  t.throws(() => loose['fstat']?.(9, {}), type);
  for (const name of ['directRead', 'bufferedRead', 'bufferedWrite']) {
    const call = loose[name] as (...args: unknown[]) => unknown;
    for (const [offset, length] of [
      [0, 4097],
      [4096, 1],
      [1, 4096],
      [2 ** 53, 1],
      [-1, 1],
      [0, 0.5],
    ])
      t.throws(() => call(9, file, 0, bytes, offset, length, 0), range, `${name} ${offset} ${length}`);
    for (const pos of [-1, 0.5, 2 ** 53, Infinity]) t.throws(() => call(9, file, 0, bytes, 0, 1, pos), range);
    t.throws(() => call(9, file, 0, new Float64Array(8), 0, 1, 0), type);
    t.throws(() => call(9, file, 0, 'text', 0, 1, 0), type);
  }
  t.throws(() => loose['directWrite']?.(9, file, 2, 0, bytes, 0, 1, 0), range);
  t.throws(() => native.stat(9, volume, 7 as unknown as string, true), type);
  t.throws(() => native.stat(9, volume, '/', 1 as unknown as boolean), type);
  t.throws(() => native.utimes(9, volume, '/', 1, 1e9, 1, 0, true), range);
  t.throws(() => native.inodeSizes(file, new Float64Array(1)), range);
  t.throws(() => native.pump(-1), range);
  t.throws(() => native.start(new Float64Array(2), () => {}));
  t.is((await bare().call((op) => native.stat(op, volume, '', true))).result, -2);
  t.is((await bare().call((op) => native.stat(op, volume, '/a\0b', true))).result, -EINVAL);
  await close();
});

test('an operation id is not used twice', async (t) => {
  const { native } = bare();
  const { file, close } = await opened(t);
  const { op } = await bare().call((id) => {
    native.fstat(id, file);
    t.throws(() => native.fstat(id, file), { message: /under way/ });
  });
  t.like(native.takeResult(op), { size: 0, nlink: 1 });
  t.is(native.takeResult(op), undefined);
  await close();
});

test('a hit in the page cache answers at once, and what is none says so', async (t) => {
  const { native } = bare();
  const { file, close } = await opened(t);
  const data = new Uint8Array(10000).fill(5);
  // The map of an empty file is not in memory before somebody has asked.
  await bare().call((op) => native.lookupWrite(op, file, 0, 1));
  t.is((await bare().call((op) => native.bufferedWrite(op, file, 0, data, 0, 4096, 0))).result, 4096);
  t.is(native.tryBufferedWrite(file, data, 0, 10000, 4000), 10000);
  const back = new Uint8Array(20000);
  // The first read after a change moves the time of access, unless the clock stood still since.
  t.is(native.tryFileAccessed(file), 0);
  t.is(native.tryBufferedRead(file, back, 100, 19000, 0), 14000);
  t.true(back.subarray(100, 14100).every((byte) => byte === 5));
  t.is(back[99], 0);
  t.is(back[14100], 0);
  t.is(native.tryFileAccessed(file), 0);
  t.is(native.tryBufferedRead(file, back, 0, 100, 14000), 0);
  t.is(native.tryBufferedWrite(file, data, 0, 10, 100000), -EAGAIN, 'a gap');
  t.is(native.tryBufferedRead(file, back, 20000, 0, 0), 0);
  t.throws(() => native.tryBufferedRead(file, back, 1, 20000, 0), { instanceOf: RangeError });
  t.is((await bare().call((op) => native.writeAndWait(op, file, 0, 20000))).result, 0);
  t.is((await bare().call((op) => native.invalidate(op, file, 0, 20000))).result, 0);
  t.is(native.tryBufferedRead(file, back, 0, 100, 0), -EAGAIN, 'not cached any more');
  t.is((await bare().call((op) => native.bufferedRead(op, file, 0, back, 0, 100, 0))).result, 100);
  t.is(native.tryFileAccessed(file), 0);
  t.is(native.tryBufferedRead(file, back, 0, 100, 50), 100);
  await close();
});

test('C5, S1: a NOWAIT transfer is over at once or EAGAIN, and never a job, whatever the policy asks', async (t) => {
  const { native } = bare();
  const { volume, file, close } = await opened(t);
  const data = new Uint8Array(8192).fill(5);
  const into = new Uint8Array(8192);
  const { NOWAIT } = TransferFlag;
  const jobs = (): unknown => native.volumeStats(volume)['directWritesMappedByJob'];
  const write = async (mode: LockMode, pos: number): Promise<number> =>
    (await bare().call((op) => native.directWrite(op, file, mode, NOWAIT, data, 0, 4096, pos))).result;
  const read = async (): Promise<number> =>
    (await bare().call((op) => native.directRead(op, file, NOWAIT, into, 0, 8192, 0))).result;
  const cached = async (): Promise<number> =>
    (await bare().call((op) => native.bufferedRead(op, file, NOWAIT, into, 0, 8192, 0))).result;

  t.is((await bare().call((op) => native.bufferedWrite(op, file, NOWAIT, data, 0, 1, 0))).result, -EOPNOTSUPP);
  t.is((await bare().call((op) => native.bufferedWrite(op, file, 0, data, 0, 8192, 0))).result, 8192);
  // B4: dirty pages hinder both, clean ones the write alone.
  const before = jobs();
  for (const mode of [LockMode.SHARED, LockMode.EXCLUSIVE]) t.is(await write(mode, 0), -EAGAIN);
  t.is(await read(), -EAGAIN);
  t.is(await cached(), 8192);
  t.is((await bare().call((op) => native.sync(op, file, true))).result, 0);
  t.is(await read(), 8192);
  t.is(await write(LockMode.EXCLUSIVE, 0), -EAGAIN);
  t.is((await bare().call((op) => native.invalidate(op, file, 0, 8192))).result, 0);
  t.is(await cached(), -EAGAIN);
  t.is(await write(LockMode.SHARED, 0), 4096);
  // A hole and what lies past the end would have to be allocated.
  t.is((await bare().call((op) => native.truncate(op, file, 65536))).result, 0);
  t.is(await write(LockMode.EXCLUSIVE, 32768), -EAGAIN);
  t.is(await write(LockMode.EXCLUSIVE, 65536), -EAGAIN);
  t.is(jobs(), before);
  t.true(into.every((byte) => byte === 5));
  await close();
});

test('a buffer that is detached while it is read into', async (t) => {
  const { native } = bare();
  const { file, close } = await opened(t);
  const data = new Uint8Array(8192).fill(5);
  t.is((await bare().call((op) => native.bufferedWrite(op, file, 0, data, 0, 8192, 0))).result, 8192);
  for (const read of ['directRead', 'bufferedRead'] as const) {
    const buffer = new Uint8Array(8192);
    const { op, result } = await bare().call((id) => {
      native[read](id, file, 0, buffer, 0, 8192, 0);
      structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
    });
    t.is(result, -EINVAL);
    t.regex((native.takeResult(op) as { message: string }).message, /detached/);
    const whole = new Uint8Array(8192);
    t.is((await bare().call((id) => native[read](id, file, 0, whole, 4096, 4096, 0))).result, 4096);
    t.true(whole.subarray(0, 4096).every((byte) => byte === 0));
    t.true(whole.subarray(4096).every((byte) => byte === 5));
  }
  await close();
});

test('failures say where', async (t) => {
  const { native } = bare();
  const { op, result } = await bare().call((id) => native.openVolume(id, '/none/there', '{}'));
  t.is(result, -2);
  t.regex((native.takeResult(op) as { message: string }).message, /open.*No such file/);
  t.is((await bare().call((id) => native.openVolume(id, '/', 'no json'))).result, -EINVAL);
});
