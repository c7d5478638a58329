/** Where we differ from Linux 6.18, and why. A row that no case needs fails the test. */
import type { Case } from './case.js';

export interface Deviation {
  readonly reason: string;
  /** Whether the row speaks of this case. */
  readonly of: (about: Case) => boolean;
  /** What the case's differences look like, each of them. */
  readonly difference: RegExp;
}

export const DEVIATIONS: readonly Deviation[] = [];

/** The row that excuses all differences of a case. */
export function deviationOf(about: Case, differences: readonly string[]): Deviation | undefined {
  return DEVIATIONS.find(
    ({ of, difference }) => of(about) && differences.every((line) => difference.test(line)),
  );
}
