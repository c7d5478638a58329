/** Copies a tree into a volume: bodies by direct writes, tails below one device block through the page cache. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import { timeOf } from '../cli/time.js';
import { allocAligned, constants, type FileHandle, type Volume } from '../index.js';
import { writeAll } from '../whole-file.js';
import { inFlight } from './in-flight.js';
import type { Progress } from './progress.js';
import { filesOf, type Tree, type TreeEntry, type TreeFile } from './tree.js';

const FILES_IN_FLIGHT = 8;
const CHUNK_BYTES = 1024 * 1024;
const { O_CREAT, O_DIRECT, O_EXCL, O_RDWR } = constants;

/** The tree's place in the volume. */
export interface Target {
  readonly volume: Volume;
  /** An absolute path that does not exist yet. */
  readonly root: string;
}

/** Where an entry of the tree is in the volume. */
export function volumePath(root: string, path: string): string {
  return path === '' ? root : `${root}/${path}`;
}

async function copyContent(
  source: string,
  file: FileHandle,
  chunk: Buffer,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  const from = await open(source, 'r');
  let bytes = 0;
  try {
    for (;;) {
      // A full chunk, so that only the last one has a tail.
      let filled = 0;
      while (filled < chunk.length) {
        const { bytesRead } = await from.read(chunk, filled, chunk.length - filled, bytes + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      if (filled === 0) break;
      const part = chunk.subarray(0, filled);
      hash.update(part);
      await writeAll(file, part, bytes);
      bytes += filled;
      if (filled < chunk.length) break;
    }
  } finally {
    await from.close();
  }
  return { bytes, sha256: hash.digest('hex') };
}

async function copyFile(tree: Tree, entry: TreeFile, target: Target, chunk: Buffer): Promise<number> {
  const path = volumePath(target.root, entry.path);
  const file = await target.volume.open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0o600);
  try {
    const { bytes, sha256 } = await copyContent(join(tree.root, entry.path), file, chunk);
    entry.sha256 = sha256;
    await file.chmod(entry.mode);
    await file.utimes(timeOf(entry.atimeNs), timeOf(entry.mtimeNs));
    return bytes;
  } finally {
    await file.close();
  }
}

async function makeNames(entries: readonly TreeEntry[], target: Target): Promise<void> {
  for (const entry of entries) {
    const path = volumePath(target.root, entry.path);
    if (entry.type === 'directory') await target.volume.mkdir(path, 0o700);
    else if (entry.type === 'symlink') await target.volume.symlink(entry.target, path);
  }
}

/** Children first: making a child moves its parent's times. */
async function finishDirectories(entries: readonly TreeEntry[], { volume, root }: Target): Promise<void> {
  for (const entry of entries.toReversed()) {
    if (entry.type !== 'directory') continue;
    const path = volumePath(root, entry.path);
    await volume.chmod(path, entry.mode);
    await volume.utimes(path, timeOf(entry.atimeNs), timeOf(entry.mtimeNs));
  }
}

/** Copies the tree, notes the hash of every file in its entry, and returns the bytes copied. */
export async function copyIn(
  tree: Tree,
  target: Target,
  progress: Progress,
  signal: AbortSignal,
): Promise<number> {
  await makeNames(tree.entries, target);
  const chunks = Array.from({ length: FILES_IN_FLIGHT }, () => allocAligned(CHUNK_BYTES));
  let total = 0;
  await inFlight(filesOf(tree), FILES_IN_FLIGHT, async (entry, worker) => {
    signal.throwIfAborted();
    const bytes = await copyFile(tree, entry, target, chunks[worker] as Buffer);
    total += bytes;
    progress.add(1);
  });
  await finishDirectories(tree.entries, target);
  return total;
}
