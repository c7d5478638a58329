/** The tree on the host that is copied: what is in it, and what of it a volume cannot take yet. */
import type { BigIntStats } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** What every kind of entry has. */
interface Common {
  /** Relative to the tree's root, '' for the root itself. */
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
}

export interface TreeFile extends Common {
  readonly type: 'file';
  readonly sizeBytes: number;
  /** Of the content, known once it was copied. */
  sha256?: string;
}

export interface TreeDirectory extends Common {
  readonly type: 'directory';
}

export interface TreeSymlink extends Common {
  readonly type: 'symlink';
  readonly target: Buffer;
}

export type TreeEntry = TreeFile | TreeDirectory | TreeSymlink;

/** A whole tree, parents before children. */
export interface Tree {
  readonly root: string;
  readonly entries: TreeEntry[];
  /** Neither file, directory nor symbolic link. */
  readonly skipped: string[];
}

function common(path: string, stats: BigIntStats): Common {
  return {
    path,
    mode: Number(stats.mode) & 0o7777,
    atimeNs: stats.atimeNs,
    mtimeNs: stats.mtimeNs,
  };
}

async function addEntry(tree: Tree, path: string): Promise<void> {
  const host = join(tree.root, path);
  const stats = await lstat(host, { bigint: true });
  const about = common(path, stats);
  if (stats.isFile()) {
    tree.entries.push({ type: 'file', ...about, sizeBytes: Number(stats.size) });
  } else if (stats.isSymbolicLink()) {
    tree.entries.push({ type: 'symlink', ...about, target: await readlink(host, 'buffer') });
  } else if (stats.isDirectory()) {
    tree.entries.push({ type: 'directory', ...about });
    const names = await readdir(host);
    names.sort();
    for (const name of names) await addEntry(tree, join(path, name));
  } else {
    tree.skipped.push(path);
  }
}

/** Reads the tree below `root`, which must be a directory. */
export async function readTree(root: string): Promise<Tree> {
  const tree: Tree = { root, entries: [], skipped: [] };
  await addEntry(tree, '');
  return tree;
}

/** The files of a tree. */
export function filesOf(tree: Tree): TreeFile[] {
  return tree.entries.filter((entry) => entry.type === 'file');
}

/** Bytes of content. */
export function contentBytes(tree: Tree): number {
  return filesOf(tree).reduce((sum, file) => sum + file.sizeBytes, 0);
}
