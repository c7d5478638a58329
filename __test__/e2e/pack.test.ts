/** What `npm pack` makes, installed into an empty project without Rust and without a network. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { e2e, makeFolder, ROOT, runProcess } from './support.js';

const FIRST_EXAMPLE = /```js\n([\s\S]*?)```/;

e2e("the packed package runs the README's first example", async (t) => {
  t.timeout(180_000);
  const folder = await makeFolder(t);
  // Nothing is built: what is here is what is packed.
  const packed = await runProcess(
    'npm',
    ['pack', '--ignore-scripts', '--json', '--pack-destination', folder],
    {
      cwd: ROOT,
    },
  );
  t.is(packed.status, 0, packed.err);
  const [{ filename, files }] = JSON.parse(packed.out) as [{ filename: string; files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  t.true(paths.some((path) => /^native\/uext4\..+\.node$/.test(path)));
  for (const path of ['README.md', 'LICENSE-MIT', 'LICENSE-APACHE', 'dist/index.d.ts'])
    t.true(paths.includes(path), path);
  t.false(paths.some((path) => /^(src|crates|__test__|scripts)\/|main-job/.test(path)));

  const project = join(folder, 'project');
  await mkdir(project);
  await writeFile(join(project, 'package.json'), '{ "name": "empty", "private": true }');
  // No cargo: only Node and the system's tools.
  const env = {
    ...process.env,
    PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
    npm_config_cache: join(folder, 'cache'),
  };
  const install = ['install', '--offline', '--no-audit', '--no-fund', join(folder, filename)];
  const installed = await runProcess('npm', install, { cwd: project, env });
  t.is(installed.status, 0, installed.err);

  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  await writeFile(join(project, 'example.mjs'), FIRST_EXAMPLE.exec(readme)?.[1] ?? '');
  const ran = await runProcess(process.execPath, ['example.mjs'], { cwd: project, env });
  t.is(ran.status, 0, ran.err);
  t.regex(ran.out, /hello page 7 := hello/);
  const version = await runProcess('npx', ['--no-install', 'uext4', '--version'], { cwd: project, env });
  t.regex(version.out, /^\d+\.\d+\.\d+/);
});
