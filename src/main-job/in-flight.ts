/** Several at a time. */

/**
 * Runs `work` on every item, `workers` at a time; each worker is told its number. The first failure stops the
 * others after what they have in hand, and is thrown when all have stopped.
 */
export async function inFlight<T>(
  items: Iterable<T>,
  workers: number,
  work: (item: T, worker: number) => Promise<void>,
): Promise<void> {
  const queue = items[Symbol.iterator]();
  let failed = false;
  const drain = async (worker: number): Promise<void> => {
    while (!failed) {
      const next = queue.next();
      if (next.done === true) return;
      try {
        await work(next.value, worker);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: workers }, (_, worker) => drain(worker)));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
