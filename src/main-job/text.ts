/** Numbers as a reader likes them. */
import type { RecordableHistogram } from 'node:perf_hooks';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** "1.5 GiB". */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** "p50 123 µs, p99 456 µs". */
export function latencyText(latency: RecordableHistogram): string {
  const at = (percentile: number): string =>
    `p${percentile} ${Math.round(latency.percentile(percentile) / 1000)} µs`;
  return `${at(50)}, ${at(99)}`;
}

/** "extending 3, short 1"; "none" where every count is zero. */
export function countsText(counts: Readonly<Record<string, number>>): string {
  const some = Object.entries(counts).filter(([, count]) => count > 0);
  return some.length === 0 ? 'none' : some.map(([name, count]) => `${name} ${count}`).join(', ');
}
