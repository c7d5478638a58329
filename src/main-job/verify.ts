/** Compares a tree with what is found below a directory: names, types, modes, times, targets, SHA-256. */
import { createHash } from 'node:crypto';

import { inFlight } from './in-flight.js';
import type { Progress } from './progress.js';
import type { Tree, TreeEntry } from './tree.js';

/** What is known of one entry that was found. */
export interface Found {
  readonly type: 'file' | 'directory' | 'symlink' | 'other';
  readonly mode: number;
  readonly mtimeNs: bigint;
  readonly sizeBytes: number;
}

/** A tree to compare with: a volume, or a directory of the host. Paths as in {@link TreeEntry}. */
export interface Reader {
  stat(path: string): Promise<Found>;
  list(path: string): Promise<string[]>;
  readlink(path: string): Promise<Buffer>;
  /** Calls `take` with the content from beginning to end. `worker`: which of those that read at once. */
  read(path: string, worker: number, take: (data: Uint8Array) => void): Promise<void>;
}

/** Files that {@link compare} reads at once. */
export const READS_IN_FLIGHT = 4;
/** A double of seconds keeps a time of today to less than this. */
const TIME_TOLERANCE_NS = 1000n;
const MAX_DIFFERENCES = 20;

function timesDiffer(a: bigint, b: bigint): boolean {
  const difference = a > b ? a - b : b - a;
  return difference > TIME_TOLERANCE_NS;
}

async function differenceOf(entry: TreeEntry, reader: Reader, worker: number): Promise<string | undefined> {
  const found = await reader.stat(entry.path);
  if (found.type !== entry.type) return `is a ${found.type}, not a ${entry.type}`;
  if (entry.type === 'symlink') {
    const target = await reader.readlink(entry.path);
    return target.equals(entry.target) ? undefined : `points to ${target.toString()}`;
  }
  if (found.mode !== entry.mode) return `has mode ${found.mode.toString(8)}, not ${entry.mode.toString(8)}`;
  if (timesDiffer(found.mtimeNs, entry.mtimeNs)) return `has mtime ${found.mtimeNs} ns, not ${entry.mtimeNs}`;
  if (entry.type === 'directory') return undefined;
  const hash = createHash('sha256');
  await reader.read(entry.path, worker, (data) => hash.update(data));
  const sha256 = hash.digest('hex');
  return sha256 === entry.sha256
    ? undefined
    : `has SHA-256 ${sha256}, not ${entry.sha256} (${found.sizeBytes} bytes)`;
}

/** Names that are there and should not be, and the other way round. */
async function differencesOfNames(tree: Tree, reader: Reader): Promise<string[]> {
  const expected = new Set(tree.entries.map((entry) => entry.path));
  const differences: string[] = [];
  for (const directory of tree.entries) {
    if (directory.type !== 'directory') continue;
    for (const name of await reader.list(directory.path)) {
      const path = directory.path === '' ? name : `${directory.path}/${name}`;
      if (!expected.delete(path)) differences.push(`${path}: should not be there`);
    }
  }
  expected.delete('');
  for (const path of expected) differences.push(`${path}: is missing`);
  return differences;
}

/** What differs, one line each, at most twenty; empty when all is the same. */
export async function compare(
  tree: Tree,
  reader: Reader,
  progress: Progress,
  signal: AbortSignal,
): Promise<string[]> {
  const differences = await differencesOfNames(tree, reader);
  await inFlight(tree.entries, READS_IN_FLIGHT, async (entry, worker) => {
    signal.throwIfAborted();
    progress.add(1);
    if (differences.length >= MAX_DIFFERENCES) return;
    const difference = await differenceOf(entry, reader, worker).catch((error: Error) => error.message);
    if (difference !== undefined) differences.push(`${entry.path}: ${difference}`);
  });
  return differences.slice(0, MAX_DIFFERENCES);
}
