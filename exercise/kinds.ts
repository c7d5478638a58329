/** The kinds of volumes that are exercised, by name. */
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';

import { formatContainer } from '../src/containers.js';
import { defaultEngine } from '../src/default-engine.js';
import type { Engine } from '../src/engine.js';
import type { OpenOptions } from '../src/index.js';
import { runCommand } from '../src/main-job/command.js';

const SIZE_BYTES = 64 * 1024 * 1024;
/** Less than all files may want. */
const TIGHT_BYTES = 700 * 1024;
const TMPFS_MAGIC = 0x01021994;
const MKE2FS_TIMEOUT_MS = 60_000;

export interface Kind {
  readonly name: string;
  readonly blockBytes: number;
  /** Block maps instead of extents: mke2fs makes such volumes. */
  readonly bitmapFormat: boolean;
  readonly open: OpenOptions;
  /** The free space that files are left; ENOSPC is to be expected. */
  readonly freeBytes?: number;
}

export const KINDS: readonly Kind[] = [
  { name: '4096', blockBytes: 4096, bitmapFormat: false, open: {} },
  { name: '1024', blockBytes: 1024, bitmapFormat: false, open: {} },
  { name: '2048-writeback', blockBytes: 2048, bitmapFormat: false, open: { data: 'writeback' } },
  { name: '1024-map', blockBytes: 1024, bitmapFormat: true, open: {} },
  { name: '4096-journal', blockBytes: 4096, bitmapFormat: false, open: { data: 'journal' } },
  // So little memory that pages are evicted all the time.
  { name: '4096-small', blockBytes: 4096, bitmapFormat: false, open: { pageCacheBytes: 256 * 1024 } },
  // Loaded and stored in place: the image has to lie in memory.
  { name: '4096-dax', blockBytes: 4096, bitmapFormat: false, open: { dax: true } },
  { name: '1024-journal', blockBytes: 1024, bitmapFormat: false, open: { data: 'journal' } },
  { name: '4096-full', blockBytes: 4096, bitmapFormat: false, open: {}, freeBytes: TIGHT_BYTES },
  { name: '1024-full', blockBytes: 1024, bitmapFormat: false, open: {}, freeBytes: TIGHT_BYTES },
  { name: '1024-map-full', blockBytes: 1024, bitmapFormat: true, open: {}, freeBytes: TIGHT_BYTES },
  {
    name: '1024-journal-full',
    blockBytes: 1024,
    bitmapFormat: false,
    open: { data: 'journal' },
    freeBytes: TIGHT_BYTES,
  },
  {
    name: '4096-dax-full',
    blockBytes: 4096,
    bitmapFormat: false,
    open: { dax: true },
    freeBytes: TIGHT_BYTES,
  },
];

/** Makes an empty volume of this kind. */
export async function format(kind: Kind, image: string, engine: Engine = defaultEngine()): Promise<void> {
  await formatContainer(engine, image, { sizeBytes: SIZE_BYTES, blockSize: kind.blockBytes, force: true });
  if (!kind.bitmapFormat) return;
  const args = ['-q', '-F', '-t', 'ext4', '-b', `${kind.blockBytes}`, '-O', '^extent,^64bit', image];
  const { status, output } = await runCommand('mke2fs', args, MKE2FS_TIMEOUT_MS);
  if (status !== 0) throw new Error(`mke2fs: ${output}`);
}

/** Those that can be made at this path. */
export async function kindsHere(image: string): Promise<readonly Kind[]> {
  const { isMissing } = await runCommand('mke2fs', ['-V'], MKE2FS_TIMEOUT_MS);
  const { type } = await statfs(dirname(image));
  return KINDS.filter(
    ({ bitmapFormat, open }) => !(bitmapFormat && isMissing) && (open.dax !== true || type === TMPFS_MAGIC),
  );
}
