/** How large the container must be. */
import { contentBytes, filesOf, type Tree } from './tree.js';

const KiB = 1024;
const MiB = 1024 * KiB;
export const DEFAULT_BYTES = 1024 * MiB;
/** mke2fs makes one inode for so many bytes. */
const BYTES_PER_INODE = 16 * KiB;
/** Entries of ours and of ext4 beside the tree. */
const SPARE_INODES = 64;
const BLOCK_BYTES = 4 * KiB;
const STEP_BYTES = 256 * MiB;

/** Bytes and inodes that a tree takes at the least, the load of the job included. */
export function demandOf(tree: Tree): { bytes: number; inodes: number } {
  const slack = filesOf(tree).length * (BLOCK_BYTES / 2) + tree.entries.length * KiB;
  return { bytes: contentBytes(tree) + slack, inodes: tree.entries.length + SPARE_INODES };
}

/** What fits a tree: 1 GiB, or more in steps of 256 MiB, with room for the journal, tables and the load. */
export function defaultBytes(tree: Tree): number {
  const { bytes, inodes } = demandOf(tree);
  const wanted = Math.max(bytes * 1.2 + STEP_BYTES, inodes * BYTES_PER_INODE);
  return Math.max(DEFAULT_BYTES, Math.ceil(wanted / STEP_BYTES) * STEP_BYTES);
}

/** The size of the file that the random overwrites go to: a sixteenth of the volume, at most 64 MiB. */
export function loadBytes(volumeBytes: number): number {
  const share = Math.min(64 * MiB, volumeBytes / 16);
  return Math.max(MiB, Math.floor(share / MiB) * MiB);
}
