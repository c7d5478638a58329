/** The shortest list that still fails: delta debugging over rounds, then over the operations of each. */
import { isVolumeOperation, type Round } from './operation.js';

/** Whether a list of rounds still fails. */
export type Fails = (rounds: readonly Round[]) => Promise<boolean>;

/** Shrinks within `budgetMs`; what it returns has failed. */
export async function shrink(
  rounds: readonly Round[],
  fails: Fails,
  budgetMs: number,
): Promise<readonly Round[]> {
  const end = performance.now() + budgetMs;
  const inTime = async (list: readonly Round[]): Promise<boolean> =>
    performance.now() < end && (await fails(list));
  const few = await withoutParts(rounds, inTime);
  return withoutOperations(few, inTime);
}

/** Leaves out ever smaller parts, from the end on. */
async function withoutParts(rounds: readonly Round[], fails: Fails): Promise<readonly Round[]> {
  let current = rounds;
  for (let part = Math.ceil(rounds.length / 2); part >= 1; part = part === 1 ? 0 : Math.ceil(part / 2)) {
    for (let from = current.length - part; from > -part; from -= part) {
      const start = Math.max(0, from);
      const shorter = [...current.slice(0, start), ...current.slice(from + part)];
      if (shorter.length < current.length && (await fails(shorter))) current = shorter;
    }
  }
  return current;
}

async function withoutOperations(rounds: readonly Round[], fails: Fails): Promise<readonly Round[]> {
  let current = rounds;
  for (let at = current.length - 1; at >= 0; at -= 1) {
    for (let index = 0; ;) {
      const round = current[at] as Round;
      if (isVolumeOperation(round) || round.length < 2 || index >= round.length) break;
      const shorter = round.filter((_, other) => other !== index);
      const list = current.with(at, shorter);
      if (await fails(list)) current = list;
      else index += 1;
    }
  }
  return current;
}
