/**
 * The real policy over a modelled engine, in every order of its steps: what callers hear and what the file holds in the
 * end must be what some sequential order of the calls would have given (see interleavings/history.ts).
 */
import test from 'ava';

import { EarlyUnlock, NoDrain, NoExclusion } from './interleavings/broken-locks.js';
import { explore, type Operation, type Report, type Scenario } from './interleavings/explore.js';
import {
  allocate,
  blockMapFile,
  busyFile,
  cachedFile,
  emptyFile,
  fsync,
  grownFile,
  mixedFile,
  punch,
  read,
  truncate,
  unknownFile,
  write,
} from './interleavings/operations.js';

const buffered = { direct: false };
const nowait = { nowait: true };

/** Each kind of call, by what it meets in {@link mixedFile}. */
const KINDS: Readonly<Record<string, () => Operation>> = {
  aligned: () => write(0, 2),
  unaligned: () => write(1, 1),
  'aligned, unwritten': () => write(2, 2),
  'unaligned, unwritten': () => write(3, 1),
  'aligned, hole': () => write(4, 2),
  'unaligned, hole': () => write(5, 1),
  'written and unwritten': () => write(0, 4),
  'extending, aligned': () => write(8, 2),
  'extending, unaligned': () => write(7, 2),
  append: () => write(0, 1, { append: true }),
  nowait: () => write(0, 2, nowait),
  'nowait, unaligned': () => write(3, 1, nowait),
  'nowait, extending': () => write(6, 4, nowait),
  'truncate down': () => truncate(3),
  'truncate up': () => truncate(10),
  punch: () => punch(0, 6),
  allocate: () => allocate(4, 6),
  'buffered write': () => write(1, 3, buffered),
  'buffered append': () => write(0, 2, { ...buffered, append: true }),
  read: () => read(0, 12),
  'nowait read': () => read(0, 12, nowait),
  'buffered read': () => read(0, 12, buffered),
  fsync: () => fsync(),
};

function text(report: Report): string {
  const { failure } = report;
  return failure === undefined ? '' : `${failure.what}\n  ${failure.steps.join('\n  ')}`;
}

/** A block map cannot be preallocated. */
function namesFor(prepare: Scenario['prepare']): string[] {
  return Object.keys(KINDS).filter((name) => prepare !== blockMapFile || name !== 'allocate');
}

/** Further ones, for crowds. */
const MORE: Readonly<Record<string, () => Operation>> = {
  'unaligned, unwritten first': () => write(2, 1),
  'unaligned, hole first': () => write(4, 1),
  'unaligned end': () => write(9, 1),
  'truncate 0': () => truncate(0),
  'read cached': () => read(0, 2, buffered),
};

function operations(...kinds: readonly string[]): Operation[] {
  return kinds.map((kind) => (KINDS[kind] ?? (MORE[kind] as () => Operation))());
}

/** The policy has to be right by itself, not because the engine looks again. */
const TRUSTING = { faults: { trusting: true } };

const PAIR_BOUND = 20_000;
const TRIPLE_BOUND = 60;
const CROWD_BOUND = 3000;

for (const prepare of [mixedFile, cachedFile, busyFile, grownFile, unknownFile, blockMapFile, emptyFile]) {
  test(`every two calls, in every order: ${prepare.name}`, (t) => {
    const names = namesFor(prepare);
    let orders = 0;
    for (const [index, first] of names.entries())
      for (const second of names.slice(index)) {
        const report = explore({ prepare, operations: operations(first, second), ...TRUSTING }, PAIR_BOUND);
        t.true(report.exhaustive || report.failure !== undefined);
        orders += report.orders;
        if (report.failure !== undefined) throw new Error(`${first} | ${second}: ${text(report)}`);
      }
    t.log(`${orders} orders`);
    t.pass();
  });
}

for (const prepare of [mixedFile, cachedFile, blockMapFile]) {
  test(`every three calls, in up to ${TRIPLE_BOUND} orders: ${prepare.name}`, (t) => {
    const names = namesFor(prepare);
    let orders = 0;
    let exhaustive = 0;
    for (const [index, first] of names.entries())
      for (const [offset, second] of names.slice(index).entries())
        for (const third of names.slice(index + offset)) {
          const report = explore({ prepare, operations: operations(first, second, third) }, TRIPLE_BOUND);
          orders += report.orders;
          exhaustive += Number(report.exhaustive);
          if (report.failure !== undefined)
            throw new Error(`${first} | ${second} | ${third}: ${text(report)}`);
        }
    t.log(`${orders} orders; ${exhaustive} triples in every one`);
    t.pass();
  });
}

/** E1 to E6 and their like, where many meet in one block or at the end of the file. */
const CROWDS: Readonly<Record<string, readonly string[]>> = {
  'E1: four sub-block writes of unwritten blocks and a hole': [
    'unaligned, unwritten',
    'unaligned, unwritten first',
    'unaligned, hole',
    'unaligned, hole first',
  ],
  'E2, E4: sub-block writes past the end': ['extending, unaligned', 'append', 'append', 'unaligned end'],
  'E3: unaligned, then aligned over it': [
    'unaligned, hole',
    'aligned, hole',
    'unaligned, hole first',
    'read',
  ],
  'E8: buffered and direct': ['buffered write', 'aligned', 'buffered read', 'fsync'],
  'E11, E12: extending, reads and a cut': ['append', 'read', 'truncate down', 'read'],
  'E14: truncate and punch under overwrites': ['aligned', 'written and unwritten', 'truncate down', 'punch'],
  'E29: NOWAIT among others': ['nowait', 'nowait, unaligned', 'append', 'nowait read'],
  'E33: readers and overwriters': ['read', 'aligned', 'unaligned', 'read'],
};

for (const [title, kinds] of Object.entries(CROWDS)) {
  test(`${title}, in ${CROWD_BOUND} orders and as many at random`, (t) => {
    for (const prepare of [mixedFile, cachedFile]) {
      const report = explore({ prepare, operations: operations(...kinds) }, CROWD_BOUND);
      if (report.failure !== undefined) throw new Error(text(report));
    }
    t.pass();
  });
}

/** What the explorer must notice: each breaks one rule. */
const BROKEN: readonly (readonly [string, Partial<Scenario>, readonly string[], RegExp])[] = [
  [
    'C25.4, C9: sub-block writes share an unwritten block',
    { faults: { shareUnwritten: true } },
    ['unaligned, unwritten', 'unaligned, unwritten first'],
    /no order/,
  ],
  [
    'C25.3: holes are taken for overwrites',
    { faults: { shareHoles: true } },
    ['unaligned, hole', 'unaligned, hole first'],
    /no order/,
  ],
  [
    'C25.5, S4: nobody drains',
    { makeLock: (engine) => new NoDrain(engine) },
    ['aligned, hole', 'unaligned, hole'],
    /no order/,
  ],
  [
    'E14: truncate does not drain',
    { makeLock: (engine) => new NoDrain(engine) },
    ['aligned', 'truncate 0'],
    /freed block/,
  ],
  [
    'A7: punch does not drain reads',
    { makeLock: (engine) => new NoDrain(engine) },
    ['read', 'punch'],
    /no order/,
  ],
  [
    'A17: a buffered write does not drain',
    { makeLock: (engine) => new NoDrain(engine) },
    ['aligned', 'buffered write'],
    /no order/,
  ],
  [
    'C25.5: an extending write does not wait',
    { makeLock: (engine) => new EarlyUnlock(engine) },
    ['append', 'append'],
    /no order|orphan/,
  ],
  [
    'C25.5: an unaligned write does not wait',
    { makeLock: (engine) => new EarlyUnlock(engine) },
    ['unaligned, hole', 'aligned, hole'],
    /no order/,
  ],
  [
    'A2: exclusive is shared',
    { makeLock: (engine) => new NoExclusion(engine) },
    ['append', 'append'],
    /no order/,
  ],
  [
    'B4: cached pages stay',
    { prepare: cachedFile, faults: { keepPages: true } },
    ['aligned', 'read cached'],
    /no order|stale/,
  ],
];

for (const [title, changes, kinds, expected] of BROKEN) {
  test(`broken on purpose, and noticed: ${title}`, (t) => {
    const scenario = { prepare: mixedFile, operations: operations(...kinds), ...changes };
    const { failure } = explore(scenario, PAIR_BOUND);
    t.regex(failure?.what ?? 'nothing', expected);
    const sound = { prepare: changes.prepare ?? mixedFile, operations: operations(...kinds) };
    t.is(explore(sound, PAIR_BOUND).failure, undefined);
  });
}

test('every mode is met: shared three ways, exclusive, upgraded, drained, refused', (t) => {
  const { counts } = explore(
    { prepare: mixedFile, operations: operations('aligned', 'unaligned, hole', 'nowait') },
    2000,
  );
  t.true(counts.sharedBecause.written > 0 && counts.exclusiveBecause.notOverwrite > 0);
  t.true(counts.upgradedBecause.notOverwrite > 0 && counts.drainedBecause.hole > 0);
  t.true(counts.nowaitRefusedBecause.lock > 0);
});
