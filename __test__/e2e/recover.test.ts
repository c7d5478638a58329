/** `uext4 recover` on volumes that a killed process and a stopped kernel left behind. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { run } from '../../src/cli/run.js';
import { Volume } from '../../src/index.js';
import { assertClean, e2e, hasTool, makeImage, MiB, pattern, runProcess } from './support.js';

const API = new URL('../../src/index.js', import.meta.url).href;

async function recover(...argv: string[]): Promise<{ status: number; report: Record<string, unknown> }> {
  const out: string[] = [];
  const status = await run(
    {
      out: async (data) => void out.push(String(data)),
      err: (line) => out.push(line),
      open: (image, options) => Volume.open(image, options),
      format: (image, options) => Volume.format(image, options),
      recover: (image, options) => Volume.recover(image, options),
    },
    ['recover', '--json', ...argv],
    () => '',
  );
  return { status, report: JSON.parse(out.join('')) as Record<string, unknown> };
}

/** A dry run tells what the recovery then does, and writes nothing; after it there is nothing to do. */
async function recoverInSteps(t: ExecutionContext, image: string): Promise<Record<string, unknown>> {
  const before = await readFile(image);
  const would = await recover('--dry-run', image);
  t.is(would.status, 3);
  t.true(before.equals(await readFile(image)), 'a dry run writes nothing');
  const did = await recover(image);
  t.is(did.status, 0);
  t.deepEqual({ ...did.report, dryRun: true }, would.report);
  t.like(did.report, { needed: true, hasErrors: false, orphansBad: 0, orphansUnsupported: 0 });
  await assertClean(t, image);
  const recovered = await readFile(image);
  for (const argv of [[image], ['--dry-run', image]]) {
    const nothing = await recover(...argv);
    t.is(nothing.status, 0);
    t.like(nothing.report, { needed: false, transactions: 0 });
  }
  t.true(recovered.equals(await readFile(image)), 'a volume that needs nothing is only read');
  return did.report;
}

/** Leaves an unlinked file open, and a file that is gone together with its blocks; then waits to be killed. */
const WRITER = `
const { Volume } = await import(process.argv[1]);
const volume = await Volume.open(process.argv[2]);
await volume.writeFile('/open', 'x'.repeat(100_000));
const open = await volume.open('/open', 'r+');
for (let index = 0; index < 50; index += 1) await volume.mkdir('/dir-' + index);
await volume.sync();
for (let index = 0; index < 50; index += 2) await volume.rmdir('/dir-' + index);
await volume.unlink('/open');
await volume.writeFile('/synced', 'still here', { flush: true });
process.stdout.write('ready\\n');
setInterval(() => open.stat(), 1000);
`;

e2e('recover: a killed writer, with an unlinked file that was open', async (t) => {
  const image = await makeImage(t);
  const child = spawn(process.execPath, ['--input-type=module', '--eval', WRITER, API, image], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'close');
  const report = await recoverInSteps(t, image);
  t.true((report['transactions'] as number) >= 2);
  t.true((report['blocks'] as number) > 5);
  t.true((report['revoked'] as number) > 0, 'the directories that went were in the log');
  t.is(report['orphansDeleted'], 1);
  const volume = await Volume.open(image, { readOnly: true });
  t.is(await volume.readFile('/synced', 'utf8'), 'still here');
  t.is((await volume.readdir('/')).filter((name) => name.startsWith('dir-')).length, 25);
  await volume.close();
});

const STOP_KERNEL = `
open(my $root, '<', $ARGV[0]) or die; my $flag = pack('L', 1); ioctl($root, 0x8004587D, $flag) or die $!`;

e2e('recover: a volume that the kernel stopped writing', async (t) => {
  if (process.getuid?.() !== 0 || !(await hasTool('perl', '-v')) || !(await hasTool('losetup', '-f'))) {
    t.log('skipped: needs root, perl and loop devices');
    t.pass();
    return;
  }
  const image = await makeImage(t, { sizeBytes: 32 * MiB });
  const folder = `${image}.mount`;
  await mkdir(folder);
  const mounted = await runProcess('mount', ['-t', 'ext4', '-o', 'loop', image, folder]);
  if (mounted.status !== 0) {
    t.log(`skipped: ${mounted.err}`);
    t.pass();
    return;
  }
  const data = pattern(300_000);
  try {
    await mkdir(join(folder, 'sub'));
    for (let index = 0; index < 20; index += 1) await writeFile(join(folder, 'sub', `file-${index}`), data);
    await runProcess('sync', ['-f', folder]);
    const stopped = await runProcess('perl', ['-e', STOP_KERNEL, folder]);
    t.is(stopped.status, 0, stopped.err);
  } finally {
    await runProcess('umount', [folder]);
  }
  const copy = `${image}.copy`;
  await copyFile(image, copy);
  const report = await recoverInSteps(t, copy);
  t.true((report['transactions'] as number) > 0);
  const volume = await Volume.open(copy, { readOnly: true });
  for (let index = 0; index < 20; index += 1)
    t.true(data.equals(await volume.readFile(`/sub/file-${index}`)), `file ${index}`);
  await volume.close();
});
