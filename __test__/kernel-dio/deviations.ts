/** Where our answers may differ from those of Linux 6.18, and why. A row that no case needs fails the test. */
import type { Case, Step } from './case.js';

export interface Deviation {
  readonly reason: string;
  /** Whether the row speaks of this case. */
  readonly of: (about: Case) => boolean;
  /** What each difference looks like that it excuses. */
  readonly difference: RegExp;
}

/** Position and length fit the sectors; only where the memory lies, or how it is cut, does not. */
function isMemoryLuck(step: Step, sector: number): boolean {
  if (step.direct !== true || (step.k !== 'pread' && step.k !== 'pwrite')) return false;
  const segments = step.iov ?? [[step.mem ?? 0, step.len ?? 0] as const];
  const bytes = segments.reduce((sum, [, length]) => sum + length, 0);
  const isOff = segments.some(
    ([memory, length]) => memory !== 'bad' && (memory % 512 !== 0 || length % 512 !== 0),
  );
  return isOff && step.pos % sector === 0 && bytes % sector === 0;
}

const isFull = (about: Case): boolean => about.group === 'enospc';

export const DEVIATIONS: readonly Deviation[] = [
  {
    reason: 'no contract: whether the block layer takes such memory depends on how it cuts the request',
    of: ({ op, sector }) => op.some((step) => isMemoryLuck(step, sector)),
    difference: /./,
  },
  {
    reason:
      'C24: atomic writes go through the journal where the device has none of its own; Linux refuses them there, before it ' +
      'looks at the length',
    of: ({ op }) =>
      op.some((step) => 'rwf' in step && step.direct === true && (step.rwf?.includes('ATOMIC') ?? false)),
    difference: /^(op\d (\d+|"EINVAL"), Linux "EOPNOTSUPP"|(times|size|extents|blocks|content) .*)$/,
  },
  {
    reason: 'no counterpart: JavaScript has no memory that is not mapped',
    of: ({ op }) => op.some((step) => 'iov' in step && step.iov.some(([memory]) => memory === 'bad')),
    difference: /^no counterpart: memory that is not mapped$/,
  },
  {
    reason: 'no counterpart: numbers are exact below 2^53',
    of: ({ group }) => group === 'max',
    difference: /^no counterpart: a position or length beyond 2\^53$/,
  },
  {
    reason: 'no caller has CAP_FSETID here: set-user-ID goes as it does for anybody else on Linux',
    of: ({ op, result }) => result.mode !== undefined && op.some(({ as }) => as === 'root'),
    difference: /^mode "\d?777", Linux "[246]777"$|^mode "755", Linux "4755"$/,
  },
  {
    reason: 'volumes with inline_data are mounted read-only',
    of: ({ map }) => map === 'inline',
    difference: /./,
  },
  {
    reason: 'a NOWAIT read of a hole needs no page here, and so never waits',
    of: ({ group }) => group === 'dread-nowait',
    difference: /^op0 \d+, Linux "EAGAIN"$/,
  },
  {
    reason: 'no contract: Linux zeroes small unwritten parts beside a buffered write, and finds data there',
    of: ({ group, mount }) => group === 'seek' && mount === 'journal',
    difference: /^op\d \d+, Linux \d+$/,
  },
  {
    reason:
      'delayed allocation keeps room for the tree beside the data, so that write-back cannot run out; Linux takes what it ' +
      'needs then from the reserve. And Linux reserves for a whole large folio or not at all',
    of: (about) => isFull(about) && about.map === 'extent',
    difference: /^(op\d|size|extents|allocated|blocks) /,
  },
  {
    reason: 'the same with a block map, where each block may need tables of its own',
    of: (about) => isFull(about) && about.map === 'indirect',
    difference: /^(op\d|size|extents|allocated|blocks) /,
  },
  {
    reason: 'B9: what a failed direct write leaves in its range may be old or new',
    of: ({ result, op }) =>
      op.some((step, index) => step.direct === true && result.ops[index]?.err === 'ENOSPC'),
    difference: /^content /,
  },
];

/** The row that excuses all differences of a case. */
export function deviationOf(about: Case, differences: readonly string[]): Deviation | undefined {
  return DEVIATIONS.find(
    ({ of, difference }) => of(about) && differences.every((line) => difference.test(line)),
  );
}
