/** Runs the real policy over the model file in every order of its steps, up to a bound. */
import { Engine, type Task, type Waiter } from '../../src/engine.js';
import { InodeLock } from '../../src/inode-lock.js';
import type { Kiocb } from '../../src/kiocb.js';
import type { OpenInode } from '../../src/open-inode.js';
import { newWriteCounts, type WriteCounts } from '../../src/write-counts.js';
import { directKiocb } from '../direct-kiocb.js';
import { unexplained, type Call } from './history.js';
import { ModelNative, type Faults } from './model-native.js';

/** What the calls of a scenario work with. */
export interface World {
  readonly model: ModelNative;
  readonly engine: Engine;
  readonly inode: OpenInode;
  readonly counts: WriteCounts;
  readonly io: (changes: Partial<Kiocb>) => Kiocb;
}

/** One call of a scenario: its task, and what it did in the sequential file. */
export interface Operation {
  readonly name: string;
  readonly nowait?: boolean;
  readonly apply: Call['apply'];
  /** The bytes that a read saw go into `heard` when the task is over. */
  readonly start: (world: World) => {
    readonly task: Task<number>;
    readonly heard?: (result: number) => Call['heard'];
  };
}

export interface Scenario {
  readonly prepare: (model: ModelNative) => void;
  readonly operations: readonly Operation[];
  readonly faults?: Faults;
  readonly makeLock?: (engine: Engine) => InodeLock;
}

/** An order of steps that ended badly. */
export interface Failure {
  readonly what: string;
  readonly steps: readonly string[];
}

export interface Report {
  readonly orders: number;
  readonly exhaustive: boolean;
  readonly counts: WriteCounts;
  readonly failure: Failure | undefined;
}

class Run implements Waiter {
  readonly #engine: Engine;
  readonly #task: Task<number>;
  readonly #done: (result: number) => void;

  constructor(engine: Engine, task: Task<number>, done: (result: number) => void) {
    this.#engine = engine;
    this.#task = task;
    this.#done = done;
  }

  resume(result: number): void {
    const next = this.#task.next(result);
    if (next.done === true) this.#done(next.value);
    else this.#engine.wait(next.value, this);
  }
}

const LIMITS = {
  blockBytes: 2,
  offsetAlignBytes: 1,
  memoryAlignBytes: 1,
  maxFileBytes: 64,
  atomicMinBytes: 2,
  atomicMaxBytes: 2,
  atomicJournalled: false,
};

/** The model and its engine serve one order after the other. */
function makeWorld(scenario: Scenario, model: ModelNative, engine: Engine, counts: WriteCounts): World {
  model.reset();
  scenario.prepare(model);
  const lock = scenario.makeLock?.(engine) ?? new InodeLock(engine);
  const inode: OpenInode = {
    key: 1,
    lock,
    limits: LIMITS,
    bitmapFormat: model.blockMap,
    dax: false,
    references: 1,
  };
  const io = (changes: Partial<Kiocb>): Kiocb => {
    const buffer = new Uint8Array(64);
    return directKiocb({ engine, inode, file: 1, limits: LIMITS, counts, buffer }, changes);
  };
  return { model, engine, inode, counts, io };
}

/** One order: `choose(count)` picks which of the possible steps comes next. */
function runOrder(
  scenario: Scenario,
  makeWorldOf: () => World,
  choose: (count: number) => number,
): Failure | undefined {
  const world = makeWorldOf();
  const { model } = world;
  const initial = model.file.contents();
  const waiting = [...scenario.operations];
  const calls: Call[] = [];
  const steps: string[] = [];
  const begin = (operation: Operation): void => {
    const { name, apply, nowait = false, start } = operation;
    const call: Call = { name, apply, nowait, begun: steps.length, ended: Infinity, heard: undefined };
    calls.push(call);
    const { task, heard } = start(world);
    const done = (result: number): void => {
      call.ended = steps.length;
      call.heard = heard?.(result) ?? { result };
      steps.push(`${name} = ${result}`);
    };
    new Run(world.engine, task, done).resume(0);
  };
  for (;;) {
    const count = waiting.length + model.steps.length;
    if (count === 0) break;
    const choice = choose(count);
    if (choice < waiting.length) {
      const [operation] = waiting.splice(choice, 1) as [Operation];
      steps.push(`begin ${operation.name}`);
      begin(operation);
    } else {
      const [step] = model.steps.splice(choice - waiting.length, 1) as [(typeof model.steps)[0]];
      steps.push(step.name);
      step.run();
    }
  }
  const what = judge(initial, calls, world);
  return what === undefined ? undefined : { what, steps };
}

function judge(
  initial: readonly number[],
  calls: readonly Call[],
  { model, inode }: World,
): string | undefined {
  const stuck = calls.filter((call) => call.heard === undefined).map((call) => call.name);
  if (stuck.length > 0) return `waits for ever: ${stuck.join(', ')}`;
  if (inode.lock.inFlight > 0 || !inode.lock.tryWrite()) return 'the lock is held when all is over';
  model.file.check();
  const [violation] = model.file.violations;
  if (violation !== undefined) return violation;
  const final = model.file.contents();
  const sectors = unexplained(initial, calls, final, model.blockMap);
  if (sectors.length === 0) return undefined;
  const heard = calls.map((call) => `${call.name} ${JSON.stringify(call.heard)}`).join('; ');
  return `no order explains (-1: results) sectors ${sectors.join(', ')}: ${heard}; file [${final.join(' ')}]`;
}

/** Every order, depth first, as long as there are no more than `bound`; then so many at random. */
export function explore(scenario: Scenario, bound: number): Report {
  const counts = newWriteCounts();
  const model = new ModelNative(scenario.faults);
  const engine = new Engine(model.native);
  const next = (): World => makeWorld(scenario, model, engine, counts);
  const path: { choice: number; count: number }[] = [];
  for (let orders = 1; orders <= bound; orders += 1) {
    let depth = 0;
    const failure = runOrder(scenario, next, (count) => {
      path[depth] ??= { choice: 0, count };
      const { choice } = path[depth] as { choice: number };
      depth += 1;
      return choice;
    });
    if (failure !== undefined) return { orders, exhaustive: false, counts, failure };
    while (path.length > 0) {
      const last = path.at(-1) as { choice: number; count: number };
      last.choice += 1;
      if (last.choice < last.count) break;
      path.pop();
    }
    if (path.length === 0) return { orders, exhaustive: true, counts, failure: undefined };
  }
  return sample(scenario, bound, next, counts);
}

/** Depth first stays near its first order; at random it gets everywhere. */
function sample(scenario: Scenario, bound: number, next: () => World, counts: WriteCounts): Report {
  let state = 0x2545f491;
  const random = (count: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % count;
  };
  for (let orders = 1; orders <= bound; orders += 1) {
    const failure = runOrder(scenario, next, random);
    if (failure !== undefined) return { orders: bound + orders, exhaustive: false, counts, failure };
  }
  return { orders: 2 * bound, exhaustive: false, counts, failure: undefined };
}
