/** A volume and what it must hold: runs rounds on it and judges each. */
import { defaultEngine } from '../src/default-engine.js';
import type { Engine } from '../src/engine.js';
import { Volume, type OpenOptions } from '../src/index.js';
import { judgeWithE2fsck } from '../src/main-job/judges.js';
import type { Geometry } from './generate.js';
import { commute, firstIllegal, isExpected, isLegalOutcome, legalResults } from './legal.js';
import { FileModel, type Outcome } from './model.js';
import { isVolumeOperation, type FileOperation, type Round, type VolumeOperation } from './operation.js';
import { Performer } from './perform.js';

/** The volume did what it must not do. */
export class Failure extends Error {
  override readonly name = 'Failure';
}

export interface SessionOptions {
  readonly files: number;
  readonly maxFileBytes: number;
  readonly open: OpenOptions;
  /** Another than this environment's own: one that breaks things, in tests of the exerciser. */
  readonly engine?: Engine;
}

/** One operation and what came of it. */
interface Done {
  readonly operation: FileOperation;
  readonly outcome: Outcome;
}

export class Session {
  readonly #image: string;
  readonly #options: SessionOptions;
  readonly models: FileModel[];
  readonly geometry: Geometry;
  #volume: Volume;
  #performer: Performer;

  private constructor(image: string, options: SessionOptions, volume: Volume) {
    const { blockSize, dioOffsetAlign } = volume.info();
    this.#image = image;
    this.#options = options;
    this.#volume = volume;
    this.#performer = new Performer(volume);
    this.geometry = {
      blockBytes: blockSize,
      directAlignBytes: dioOffsetAlign,
      maxFileBytes: options.maxFileBytes,
    };
    this.models = Array.from({ length: options.files }, () => new FileModel(this.geometry));
  }

  /** Mounts a fresh volume. */
  static async start(image: string, options: SessionOptions): Promise<Session> {
    const volume = await Session.#mount(image, options);
    const session = new Session(image, options, volume);
    for (let file = 0; file < options.files; file += 1)
      await volume.writeFile(Performer.pathOf(file), Buffer.alloc(0));
    return session;
  }

  static #mount(image: string, { engine, open }: SessionOptions): Promise<Volume> {
    return Volume.openOn(engine ?? defaultEngine(), image, open);
  }

  /**
   * Runs one round.
   *
   * @throws Failure
   */
  async run(round: Round): Promise<void> {
    if (isVolumeOperation(round)) return this.#runOnVolume(round);
    await this.#performer.prepare(round);
    // All are started before any is waited for.
    const outcomes = await Promise.all(round.map((operation) => this.#performer.perform(operation)));
    const byFile = new Map<number, Done[]>();
    round.forEach((operation, index) => {
      const done = byFile.get(operation.file) ?? [];
      done.push({ operation, outcome: outcomes[index] as Outcome });
      byFile.set(operation.file, done);
    });
    for (const [file, done] of byFile) await this.#judge(file, done);
  }

  /** Compares all contents, unmounts, and asks e2fsck. Throws {@link Failure}. */
  async finish(): Promise<void> {
    await this.#compareAll('at the end');
    await this.#volume.close();
    await this.#fsck();
  }

  /** Unmounts, whatever it holds. */
  async abandon(): Promise<void> {
    await this.#volume.close().catch(() => undefined);
  }

  async #judge(file: number, done: readonly Done[]): Promise<void> {
    const model = this.models[file] as FileModel;
    // What would have had to wait has not happened.
    const happened = done.filter(
      ({ operation, outcome }) => !('nowait' in operation && outcome.err === 'EAGAIN'),
    );
    const operations = happened.map(({ operation }) => operation);
    if (commute(model, operations)) {
      for (const each of happened) judgeOne(model, each);
      return;
    }
    const legal = legalResults(model, operations);
    happened.forEach(({ operation, outcome }, index) => {
      if (isLegalOutcome(operation, outcome, legal.outcomes[index] ?? [])) return;
      throw new Failure(`${describe(operation)} gave ${show(outcome)}, which no order of the round gives`);
    });
    const found = await this.#performer.contentOf(file);
    const finals = legal.finals.map(({ content }) => content);
    if (!finals.some(({ length }) => length === found.length))
      throw new Failure(`file ${file} is ${found.length} bytes long, which no order of the round gives`);
    const at = firstIllegal(found, finals);
    if (at !== undefined)
      throw new Failure(`file ${file} has ${found[at]} at ${at}, which no order of the round gives`);
    model.adopt(found);
  }

  async #runOnVolume(operation: VolumeOperation): Promise<void> {
    if (operation.k === 'sync') return this.#volume.sync();
    await this.#volume.close();
    if (operation.check) await this.#fsck();
    this.#volume = await Session.#mount(this.#image, this.#options);
    this.#performer = new Performer(this.#volume);
    if (operation.check) await this.#compareAll('after a new mount');
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

function judgeOne(model: FileModel, { operation, outcome }: Done): void {
  if (operation.k === 'seek') {
    if (model.allowsSeek(operation, outcome)) return;
    throw new Failure(`${describe(operation)} gave ${show(outcome)} in a file of ${model.size} bytes`);
  }
  const expected = model.apply(operation);
  if (!isExpected(operation, expected, outcome))
    throw new Failure(`${describe(operation)} gave ${show(outcome)} instead of ${show(expected)}`);
  if (expected.data === undefined || outcome.data === undefined) return;
  const data = expected.data.subarray(0, outcome.data.length);
  if (!data.equals(outcome.data)) throw new Failure(`${describe(operation)}: ${differ(outcome.data, data)}`);
}

function differ(found: Buffer, expected: Buffer): string {
  if (found.length !== expected.length) return `${found.length} bytes instead of ${expected.length}`;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  let last = found.length - 1;
  while (last > at && found[last] === expected[last]) last -= 1;
  return `bytes ${at} to ${last} differ, the first is ${found[at]} instead of ${expected[at]}`;
}

function show({ ret, err }: Outcome): string {
  return err ?? String(ret);
}

function describe(operation: FileOperation): string {
  return JSON.stringify(operation);
}
