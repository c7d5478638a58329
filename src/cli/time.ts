/** Node cuts a number of seconds down to microseconds: a little more than one survives that in a double. */
const ABOVE_MICROSECOND = 0.3;

/**
 * A time for utimes: seconds, rounded to microseconds, which is what a double holds. Before 1970 a Date of
 * milliseconds, because a negative number means now.
 */
export function timeOf(nanoseconds: bigint): number | Date {
  if (nanoseconds < 0n) return new Date(Math.floor(Number(nanoseconds) / 1e6));
  return (Number((nanoseconds + 500n) / 1000n) + ABOVE_MICROSECOND) / 1e6;
}
