/** C25.1–5 as tables: every input, against the sentence of the rule. */
import test from 'ava';

import { isMisaligned, isUnaligned } from '../src/write-iter/alignment.js';
import { extensionCleanup, isExtendingIo } from '../src/write-iter/extension.js';
import { fallbackResult } from '../src/write-iter/fallback.js';
import {
  guessExclusive,
  judgeLock,
  mustWait,
  whyDrain,
  whyExclusive,
  whyShared,
  type DioShape,
} from '../src/write-iter/lock-mode.js';
import {
  checkAtomic,
  checkBufferedNowait,
  checkWrite,
  clipCount,
  writePos,
} from '../src/write-iter/write-checks.js';

const BOTH = [false, true] as const;

function* shapes(): Generator<DioShape> {
  for (const mayStripPrivileges of BOTH)
    for (const extending of BOTH)
      for (const overwrite of BOTH)
        for (const unwritten of BOTH)
          for (const unaligned of BOTH)
            for (const journalled of BOTH)
              yield { mayStripPrivileges, extending, overwrite, unwritten, unaligned, journalled };
}

test('C25.4: the rows that stay shared, and no other', (t) => {
  const shared = [...shapes()].filter((shape) => whyExclusive(shape) === undefined);
  const plain = { mayStripPrivileges: false, extending: false, overwrite: true, journalled: false };
  t.deepEqual(shared, [
    { ...plain, unwritten: false, unaligned: false },
    { ...plain, unwritten: false, unaligned: true }, // C10
    { ...plain, unwritten: true, unaligned: false }, // C9
  ]);
  t.deepEqual(shared.map(whyShared), ['written', 'unaligned', 'unwritten']);
});

test('C25.4: the first reason that forbids sharing, for every shape', (t) => {
  for (const shape of shapes()) {
    const reasons = [
      shape.mayStripPrivileges && 'privileges',
      shape.extending && 'extending',
      !shape.overwrite && 'notOverwrite',
      shape.unaligned && shape.unwritten && 'unalignedUnwritten',
      shape.journalled && 'atomic',
    ] as const;
    t.is(whyExclusive(shape) ?? false, reasons.find((reason) => reason !== false) ?? false);
  }
});

test('C25.5, C24: force wait ⇔ exclusive ∧ (unaligned ∨ extending ∨ through the journal)', (t) => {
  for (const shape of shapes()) {
    t.false(mustWait({ ...shape, exclusive: false }));
    const waits = shape.unaligned || shape.extending || shape.journalled;
    t.is(mustWait({ ...shape, exclusive: true }), waits);
  }
});

test('C25.5: drain ⇔ exclusive ∧ unaligned ∧ (¬overwrite ∨ unwritten), or journalled; and then it waits (S4)', (t) => {
  for (const shape of shapes()) {
    t.is(whyDrain({ ...shape, exclusive: false }), undefined);
    const reason = whyDrain({ ...shape, exclusive: true });
    const drains = shape.journalled || (shape.unaligned && (!shape.overwrite || shape.unwritten));
    t.is(reason !== undefined, drains);
    if (!drains) continue;
    t.true(mustWait({ ...shape, exclusive: true }));
    const plain = shape.overwrite ? 'unwritten' : 'hole';
    t.is(reason, shape.journalled ? 'atomic' : plain);
  }
});

test('C25.4–5: verdicts for every shape, lock and NOWAIT (C5)', (t) => {
  const counts = { proceed: 0, 'restart-exclusive': 0, 'would-block': 0 };
  for (const shape of shapes()) {
    for (const exclusive of BOTH) {
      for (const nowait of BOTH) {
        const verdict = judgeLock({ ...shape, exclusive, nowait });
        counts[verdict] += 1;
        const sharedIsWrong = !exclusive && whyExclusive(shape) !== undefined;
        const waits = exclusive && (shape.unaligned || shape.extending || shape.journalled);
        if (nowait) t.is(verdict, sharedIsWrong || waits ? 'would-block' : 'proceed');
        else t.is(verdict, sharedIsWrong ? 'restart-exclusive' : 'proceed');
      }
    }
  }
  // 3 of 64 shapes may be shared; 8 of 64 exclusive ones neither extend, nor are unaligned, nor journalled.
  t.deepEqual(counts, { proceed: 3 + 64 + 3 + 8, 'restart-exclusive': 61, 'would-block': 61 + 56 });
});

for (const [title, io, expected] of [
  ['inside i_size', { append: false, posBytes: 0, countBytes: 4096, sizeBytes: 8192 }, false],
  ['ends at i_size', { append: false, posBytes: 4096, countBytes: 4096, sizeBytes: 8192 }, false],
  ['ends past i_size', { append: false, posBytes: 4096, countBytes: 4097, sizeBytes: 8192 }, true],
  ['begins past i_size', { append: false, posBytes: 16384, countBytes: 1, sizeBytes: 8192 }, true],
  ['append', { append: true, posBytes: 0, countBytes: 1, sizeBytes: 8192 }, true],
  ['across 4 GiB', { append: false, posBytes: 2 ** 32 - 1, countBytes: 2, sizeBytes: 2 ** 32 }, true],
] as const) {
  test(`C25.1: guess, ${title}`, (t) => {
    t.is(guessExclusive(io), expected);
  });
}

for (const [title, io, expected] of [
  ['inside both', [0, 4096, 8192, 8192], false],
  ['ends at both', [4096, 4096, 8192, 8192], false],
  ['past i_size', [8192, 1, 8192, 8192], true],
  ['E34: inside i_size, past i_disksize', [4096, 4096, 8192, 4096], true],
  ['past i_size, inside i_disksize', [4096, 4096, 4096, 8192], true],
  ['S5: past 4 GiB', [2 ** 32 - 512, 1024, 2 ** 32, 2 ** 32], true],
] as const) {
  test(`C14: extending, ${title}`, (t) => {
    const [posBytes, countBytes, sizeBytes, diskSizeBytes] = io;
    t.is(isExtendingIo({ posBytes, countBytes, sizeBytes, diskSizeBytes }), expected);
  });
}

for (const [posBytes, countBytes, memoryBits, misaligned, unaligned] of [
  [0, 4096, 0, false, false],
  [4096, 8192, 4096, false, false],
  [512, 4096, 0, false, true],
  [0, 512, 0, false, true],
  [4096, 4096, 512, false, true], // A6: aligned memory of another block
  [4096, 4096, 4, false, true],
  [4096, 4096, 2, true, true], // B1: below the DMA alignment
  [1, 4096, 0, true, true],
  [4096, 100, 0, true, true],
  [2 ** 32 + 512, 4096, 0, false, true],
  [2 ** 32 + 1, 4096, 0, true, true],
] as const) {
  test(`A6, B1: ${countBytes} bytes at ${posBytes} from memory at ${memoryBits}`, (t) => {
    const io = { posBytes, countBytes, memoryBits };
    t.is(isMisaligned({ ...io, offsetAlignBytes: 512, memoryAlignBytes: 4 }), misaligned);
    t.is(isUnaligned({ ...io, blockBytes: 4096 }), unaligned);
  });
}

test('A4.4: an appending write begins at i_size', (t) => {
  t.is(writePos({ append: true, posBytes: 5, sizeBytes: 100 }), 100);
  t.is(writePos({ append: false, posBytes: 5, sizeBytes: 100 }), 5);
});

test('A4.7: the largest size clips, and refuses what begins there', (t) => {
  const maxFileBytes = 2 ** 44 - 4096;
  t.is(clipCount({ posBytes: maxFileBytes - 10, countBytes: 100, maxFileBytes }), 10);
  t.is(clipCount({ posBytes: maxFileBytes, countBytes: 100, maxFileBytes }), 0);
  const io = { immutable: false, maxFileBytes };
  t.is(checkWrite({ ...io, posBytes: maxFileBytes - 1, countBytes: 1 }), 0);
  t.is(checkWrite({ ...io, posBytes: maxFileBytes, countBytes: 1 }), -27);
  t.is(checkWrite({ ...io, posBytes: maxFileBytes, countBytes: 0 }), 0);
});

test('A4.1–8: every input: immutable first, even for 0 bytes; the limit only for what is not empty', (t) => {
  for (const immutable of BOTH)
    for (const countBytes of [0, 1, 512])
      for (const posBytes of [0, 999, 1000, 1001]) {
        const refused = checkWrite({ immutable, posBytes, countBytes, maxFileBytes: 1000 });
        if (immutable) t.is(refused, -1);
        else t.is(refused, countBytes > 0 && posBytes >= 1000 ? -27 : 0);
        const clipped = clipCount({ posBytes, countBytes, maxFileBytes: 1000 });
        t.is(clipped, Math.min(countBytes, Math.max(0, 1000 - posBytes)));
      }
});

test('C24: atomic writes: direct, a power of two within the units, at a multiple of itself', (t) => {
  const units = { atomicMinBytes: 4096, atomicMaxBytes: 65536 };
  const judge = (direct: boolean, posBytes: number, countBytes: number): number =>
    checkAtomic({ direct, posBytes, countBytes, ...units });
  for (const direct of BOTH) t.is(judge(direct, 1, 0), 0);
  for (const countBytes of [4096, 8192, 16384, 32768, 65536]) {
    t.is(judge(true, 0, countBytes), 0);
    t.is(judge(true, 3 * countBytes, countBytes), 0);
    t.is(judge(true, 2 ** 40, countBytes), 0);
    t.is(judge(true, countBytes / 2, countBytes), -22);
    t.is(judge(false, 0, countBytes), -95);
  }
  for (const countBytes of [1, 512, 2048, 4095, 4097, 12288, 65537, 131072])
    t.is(judge(true, 0, countBytes), -22);
  const none = { direct: true, posBytes: 0, countBytes: 4096, atomicMinBytes: 0, atomicMaxBytes: 0 };
  t.is(checkAtomic(none), -95);
});

test('A17: a non-empty buffered NOWAIT write is EOPNOTSUPP', (t) => {
  t.is(checkBufferedNowait({ nowait: true, countBytes: 1 }), -95);
  t.is(checkBufferedNowait({ nowait: true, countBytes: 0 }), 0);
  t.is(checkBufferedNowait({ nowait: false, countBytes: 1 }), 0);
});

test('C25.9, C15: what an extending write cleans up', (t) => {
  for (const endedInsideSize of BOTH) {
    for (const writtenBytes of [-28, 0, 50, 100]) {
      const io = { writtenBytes, countBytes: 100, endedInsideSize };
      t.is(extensionCleanup({ ...io, extending: false }), 'none');
      const full = endedInsideSize ? 'orphan-delete' : 'none';
      t.is(extensionCleanup({ ...io, extending: true }), writtenBytes < 100 ? 'truncate' : full);
    }
  }
});

test('S6: a failed tail does not hide what direct I/O wrote', (t) => {
  t.is(fallbackResult({ doneBytes: 512, tailResult: 100 }), 612);
  t.is(fallbackResult({ doneBytes: 512, tailResult: -28 }), 512);
  t.is(fallbackResult({ doneBytes: 0, tailResult: -28 }), -28);
  t.is(fallbackResult({ doneBytes: 0, tailResult: 0 }), 0);
});
