/** The kernel's ext4 on a twin of the container, over a loop device with direct I/O. Needs root. */
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';

import { Volume } from '../src/index.js';
import { containerBytes } from './targets.js';
import { runTool } from './tools.js';
import type { Undo } from './undo.js';

/** Formats and mounts the twin; everything is taken down by `undo`. Returns the folder that it is mounted on, and its block device. */
export async function mountTwin(
  folder: string,
  fileBytes: number,
  undo: Undo,
): Promise<{ folder: string; device: string }> {
  const container = join(folder, 'twin.img');
  await Volume.format(container, { sizeBytes: containerBytes(fileBytes), force: true });
  const device = runTool('losetup', ['--find', '--show', '--direct-io=on', container]);
  undo.push(() => runTool('losetup', ['--detach', device]));
  if (readFileSync(`/sys/block/${basename(device)}/loop/dio`, 'utf8').trim() !== '1')
    console.log(`${device} does no direct I/O here: the kernel's figures go through the host's page cache.`);
  const target = join(folder, 'mnt');
  mkdirSync(target);
  undo.push(() => rmdirSync(target));
  // The inode tables are zeroed in the background otherwise, while we measure.
  runTool('mount', ['-t', 'ext4', '-o', 'noinit_itable', device, target]);
  undo.push(() => {
    try {
      runTool('umount', [target]);
    } catch {
      // Requests in flight keep it busy: it goes with the last of them.
      runTool('umount', ['--lazy', target]);
    }
  });
  return { folder: target, device: basename(device) };
}
