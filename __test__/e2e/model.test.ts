/** Random operations of many tasks at once against a model in memory; the same after a new mount. */
import type { ExecutionContext } from 'ava';

import { allocAligned, constants, Volume, type FileHandle } from '../../src/index.js';
import { assertClean, e2e, makeImage, MiB } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const TASKS = 8;
const STEPS = 120;
const BLOCK = 4096;
const MAX_BYTES = 256 * 1024;

/** A small generator of repeatable numbers (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

/** One task: a directory of its own, and what its files must hold. */
class ModelTask {
  readonly files = new Map<string, Buffer>();
  /** Steps that found the volume full. */
  refused = 0;
  readonly #volume: Volume;
  readonly #root: string;
  readonly #random: (below: number) => number;
  readonly #aligned = allocAligned(64 * 1024);
  #next = 0;

  constructor(volume: Volume, root: string, seed: number) {
    this.#volume = volume;
    this.#root = root;
    this.#random = random(seed);
  }

  async run(t: ExecutionContext): Promise<void> {
    await this.#volume.mkdir(this.#root);
    for (let step = 0; step < STEPS; step += 1) {
      const path = this.#pick();
      try {
        await this.#step(t, path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        this.refused += 1;
        // How far it came is open: the file goes.
        this.files.delete(path);
        await this.#volume.unlink(path).catch(() => undefined);
      }
    }
    await compare(t, this.#volume, this.files);
  }

  #pick(): string {
    const paths = [...this.files.keys()];
    if (paths.length > 0 && (paths.length > 12 || this.#random(4) > 0))
      return paths[this.#random(paths.length)] as string;
    this.#next += 1;
    return `${this.#root}/file-${this.#next}`;
  }

  async #step(t: ExecutionContext, path: string): Promise<void> {
    const what = this.#random(10);
    if (what === 0) return this.#remove(t, path);
    if (what === 1) return this.#replace(path);
    const direct = this.#random(2) === 0;
    const file = await this.#volume.open(path, O_RDWR | O_CREAT | (direct ? O_DIRECT : 0));
    if (!this.files.has(path)) this.files.set(path, Buffer.alloc(0));
    try {
      if (what === 2) await this.#truncate(path, file);
      else if (what === 3) await file.sync();
      else if (what < 6) await this.#read(t, path, file, direct);
      else await this.#write(path, file, direct);
    } finally {
      await file.close();
    }
  }

  async #remove(t: ExecutionContext, path: string): Promise<void> {
    if (!this.files.delete(path)) {
      await t.throwsAsync(this.#volume.unlink(path), { code: 'ENOENT' });
      return;
    }
    await this.#volume.unlink(path);
  }

  async #replace(path: string): Promise<void> {
    const data = Buffer.alloc(this.#random(MAX_BYTES), 1 + this.#random(255));
    await this.#volume.writeFile(path, data);
    this.files.set(path, data);
  }

  async #truncate(path: string, file: FileHandle): Promise<void> {
    const size = this.#random(MAX_BYTES);
    await file.truncate(size);
    const data = Buffer.alloc(size);
    (this.files.get(path) as Buffer).copy(data);
    this.files.set(path, data);
  }

  async #write(path: string, file: FileHandle, direct: boolean): Promise<void> {
    const unit = direct ? (this.#random(2) === 0 ? BLOCK : 512) : 1;
    const position = this.#random(MAX_BYTES / unit) * unit;
    const length = (1 + this.#random(this.#aligned.length / unit)) * unit;
    const buffer = this.#random(2) === 0 ? this.#aligned : Buffer.alloc(this.#aligned.length);
    buffer.fill(1 + this.#random(255));
    const { bytesWritten } = await file.write(buffer, 0, length, position);
    const old = this.files.get(path) as Buffer;
    const data = Buffer.alloc(Math.max(old.length, position + bytesWritten));
    old.copy(data);
    buffer.copy(data, position, 0, bytesWritten);
    this.files.set(path, data);
    if (bytesWritten < length) throw Object.assign(new Error('short write'), { code: 'ENOSPC' });
  }

  async #read(t: ExecutionContext, path: string, file: FileHandle, direct: boolean): Promise<void> {
    const data = this.files.get(path) as Buffer;
    const position = direct ? this.#random(MAX_BYTES / BLOCK) * BLOCK : this.#random(MAX_BYTES);
    const { bytesRead } = await file.read(this.#aligned, 0, this.#aligned.length, position);
    const expected = data.subarray(position, position + this.#aligned.length);
    if (!this.#aligned.subarray(0, bytesRead).equals(expected)) t.fail(`${path} at ${position}`);
  }
}

async function compare(
  t: ExecutionContext,
  volume: Volume,
  files: ReadonlyMap<string, Buffer>,
): Promise<void> {
  for (const [path, data] of files)
    if (!(await volume.readFile(path)).equals(data)) t.fail(`${path} differs`);
}

async function runModel(
  t: ExecutionContext,
  about: { sizeBytes: number; blockSize: number; seed: number; isTooSmall?: boolean },
): Promise<void> {
  const { sizeBytes, blockSize, seed } = about;
  const image = await makeImage(t, { sizeBytes, blockSize });
  const volume = await Volume.open(image);
  const tasks = Array.from(
    { length: TASKS },
    (_, index) => new ModelTask(volume, `/task-${index}`, seed * 100 + index),
  );
  await Promise.all(tasks.map((task) => task.run(t)));
  await volume.close();
  await assertClean(t, image);
  const again = await Volume.open(image, { readOnly: true });
  for (const task of tasks) await compare(t, again, task.files);
  await again.close();
  const refused = tasks.reduce((sum, task) => sum + task.refused, 0);
  t.is(refused > 0, about.isTooSmall === true, `${refused} times full`);
}

const first = Number(process.env['UEXT4_SEED'] ?? 1);
for (const blockSize of [1024, 4096])
  for (const seed of [first, first + 1]) {
    e2e(`${blockSize} byte blocks, seed ${seed}`, (t) =>
      runModel(t, { sizeBytes: 64 * MiB, blockSize, seed }),
    );
    e2e(`${blockSize} byte blocks, seed ${seed}, a volume that is too small`, (t) =>
      runModel(t, { sizeBytes: 10 * MiB, blockSize, seed, isTooSmall: true }),
    );
  }

/** Writes and reads back the blocks of one task: those whose number is `mine` modulo {@link TASKS}. */
async function mixedTask(
  t: ExecutionContext,
  file: FileHandle,
  mine: number,
  expected: Buffer,
): Promise<void> {
  const next = random(mine + 1);
  const buffer = allocAligned(BLOCK);
  for (let step = 0; step < STEPS; step += 1) {
    const position = (next(expected.length / BLOCK / TASKS) * TASKS + mine) * BLOCK;
    const what = next(8);
    if (what === 0) await file.datasync();
    if (what < 4) {
      await file.read(buffer, 0, BLOCK, position);
      if (!buffer.equals(expected.subarray(position, position + BLOCK)))
        t.fail(`task ${mine} at ${position}`);
    } else {
      buffer.fill(1 + next(255));
      await file.write(buffer, 0, BLOCK, position);
      buffer.copy(expected, position);
    }
  }
}

for (const blockSize of [1024, 4096]) {
  e2e(`one file, buffered and direct at once, ${blockSize} byte blocks`, async (t) => {
    const image = await makeImage(t, { blockSize });
    const volume = await Volume.open(image);
    const expected = Buffer.alloc(MiB);
    await volume.writeFile('/file', expected);
    const files = await Promise.all(
      Array.from({ length: TASKS }, (_, task) =>
        volume.open('/file', O_RDWR | (task % 2 === 0 ? O_DIRECT : 0)),
      ),
    );
    await Promise.all(files.map((file, task) => mixedTask(t, file, task, expected)));
    await volume.close();
    await assertClean(t, image);
    const again = await Volume.open(image, { readOnly: true });
    t.true((await again.readFile('/file')).equals(expected));
    await again.close();
  });
}
