/** Opening a volume that another host may have: the wait can be ended, and does not hold up the end of a process. */
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Volume } from '../../src/index.js';
import { e2e, hasTool, makeFolder, runProcess } from './support.js';

const API = new URL('../../src/index.js', import.meta.url).href;

/** 6 minutes: longer than any test or process here may take. */
const WAITS_LONG = ['-q', '-t', 'ext4', '-O', 'mmp', '-E', 'mmp_update_interval=300'];

/** A volume with multi-mount protection whose host has died; nothing where mke2fs is missing. */
async function abandoned(t: ExecutionContext): Promise<string | undefined> {
  if (!(await hasTool('mke2fs', '-V'))) {
    t.log('skipped: mke2fs is missing');
    t.pass();
    return undefined;
  }
  const image = join(await makeFolder(t), 'volume.img');
  const made = await runProcess('mke2fs', WAITS_LONG.concat(image, '16M'));
  t.is(made.status, 0, made.err);
  const dies = `import { Volume } from ${JSON.stringify(API)};
    await Volume.open(${JSON.stringify(image)});
    process.kill(process.pid, 'SIGKILL');`;
  await runProcess(process.execPath, ['--input-type=module', '-e', dies]);
  return image;
}

e2e('a signal ends the wait for other hosts', async (t) => {
  const image = await abandoned(t);
  if (image === undefined) return;
  const controller = new AbortController();
  const opening = Volume.open(image, { signal: controller.signal });
  setImmediate(() => {
    controller.abort();
  });
  await t.throwsAsync(opening, { name: 'AbortError', code: 'ABORT_ERR' });
  await t.throwsAsync(Volume.open(image, { signal: controller.signal }), { name: 'AbortError' });
  await t.throwsAsync(Volume.open(image, { signal: 1 as never }), { code: 'ERR_INVALID_ARG_TYPE' });
});

for (const call of ['open', 'recover'] as const) {
  e2e(`${call}: a process ends while it waits for other hosts`, async (t) => {
    const image = await abandoned(t);
    if (image === undefined) return;
    const waits = `import { Volume } from ${JSON.stringify(API)};
    Volume.${call}(${JSON.stringify(image)}).then(() => console.log('done'), () => {});
    setTimeout(() => process.exit(7), 100);`;
    const { status, out } = await runProcess(process.execPath, ['--input-type=module', '-e', waits]);
    t.is(status, 7);
    t.is(out, '');
  });
}
