/**
 * The journal's, metadata's and write-back's requests fail. Up to the first error that surfaces all must be right;
 * then every call must end, with success or an errno; and after recovery on a repaired device nothing that was durable is
 * lost, no file holds bytes that are not its own, and e2fsck can make it sound.
 */
import { blockingFaults, type FaultyEngine } from './faulty-engine.js';
import { Failure } from './judge.js';
import { CLASSES } from './model.js';
import type { Round } from './operation.js';
import type { Random } from './random.js';
import type { Session } from './session.js';

const ROUNDS_BEFORE = 30;
const ROUNDS_WITH = 120;
const ROUNDS_AFTER = 10;

export async function surviveFaults(
  session: Session,
  faulty: FaultyEngine,
  random: Random,
  draw: () => Round,
): Promise<void> {
  for (let left = ROUNDS_BEFORE; left > 0; left -= 1) await session.run(draw());
  faulty.planned = blockingFaults(random);
  let troubled = !(await session.tryRemount());
  for (let left = ROUNDS_WITH; left > 0 && !troubled; left -= 1)
    troubled = await session.runUntilTrouble(draw());
  // Of the rest only that it ends.
  if (session.isMounted) for (let left = ROUNDS_AFTER; left > 0; left -= 1) await session.runUnjudged(draw());
  await session.abandon();
  faulty.planned = {};
  if (!(await session.tryRemount())) throw new Failure('the repaired volume cannot be mounted');
  await session.expectOwnBytes(isOwn);
  await session.finishWithRepair();
}

/** Whether a byte may be in a file: zero, or of those that only it is given. */
function isOwn(file: number, byte: number): boolean {
  return byte === 0 || (byte - 1) % CLASSES === file % CLASSES;
}
