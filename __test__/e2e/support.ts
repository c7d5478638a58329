/** Volumes in real container files, over the native layer; e2fsck has the last word on each. */
import { spawn, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { Volume, type FormatOptions, type OpenOptions } from '../../src/index.js';
import { runCommand } from '../../src/main-job/command.js';
import { judgeWithE2fsck } from '../../src/main-job/judges.js';
import { nativePath } from '../../src/native/load.js';

/** `test`, or a skipped one where the native module was not built. */
export const e2e = existsSync(nativePath()) ? test : test.skip;

/** The same, one after the other. */
export const e2eSerial = existsSync(nativePath()) ? test.serial : test.skip;

export const MiB = 1024 * 1024;

/** A folder on the host that goes when the test ends. */
export async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'uext4-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A formatted container in a folder of its own. */
export async function makeImage(t: ExecutionContext, options: FormatOptions = {}): Promise<string> {
  const image = join(await makeFolder(t), 'volume.img');
  await Volume.format(image, { sizeBytes: 64 * MiB, ...options });
  return image;
}

/** Fails the test unless e2fsck finds the volume clean; says so where e2fsck is missing. */
export async function assertClean(t: ExecutionContext, image: string): Promise<void> {
  const { verdict, detail } = await judgeWithE2fsck(image);
  if (verdict === 'skipped') t.log(detail);
  t.not(verdict, 'failed', detail);
}

/** What a test does with its volume. */
export type Work = (volume: Volume, image: string) => Promise<void>;

/** Runs `work` with a new volume, unmounts it, and lets e2fsck judge. */
export async function withVolume(
  t: ExecutionContext,
  options: FormatOptions & OpenOptions,
  work: Work,
): Promise<void> {
  const { readOnly: _, direct, engine, ...format } = options;
  const image = await makeImage(t, format);
  const open: OpenOptions = {};
  if (direct !== undefined) open.direct = direct;
  if (engine !== undefined) open.engine = engine;
  const volume = await Volume.open(image, open);
  try {
    await work(volume, image);
  } finally {
    await volume.close();
  }
  await assertClean(t, image);
}

/** Whether a tool of the host answers. */
export async function hasTool(command: string, ...args: string[]): Promise<boolean> {
  return (await runCommand(command, args, 10_000)).status === 0;
}

/** Bytes that tell their place. */
export function pattern(bytes: number, seed = 1): Buffer {
  const buffer = Buffer.alloc(bytes);
  for (let index = 0; index < bytes; index += 1)
    buffer[index] = (index * 31 + (index >> 8) * 7 + seed) & 0xff;
  return buffer;
}

/** How another process ended. */
export interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a process to its end. */
export async function runProcess(
  command: string,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Ended> {
  const child = spawn(command, args, {
    timeout: 110_000,
    killSignal: 'SIGKILL',
    ...options,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout?.on('data', (data: Buffer) => {
    out += data.toString();
  });
  child.stderr?.on('data', (data: Buffer) => {
    err += data.toString();
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, out, err };
}

/** The built package's folder: what a user runs. */
export const ROOT = process.cwd();
