/** The examples run, and the README shows what they are. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import test from 'ava';

import { assertClean, e2e, makeFolder, MiB, ROOT, runProcess } from './support.js';

const EXAMPLES = ['storage-engine', 'electron-utility', 'benchmark'];

for (const name of EXAMPLES) {
  test(`README contains ${name}`, async (t) => {
    const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
    const code = await readFile(join(ROOT, 'examples', `${name}.mjs`), 'utf8');
    t.true(readme.includes(`\`\`\`js\n${code}\`\`\`\n`));
  });
}

for (const [name, expected] of [
  ['storage-engine', /^hello page 7 := hello$/m],
  ['benchmark', /^uext4 \(.+\): \d+ IOPS.*\nnode:fs: \d+ IOPS/m],
] as const) {
  e2e(`${name} runs`, async (t) => {
    const { status, out, err } = await runProcess(process.execPath, [join(ROOT, 'examples', `${name}.mjs`)]);
    t.is(status, 0, err);
    t.regex(out, expected);
  });
}

e2e(
  'electron-utility answers messages (child_process.fork in the place of utilityProcess.fork)',
  async (t) => {
    const image = join(await makeFolder(t), 'image');
    const child = fork(join(ROOT, 'examples', 'electron-utility.mjs'));
    t.teardown(() => child.kill());
    let id = 0;
    const call = async (
      name: string,
      ...args: unknown[]
    ): Promise<{ value?: unknown; error?: { code?: string } }> => {
      id += 1;
      child.send({ id, call: name, args });
      const [answer] = (await once(child, 'message')) as [{ id: number; value?: unknown }];
      t.is(answer.id, id);
      return answer;
    };
    t.like(await call('open', image, 64 * MiB), { value: { readOnly: false } });
    await call('writeFile', '/note', 'from another process');
    t.is((await call('readFile', '/note')).value, 'from another process');
    t.deepEqual(((await call('readdir', '/')).value as string[]).toSorted(), ['lost+found', 'note']);
    t.is((await call('readFile', '/missing')).error?.code, 'ENOENT');
    t.like(await call('nope'), { error: { message: 'no such call: nope' } });
    const exited = once(child, 'exit');
    await call('close');
    t.deepEqual((await exited)[0], 0);
    await assertClean(t, image);
  },
);
