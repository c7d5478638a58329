/**
 * A time for utimes: seconds, rounded to microseconds, which is what a double holds. Before 1970 a Date of
 * milliseconds, because a negative number means now.
 */
export function timeOf(nanoseconds: bigint): number | Date {
  if (nanoseconds < 0n) return new Date(Math.floor(Number(nanoseconds) / 1e6));
  return Number((nanoseconds + 500n) / 1000n) / 1e6;
}
