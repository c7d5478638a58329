/** A volume and what it must hold: runs rounds on it and judges each. */
import { defaultEngine } from '../src/default-engine.js';
import type { Engine } from '../src/engine.js';
import { constants, Volume } from '../src/index.js';
import { runCommand } from '../src/main-job/command.js';
import { judgeWithE2fsck } from '../src/main-job/judges.js';
import type { Geometry } from './generate.js';
import {
  cutShort,
  deviceFails,
  differ,
  Failure,
  judge,
  judgeWithFailures,
  spaceFails,
  type Done,
  type Evidence,
} from './judge.js';
import type { Kind } from './kinds.js';
import { FileModel, type Outcome } from './model.js';
import {
  bytesOf,
  isVolumeOperation,
  type FileOperation,
  type Round,
  type VolumeOperation,
} from './operation.js';
import { errnoOf, Performer } from './perform.js';

export interface SessionOptions {
  readonly files: number;
  readonly maxFileBytes: number;
  readonly kind: Kind;
  /** The device may refuse direct requests. */
  readonly queuedFaults?: boolean;
  /** Called before each mount. */
  readonly beforeMount?: () => void;
  /** Another than this environment's own: one that breaks things, in tests of the exerciser. */
  readonly engine?: Engine;
}

/** What a write may need beside its data, and what was set aside for pages that were dirty: nodes of a tree, tables of a map. */
const METADATA_BLOCKS = 32;
/** Whether space had truly run out is asked of so many failures once: to know it, all is synced. */
const FULL_EVERY = 10;

const FSCK_TIMEOUT_MS = 60_000;
/** e2fsck's exit status: all is well now. */
const CORRECTED = 1;

/** What a broken device makes of calls. */
const TROUBLES: ReadonlySet<string> = new Set(['EIO', 'EROFS', 'EUCLEAN', 'EBADMSG']);

function changes({ k }: FileOperation): boolean {
  return k !== 'read' && k !== 'seek' && k !== 'fsync';
}

/** Leaves files so many bytes: writes until nothing is left (a block map knows no fallocate), and takes them away again. */
async function fill(volume: Volume, freeBytes: number): Promise<void> {
  const ballast = await volume.open('/ballast', constants.O_RDWR | constants.O_CREAT);
  const chunk = Buffer.alloc(1024 * 1024, 0xff);
  let size = 0;
  for (let written = 1; written > 0; size += written)
    written = await ballast.write(chunk, 0, chunk.length, size).then(
      ({ bytesWritten }) => bytesWritten,
      (error: unknown) => {
        if (errnoOf(error) !== 'ENOSPC') throw error;
        return 0;
      },
    );
  await ballast.truncate(size - freeBytes);
  await ballast.close();
}

export class Session {
  readonly #image: string;
  readonly #options: SessionOptions;
  readonly models: FileModel[];
  readonly geometry: Geometry;
  #volume: Volume;
  #isMounted = true;
  #performer: Performer;
  #failed = 0;
  #full = 0;
  #timesFull = 0;
  /** When all files were empty. */
  readonly #freeBlocks: number;
  /** Contents that survive whatever happens. */
  readonly #durable = new Map<number, Buffer>();
  readonly #inDoubt = new Set<number>();

  private constructor(image: string, options: SessionOptions, volume: Volume) {
    const { blockSize, dioOffsetAlign, atomicWriteUnitMax = 0, freeBlocks } = volume.info();
    this.#image = image;
    this.#options = options;
    this.#volume = volume;
    this.#performer = new Performer(volume);
    this.#freeBlocks = freeBlocks;
    this.geometry = {
      blockBytes: blockSize,
      directAlignBytes: dioOffsetAlign,
      atomicMaxBytes: atomicWriteUnitMax,
      maxFileBytes: options.maxFileBytes,
      isTight: options.kind.freeBytes !== undefined,
      bitmapFormat: options.kind.bitmapFormat,
      journalsData: options.kind.open.data === 'journal',
    };
    this.models = Array.from({ length: options.files }, () => new FileModel(this.geometry));
  }

  /** Mounts a fresh volume. */
  static async start(image: string, options: SessionOptions): Promise<Session> {
    const volume = await Session.#mount(image, options);
    for (let file = 0; file < options.files; file += 1)
      await volume.writeFile(Performer.pathOf(file), Buffer.alloc(0));
    if (options.kind.freeBytes !== undefined) await fill(volume, options.kind.freeBytes);
    await volume.sync();
    return new Session(image, options, volume);
  }

  static #mount(image: string, { engine, kind, beforeMount }: SessionOptions): Promise<Volume> {
    beforeMount?.();
    return Volume.openOn(engine ?? defaultEngine(), image, kind.open);
  }

  /** Whether there is a volume to operate on. */
  get isMounted(): boolean {
    return this.#isMounted;
  }

  /** Operations that ended with EIO. */
  get failed(): number {
    return this.#failed;
  }

  /** Operations that ended with ENOSPC. */
  get full(): number {
    return this.#full;
  }

  /**
   * Runs one round.
   *
   * @throws Failure
   */
  async run(round: Round): Promise<void> {
    if (isVolumeOperation(round)) return this.#runOnVolume(round);
    const byFile = await this.#perform(round);
    for (const [file, done] of byFile) {
      await this.#judge(this.models[file] as FileModel, done, this.#evidenceOf(file));
      this.#noteDurable(file, done);
    }
    await this.#expectFull([...byFile.values()].flat());
  }

  #judge(model: FileModel, done: readonly Done[], evidence: Evidence): Promise<void> {
    const { isTight } = this.geometry;
    const devices = this.#options.queuedFaults === true;
    if (!isTight && !devices) return judge(model, done, evidence);
    const mayFail = (each: Done): boolean => (devices && deviceFails(each)) || (isTight && spaceFails(each));
    return judgeWithFailures(model, isTight ? done.map(cutShort) : done, evidence, mayFail);
  }

  /** The same, until an error surfaces: then true, and what the round did is open. Throws {@link Failure}. */
  async runUntilTrouble(round: Round): Promise<boolean> {
    this.#durable.forEach((_, file) => {
      if (
        isVolumeOperation(round) ||
        round.some((operation) => operation.file === file && changes(operation))
      )
        this.#inDoubt.add(file);
    });
    try {
      await this.run(round);
      this.#inDoubt.clear();
      return false;
    } catch (error) {
      if (!isVolumeOperation(round)) for (const file of this.#inDoubt) this.#durable.delete(file);
      this.#inDoubt.clear();
      const isExpected = TROUBLES.has((error as NodeJS.ErrnoException).code ?? '');
      // A transfer that the error cut short says so by its count.
      if (isExpected || /gave (\d+ instead of \d+|EIO|EROFS|EUCLEAN|EBADMSG)/.test((error as Error).message))
        return true;
      // What write-back lost, fsync must confess.
      if (await this.#confesses()) return true;
      throw error;
    }
  }

  /** Runs one round of which only the end is awaited. */
  async runUnjudged(round: Round): Promise<void> {
    if (isVolumeOperation(round)) {
      if (round.k === 'sync') await this.#volume.sync().catch(() => undefined);
      return;
    }
    for (const operation of round) if (changes(operation)) this.#durable.delete(operation.file);
    await this.#perform(round).catch((error: unknown) => {
      if (!TROUBLES.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    });
  }

  /** Unmounts and mounts again; false where a mount is refused. */
  async tryRemount(): Promise<boolean> {
    await this.abandon();
    try {
      await this.#remount();
      return true;
    } catch (error) {
      if (!TROUBLES.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
      return false;
    }
  }

  /** After recovery: what was durable is there; what was not is the file's own. The models follow. Throws {@link Failure}. */
  async expectOwnBytes(isOwn: (file: number, byte: number) => boolean): Promise<void> {
    for (const [file, model] of this.models.entries()) {
      const found = await this.#performer.contentOf(file).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT' || this.#durable.has(file)) throw error;
        return this.#volume.writeFile(Performer.pathOf(file), '').then(() => Buffer.alloc(0));
      });
      const durable = this.#durable.get(file);
      if (durable !== undefined && !found.equals(durable))
        throw new Failure(`file ${file} was durable: ${differ(found, durable)}`);
      const foreign = found.findIndex((byte) => !isOwn(file, byte));
      if (foreign >= 0)
        throw new Failure(`file ${file} has the byte ${found[foreign]} at ${foreign}, of another file`);
      model.adopt(found);
    }
  }

  /** Compares all contents, unmounts, and asks e2fsck. Throws {@link Failure}. */
  async finish(): Promise<void> {
    await this.#compareAll('at the end');
    await this.#leave();
  }

  /** The same, and empties the files: all their space comes back. Throws {@link Failure}. */
  async finishEmpty(): Promise<void> {
    await this.#compareAll('at the end');
    await this.#expectSpaceBack();
    await this.#leave();
  }

  async #leave(): Promise<void> {
    await this.#volume.close();
    this.#isMounted = false;
    await this.#fsck();
  }

  /** What failed alone for want of space would not fit now either. Throws {@link Failure}. */
  async #expectFull(done: readonly Done[]): Promise<void> {
    // A block map has three tables set aside for every dirty block, and most are given back.
    if (this.geometry.bitmapFormat) return;
    const [only] = done;
    if (done.length !== 1 || only?.outcome.err !== 'ENOSPC') return;
    this.#timesFull += 1;
    if (this.#timesFull % FULL_EVERY !== 0) return;
    const { operation } = only;
    const bytes =
      operation.k === 'fallocate' ? operation.len : operation.k === 'write' ? bytesOf(operation) : 0;
    const { blockBytes } = this.geometry;
    // What was freed counts once its transaction has committed (D13).
    await this.#volume.sync();
    const taken = this.#freeBlocks - this.#volume.info().freeBlocks;
    const left = Math.floor((this.#options.kind.freeBytes ?? 0) / blockBytes) - taken;
    if (left > Math.ceil(bytes / blockBytes) + METADATA_BLOCKS)
      throw new Failure(`${JSON.stringify(operation)} gave ENOSPC, and ${left} blocks are free`);
  }

  async #expectSpaceBack(): Promise<void> {
    for (const file of this.models.keys()) await this.#volume.writeFile(Performer.pathOf(file), '');
    await this.#volume.sync();
    const { freeBlocks } = this.#volume.info();
    if (freeBlocks !== this.#freeBlocks)
      throw new Failure(`${freeBlocks} blocks are free with empty files, ${this.#freeBlocks} were before`);
  }

  /**
   * The same for a volume that has seen an error: until e2fsck was there nothing is freed on it (O7), so that orphans may be
   * left. e2fsck does not trust them then, and may take a whole extent for what of it lies behind i_size; after that only
   * that the volume is sound is asked. Throws {@link Failure}.
   */
  async finishWithRepair(): Promise<void> {
    await this.#compareAll('after recovery');
    await this.#volume.close();
    this.#isMounted = false;
    const { status, isMissing, output } = await runCommand('e2fsck', ['-fy', this.#image], FSCK_TIMEOUT_MS);
    if (!isMissing && status !== 0 && status !== CORRECTED)
      throw new Failure(`e2fsck -fy: ${status ?? 'killed'}\n${output}`);
    await this.#fsck();
    await this.#remount();
    if (status === 0) await this.#compareAll('after a new mount');
    await this.#volume.close();
    this.#isMounted = false;
    await this.#fsck();
  }

  /** Unmounts, whatever it holds. */
  async abandon(): Promise<void> {
    if (this.#isMounted) await this.#volume.close().catch(() => undefined);
    this.#isMounted = false;
  }

  async #perform(round: readonly FileOperation[]): Promise<Map<number, Done[]>> {
    await this.#performer.prepare(round);
    // All are started before any is waited for.
    const outcomes = await Promise.all(round.map((operation) => this.#performer.perform(operation)));
    const byFile = new Map<number, Done[]>();
    round.forEach((operation, index) => {
      const outcome = outcomes[index] as Outcome;
      if (outcome.err === 'EIO') this.#failed += 1;
      if (outcome.err === 'ENOSPC') this.#full += 1;
      const done = byFile.get(operation.file) ?? [];
      done.push({ operation, outcome });
      byFile.set(operation.file, done);
    });
    return byFile;
  }

  #evidenceOf(file: number): Evidence {
    return { file, content: () => this.#performer.contentOf(file) };
  }

  #noteDurable(file: number, done: readonly Done[]): void {
    const [only] = done;
    // fdatasync is as good: contents and size are all that is compared.
    if (done.length === 1 && only?.operation.k === 'fsync')
      this.#durable.set(file, Buffer.from((this.models[file] as FileModel).content));
    else if (done.some(({ operation }) => changes(operation))) this.#durable.delete(file);
  }

  /** Whether fsync of any file, or of all, reports an error. */
  async #confesses(): Promise<boolean> {
    const operations = this.models.map((_, file): FileOperation => ({ k: 'fsync', file, data: false }));
    try {
      const all = await this.#perform(operations);
      return [...all.values()].flat().some(({ outcome }) => outcome.err !== undefined);
    } catch {
      return true;
    }
  }

  async #runOnVolume(operation: VolumeOperation): Promise<void> {
    if (operation.k === 'sync') {
      await this.#volume.sync();
    } else {
      this.#isMounted = false;
      await this.#volume.close();
      if (operation.check) await this.#fsck();
      await this.#remount();
      if (operation.check) await this.#compareAll('after a new mount');
    }
    for (const [file, model] of this.models.entries()) this.#durable.set(file, Buffer.from(model.content));
  }

  async #remount(): Promise<void> {
    this.#volume = await Session.#mount(this.#image, this.#options);
    this.#isMounted = true;
    this.#performer = new Performer(this.#volume);
  }

  async #fsck(): Promise<void> {
    const { verdict, detail } = await judgeWithE2fsck(this.#image);
    if (verdict === 'failed') throw new Failure(`e2fsck: ${detail}`);
  }

  async #compareAll(when: string): Promise<void> {
    for (const [file, model] of this.models.entries()) {
      const found = await this.#performer.contentOf(file);
      if (!found.equals(model.content))
        throw new Failure(`file ${file} ${when}: ${differ(found, model.content)}`);
    }
  }
}
