/** From samples to ratios, a table, and a verdict per aim. */
import type { Sample } from './sample.js';

/** One run of one contestant. */
export interface Run extends Sample {
  readonly contestant: string;
  readonly workload: string;
  readonly queueDepth: number;
  readonly round: number;
}

/** A figure with its spread over the rounds. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** One contestant in one workload at one queue depth. */
export interface Row {
  readonly workload: string;
  readonly queueDepth: number;
  readonly contestant: string;
  readonly iops: Spread;
  readonly p50Micros: number;
  readonly p99Micros: number;
  readonly cpuMicrosPerOp: number;
  readonly deviceWritesPerOp: number | undefined;
  readonly deviceFlushesPerOp: number | undefined;
  /** How many times as fast uext4 is: one ratio per round, of runs next to each other. */
  readonly uext4Ratio: Spread | undefined;
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  const lower = sorted.length % 2 === 1 ? upper : (sorted[middle - 1] as number);
  return { median: (lower + upper) / 2, min: sorted[0] as number, max: sorted.at(-1) as number };
}

function median(values: readonly number[]): number {
  return spread(values).median;
}

/** Of figures that not everybody has. */
function medianIfAny(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length > 0 ? median(known) : undefined;
}

/** Whom a contestant is compared with: calls that wait with calls that wait. */
function rivalOf(contestant: string): string {
  return contestant.endsWith(' sync') ? 'uext4 sync' : 'uext4';
}

/** One row per contestant of this workload and queue depth, in the order of their first runs. */
export function rowsOf(runs: readonly Run[], workload: string, queueDepth: number): Row[] {
  const here = runs.filter((run) => run.workload === workload && run.queueDepth === queueDepth);
  return [...new Set(here.map((run) => run.contestant))].map((contestant) => {
    const own = here.filter((run) => run.contestant === contestant);
    const rival = rivalOf(contestant);
    const ratios = own.flatMap((run) => {
      const other = here.find((next) => next.contestant === rival && next.round === run.round);
      return other === undefined || rival === contestant ? [] : [other.iops / run.iops];
    });
    return {
      workload,
      queueDepth,
      contestant,
      iops: spread(own.map((run) => run.iops)),
      p50Micros: median(own.map((run) => run.p50Micros)),
      p99Micros: median(own.map((run) => run.p99Micros)),
      cpuMicrosPerOp: median(own.map((run) => run.cpuMicrosPerOp)),
      deviceWritesPerOp: medianIfAny(own.map((run) => run.deviceWritesPerOp)),
      deviceFlushesPerOp: medianIfAny(own.map((run) => run.deviceFlushesPerOp)),
      uext4Ratio: ratios.length > 0 ? spread(ratios) : undefined,
    };
  });
}

const COLUMNS = [
  'contestant',
  'k/s',
  'p50 µs',
  'p99 µs',
  'CPU µs/op',
  'writes/op',
  'flushes/op',
  'uext4 ÷ it',
  'spread',
] as const;

/** The rows as text. */
export function tableOf(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.contestant,
    (row.iops.median / 1000).toFixed(1),
    row.p50Micros.toFixed(1),
    row.p99Micros.toFixed(1),
    row.cpuMicrosPerOp.toFixed(1),
    row.deviceWritesPerOp?.toFixed(2) ?? '',
    row.deviceFlushesPerOp?.toFixed(2) ?? '',
    row.uext4Ratio?.median.toFixed(2) ?? '',
    row.uext4Ratio === undefined ? '' : `${row.uext4Ratio.min.toFixed(2)}–${row.uext4Ratio.max.toFixed(2)}`,
  ]);
  const lines = [[...COLUMNS], ...cells];
  const widths = COLUMNS.map((_, column) =>
    Math.max(...lines.map((line) => (line[column] as string).length)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[0] as number) : cell.padStart(widths[column] as number),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** What uext4 wants to reach at queue depth 32. */
export const AIMS: readonly { contestant: string; atLeast: number }[] = [
  { contestant: 'fio', atLeast: 0.85 },
  { contestant: 'node:fs', atLeast: 2 },
  { contestant: 'loop fio', atLeast: 0.9 },
  { contestant: 'loop node:fs', atLeast: 0.9 },
];
export const AIM_DEPTH = 32;

/** The rows in which uext4 is slower than the kernel's ext4 used from node:fs in the same way. */
export function slowerThanKernel(rows: readonly Row[]): string[] {
  return rows
    .filter(
      ({ contestant, uext4Ratio }) => contestant.startsWith('loop node:fs') && (uext4Ratio?.median ?? 1) < 1,
    )
    .map(({ workload, queueDepth, contestant, uext4Ratio }) => {
      const ratio = uext4Ratio?.median.toFixed(2) ?? '';
      return `slower than ${contestant}: ${workload}, queue depth ${queueDepth}: ${ratio}`;
    });
}

/** One line: reached, missed by how much, or not measured. */
export function verdict(rows: readonly Row[], aim: (typeof AIMS)[number]): string {
  const parts = (['write', 'read'] as const).flatMap((op) => {
    const found = rows.find(
      (row) => row.workload === op && row.queueDepth === AIM_DEPTH && row.contestant === aim.contestant,
    )?.uext4Ratio?.median;
    if (found === undefined) return [];
    const what = op === 'write' ? 'overwrites' : 'reads';
    const missed = found < aim.atLeast ? `missed by ${(aim.atLeast - found).toFixed(2)}` : 'reached';
    return [`${what} ${found.toFixed(2)}, ${missed}`];
  });
  const found = parts.length > 0 ? parts.join('; ') : 'not measured';
  return `aim: QD${AIM_DEPTH} ≥ ${aim.atLeast} × ${aim.contestant}: ${found}`;
}
