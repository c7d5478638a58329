/** Who else looks at the volume: e2fsck, and the kernel. */
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { runCommand } from './command.js';

/** What a judge said; a skipped one says why. */
export interface Verdict {
  readonly verdict: 'passed' | 'failed' | 'skipped';
  readonly detail: string;
}

const FSCK_TIMEOUT_MS = 10 * 60_000;
const MOUNT_TIMEOUT_MS = 60_000;

/** What e2fsck -n asked, its hint about extent trees left out: kernel volumes get that too. */
export function questionsOf(output: string): string[] {
  return output.split('\n').filter((line) => /\? (no|yes)\b/.test(line) && !/Optimize\? no/.test(line));
}

/** `e2fsck -fn`: exit status 0, and no question. */
export async function judgeWithE2fsck(image: string): Promise<Verdict> {
  const { status, isMissing, output } = await runCommand('e2fsck', ['-fn', image], FSCK_TIMEOUT_MS);
  if (isMissing) return { verdict: 'skipped', detail: 'e2fsck is missing: install e2fsprogs' };
  const questions = questionsOf(output);
  if (status === 0 && questions.length === 0) return { verdict: 'passed', detail: 'clean' };
  return { verdict: 'failed', detail: `exit status ${status ?? 'none'}\n${output.trim()}` };
}

/** Mounts the image read-only with the kernel, has `look` compare, and unmounts it. */
export async function judgeWithKernel(
  image: string,
  look: (mountPoint: string) => Promise<readonly string[]>,
): Promise<Verdict> {
  if (process.getuid?.() !== 0) return { verdict: 'skipped', detail: 'only root may mount' };
  const loop = await runCommand('losetup', ['--read-only', '--find', '--show', image], MOUNT_TIMEOUT_MS);
  if (loop.status !== 0)
    return { verdict: 'skipped', detail: `no loop device: ${loop.output.trim() || 'losetup failed'}` };
  const device = loop.output.trim();
  const mountPoint = await mkdtemp(join(tmpdir(), 'uext4-mount-'));
  try {
    const mounted = await runCommand(
      'mount',
      ['-t', 'ext4', '-o', 'ro', device, mountPoint],
      MOUNT_TIMEOUT_MS,
    );
    if (mounted.status !== 0) return refused(mounted.output);
    try {
      const differences = await look(mountPoint);
      return differences.length === 0
        ? { verdict: 'passed', detail: 'the same tree, modes, times, link targets and SHA-256' }
        : { verdict: 'failed', detail: differences.join('\n') };
    } finally {
      await runCommand('umount', [mountPoint], MOUNT_TIMEOUT_MS);
    }
  } finally {
    await runCommand('losetup', ['--detach', device], MOUNT_TIMEOUT_MS);
    await rmdir(mountPoint);
  }
}

/** A host without ext4 or without the right to mount says nothing about the volume. */
function refused(output: string): Verdict {
  const isHosts = /unknown filesystem type|permission denied|only root can/i.test(output);
  return { verdict: isHosts ? 'skipped' : 'failed', detail: `mount: ${output.trim()}` };
}
