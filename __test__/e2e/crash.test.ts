/** A process that is killed: what was synced is there after recovery, by us, by e2fsck, and for a read-only opening. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, readFile } from 'node:fs/promises';

import type { ExecutionContext } from 'ava';

import { Volume } from '../../src/index.js';
import { assertClean, e2e, hasTool, makeImage, runProcess } from './support.js';

const API = new URL('../../src/index.js', import.meta.url).href;

/** Appends records, makes files and removes half of them again; says what is durable, then goes on. */
const WRITER = `
const { Volume, constants, allocAligned } = await import(process.argv[1]);
const { O_CREAT, O_RDWR, O_APPEND, O_DIRECT, O_SYNC } = constants;
const volume = await Volume.open(process.argv[2]);
const log = await volume.open('/log', 'a');
const direct = await volume.open('/direct', O_CREAT | O_RDWR | O_APPEND | O_DIRECT | O_SYNC);
const block = allocAligned(4096);
for (let index = 0; ; index += 1) {
  await log.write(String(index).padStart(99, '.') + '\\n');
  await volume.mkdir('/dir-' + index);
  await volume.writeFile('/dir-' + index + '/file', 'x'.repeat(index * 37));
  if (index % 2 === 1) {
    await volume.unlink('/dir-' + (index - 1) + '/file');
    await volume.rmdir('/dir-' + (index - 1));
  }
  block.fill(index % 251);
  await direct.write(block, 0, 4096);
  if (index % 5 === 4) {
    await volume.sync();
    process.stdout.write(String(index) + '\\n');
  }
}`;

/** Kills at random moments; a long run is `UEXT4_KILLS=200 npx ava __test__/e2e/crash.test.ts`. */
const KILLS = Number(process.env['UEXT4_KILLS'] ?? 20);

/**
 * Runs the writer, kills it `milliseconds` after it has said so many times that all is durable, and returns the last index
 * that was.
 */
async function writeAndKill(image: string, acknowledged: number, milliseconds = 0): Promise<number> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', WRITER, API, image], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  let out = '';
  let doomed = false;
  for await (const data of child.stdout) {
    out += String(data);
    if (out.split('\n').length > acknowledged && !doomed) {
      doomed = true;
      setTimeout(() => child.kill('SIGKILL'), milliseconds);
    }
  }
  await ended;
  return Number(out.trim().split('\n').at(-1));
}

async function assertDurable(t: ExecutionContext, volume: Volume, last: number): Promise<void> {
  const records = (await volume.readFile('/log', 'utf8')).split('\n');
  for (let index = 0; index <= last; index += 1) t.is(records[index], String(index).padStart(99, '.'));
  const blocks = await volume.readFile('/direct');
  t.true(blocks.length >= (last + 1) * 4096);
  for (let index = 0; index <= last; index += 1) t.is(blocks[index * 4096 + 99], index % 251);
  // Those of even numbers may be gone; the last odd ones before the sync are not.
  for (let index = 1; index <= last; index += 2)
    t.is((await volume.stat(`/dir-${index}/file`)).size, index * 37, `file ${index}`);
}

async function sha256(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

e2e('killed in the middle of its work', async (t) => {
  const image = await makeImage(t);
  let last = -1;
  for (const acknowledged of [1, 4, 12]) {
    await Volume.format(image, { sizeBytes: 64 * 1024 * 1024, force: true });
    last = await writeAndKill(image, acknowledged);
    t.true(last >= acknowledged * 5 - 1);

    const untouched = await sha256(image);
    const reader = await Volume.open(image, { readOnly: true });
    await assertDurable(t, reader, last);
    await reader.close();
    t.is(await sha256(image), untouched, 'a read-only opening writes nothing');

    const copy = `${image}.copy`;
    await copyFile(image, copy);
    const volume = await Volume.open(image);
    t.true(volume.stats().transactionsReplayed > 0);
    await assertDurable(t, volume, last);
    await volume.writeFile('/after', 'written after recovery');
    await volume.close();
    await assertClean(t, image);

    // e2fsck may process orphans and replay; then it must find nothing more.
    if (!(await hasTool('e2fsck', '-V'))) continue;
    const repaired = await runProcess('e2fsck', ['-fp', copy]);
    t.true(repaired.status === 0 || repaired.status === 1, repaired.out + repaired.err);
    await assertClean(t, copy);
    const theirs = await Volume.open(copy);
    await assertDurable(t, theirs, last);
    await theirs.close();
  }
});

e2e('killed at random moments', async (t) => {
  const image = await makeImage(t);
  let random = 20;
  for (let n = 0; n < KILLS; n += 1) {
    random = (random * 48_271) % 0x7fff_ffff;
    await Volume.format(image, { sizeBytes: 16 * 1024 * 1024, force: true });
    const last = await writeAndKill(image, 1, random % 100);
    const volume = await Volume.open(image);
    await assertDurable(t, volume, last);
    await volume.close();
    if (n % 10 === 0) await assertClean(t, image);
  }
});
