/** Random operations, many at once, against a model; and that the exerciser sees what is broken. */
import { join } from 'node:path';

import { onMemory } from '../../src/aligned-memory.js';
import { Engine } from '../../src/engine.js';
import { exercise } from '../../exercise/exercise.js';
import { KINDS, type Kind } from '../../exercise/kinds.js';
import { FEATURES } from '../../exercise/features.js';
import { formatRounds, parseRounds } from '../../exercise/operation.js';
import type { Native } from '../../src/native/boundary.js';
import { loadNative } from '../../src/native/load.js';
import { e2eSerial, makeFolder, ROOT, runProcess } from './support.js';

const MAIN = join(ROOT, '.build', 'exercise', 'main.js');
const OPS = 50_000;
const seed = Number(process.env['UEXT4_SEED'] ?? 1);

e2eSerial(`E28: ${OPS} operations, seed ${seed}`, async (t) => {
  t.timeout(300_000);
  const args = ['--seed', `${seed}`, '--ops', `${OPS}`, '--epoch', '4000', '--quiet'];
  const { status, out, err } = await runProcess(process.execPath, [MAIN, ...args]);
  t.is(status, 0, out.slice(-4000) + err);
  t.regex(
    out,
    /^seed \d+: 500\d\d operations in \d+ rounds on \d+ volumes, \d+ a second: clean \(.*write \d+/m,
  );
});

/** The native layer, of which one call does less than it says. */
function brokenEngine(): Engine {
  const native = loadNative();
  onMemory(native);
  const bufferedWrite: Native['bufferedWrite'] = (op, file, flags, buffer, offset, length, pos) => {
    const isLost = pos > 100_000 && length > 30_000;
    // What is written in its place is what is there: the answer is right and nothing has changed.
    if (isLost) native.bufferedWrite(op, file, flags, new Uint8Array(length), 0, length, pos);
    else native.bufferedWrite(op, file, flags, buffer, offset, length, pos);
  };
  return new Engine({ ...native, bufferedWrite } satisfies Native);
}

e2eSerial('a write that is lost is found, and the list shrunk to it', async (t) => {
  const image = join(await makeFolder(t), 'volume.img');
  const features = new Set(FEATURES);
  const plan = { seed: 7, ops: 5000, files: 3, features, kind: KINDS[0] as Kind, epochOps: 5000, image };
  const { broken } = await exercise({ ...plan, engine: brokenEngine() });
  if (broken === undefined) throw new Error('it was not found');
  t.true(broken.isRepeatable);
  t.true(broken.rounds.length <= 2, formatRounds(broken.rounds));
  t.regex(formatRounds(broken.rounds), /"k":"write"/);
  t.deepEqual(parseRounds(formatRounds(broken.rounds)), [...broken.rounds]);
});

for (const [of, what, epoch] of [
  ['queued', 'E16: direct requests that fail: contents are old or new', '700'],
  ['blocking', 'metadata, journal and write-back that fail: what was durable is there', '6000'],
] as const)
  e2eSerial(`${what}, seed ${seed}`, async (t) => {
    const args = ['--seed', `${seed}`, '--ops', '7000', '--epoch', epoch, '--faults', of, '--quiet'];
    const { status, out, err } = await runProcess(process.execPath, [MAIN, ...args]);
    t.is(status, 0, out.slice(-4000) + err);
    t.regex(out, /clean \(.*, EIO \d+\b/);
  });
