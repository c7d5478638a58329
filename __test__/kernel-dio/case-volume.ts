/** A volume for the cases: made by mke2fs as they say, opened and closed as they need it. */
import { spawnSync } from 'node:child_process';
import { copyFile, rm, truncate, writeFile } from 'node:fs/promises';

import { Volume, type OpenOptions } from '../../src/index.js';
import { judgeWithE2fsck } from '../../src/main-job/judges.js';
import type { Case } from './case.js';
import type { TappedEngine } from './tapped-engine.js';

/** What makes two cases run on the same kind of volume. */
export type Kind = Pick<Case, 'fsBlock' | 'sector' | 'map' | 'mount'>;

const FEATURES = [
  ['has_journal', 'ext_attr', 'resize_inode', 'dir_index', 'filetype', 'sparse_super', 'large_file'],
  ['huge_file', 'dir_nlink', 'extra_isize', 'metadata_csum', 'flex_bg'],
].flat();
const MAPS = { extent: ['extent', '64bit'], indirect: [], inline: ['extent', '64bit', 'inline_data'] };

/** Inode flags by chattr's letters. */
const INODE_FLAGS: Readonly<Record<string, number>> = { i: 0x10, a: 0x20 };

/** Runs a tool of the host, which must succeed. */
export function runTool(command: string, args: readonly string[], input = ''): string {
  const { error, status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', input });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${status}\n${stdout}${stderr}`);
  return stdout;
}

/** An empty volume of this kind, without a reserve for root. */
export async function makeVolume(path: string, kind: Kind, sizeBytes: number): Promise<void> {
  await rm(path, { force: true });
  await writeFile(path, '');
  await truncate(path, sizeBytes);
  const features = ['none', ...FEATURES, ...MAPS[kind.map]].join(',');
  runTool('mke2fs', [
    '-q',
    '-F',
    '-t',
    'ext4',
    '-b',
    `${kind.fsBlock}`,
    '-I',
    '256',
    '-m',
    '0',
    '-O',
    features,
    path,
  ]);
}

export class CaseVolume {
  readonly image: string;
  readonly tap: TappedEngine;
  readonly #kind: Kind;
  #device: string;
  #volume: Volume | undefined;
  #limit: number | undefined;

  constructor(image: string, kind: Kind, tap: TappedEngine) {
    this.image = image;
    this.#kind = kind;
    this.tap = tap;
    this.#device = image;
    // Containers have sectors of 512 bytes; others need a loop device, and that root.
    if (kind.sector !== 512)
      this.#device = runTool('losetup', [
        '--find',
        '--show',
        '--sector-size',
        `${kind.sector}`,
        image,
      ]).trim();
  }

  /** The mounted volume. */
  get volume(): Volume {
    if (this.#volume === undefined) throw new Error('not mounted');
    return this.#volume;
  }

  /** Mounts; under a limit for file sizes where one is given. Does nothing where it is mounted so. */
  async mount(limit?: number): Promise<void> {
    if (this.#volume !== undefined && this.#limit === limit) return;
    await this.unmount();
    const options: OpenOptions = { data: this.#kind.mount };
    if (limit !== undefined) options.maxFileSize = limit;
    this.#limit = limit;
    this.#volume = await Volume.openOn(this.tap.engine, this.#device, options);
  }

  async unmount(): Promise<void> {
    const volume = this.#volume;
    this.#volume = undefined;
    await volume?.close();
  }

  /** Sets inode flags, for which the volume is unmounted for a moment. */
  async chattr(path: string, letters: string): Promise<void> {
    await this.unmount();
    const flags = Array.from(letters, (letter) => INODE_FLAGS[letter] ?? Number.NaN);
    const stat = runTool('debugfs', ['-R', `stat ${path}`, this.#device]);
    const old = Number(/Flags: (0x[0-9a-f]+)/.exec(stat)?.[1]);
    const all = flags.reduce((sum, flag) => sum | flag, old);
    runTool('debugfs', ['-w', '-R', `set_inode_field ${path} flags 0x${all.toString(16)}`, this.#device]);
    await this.mount();
  }

  /** Unmounts; e2fsck must find it clean. Returns what it said otherwise. */
  async judge(): Promise<string | undefined> {
    await this.unmount();
    const { verdict, detail } = await judgeWithE2fsck(this.#device);
    return verdict === 'failed' ? detail : undefined;
  }

  /** Unmounts, and gives the device back. */
  async dispose(): Promise<void> {
    await this.unmount().catch(() => undefined);
    if (this.#device !== this.image) runTool('losetup', ['--detach', this.#device]);
    this.#device = this.image;
  }
}

/** A copy of an image. */
export async function copyImage(from: string, to: string): Promise<void> {
  await copyFile(from, to);
}
