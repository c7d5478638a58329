/**
 * Recursive calls, beside node:fs on a folder of the host. `rm` of `/link/`, `/link/.` and `/dir/.` emptied the directory
 * before it failed; a directory that contains its parent was read without end.
 */
import fs from 'node:fs/promises';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Volume } from '../../src/index.js';
import { e2e, hasTool, makeFolder, makeImage, runProcess } from './support.js';

type Api = Pick<Volume, 'readdir' | 'rm' | 'mkdir' | 'writeFile' | 'symlink' | 'lstat'>;

/** A tree with links, below `root`. */
async function plant(api: Api, root: string): Promise<void> {
  await api.rm(root, { recursive: true, force: true });
  await api.mkdir(`${root}/dir/sub`, { recursive: true });
  await api.mkdir(`${root}/empty`);
  for (const name of ['file', 'dir/a', 'dir/sub/b']) await api.writeFile(`${root}/${name}`, name);
  for (const [target, name] of [
    ['dir', 'link'],
    ['file', 'tofile'],
    ['nowhere', 'dangling'],
    ['loop', 'loop'],
    ['..', 'dir/up'],
  ] as const)
    await api.symlink(target, `${root}/${name}`);
}

async function names(api: Api, root: string, below = ''): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await api.readdir(root + below, { withFileTypes: true })) {
    found.push(`${below}/${entry.name}`);
    if (entry.isDirectory()) found.push(...(await names(api, root, `${below}/${entry.name}`)));
  }
  return found.sort();
}

const ENDS = ['', '/', '//', '/.', '/./', '/..'];
const PATHS = [
  ...[
    'dir',
    'link',
    'file',
    'tofile',
    'dangling',
    'loop',
    'empty',
    'missing',
    'dir/up',
    'dir/sub',
    'link/sub',
  ].flatMap((name) => ENDS.map((end) => name + end)),
  'missing/x',
  'missing/x/',
  'missing/./x',
  'missing/../dir',
  'file/x/y',
  'dangling/x',
  'link/x/y',
  'dir/sub/../a',
];

/** What is asked; `root` is where the tree lies. */
const CALLS: Record<string, (api: Api, root: string, name: string) => Promise<unknown>> = {
  rm: (api, root, name) => api.rm(`${root}/${name}`),
  'rm recursive': (api, root, name) => api.rm(`${root}/${name}`, { recursive: true }),
  'rm recursive force': (api, root, name) => api.rm(`${root}/${name}`, { recursive: true, force: true }),
  'mkdir recursive': async (api, root, name) =>
    (await api.mkdir(`${root}/${name}`, { recursive: true }))?.slice(root.length),
};

async function answer(
  api: Api,
  root: string,
  call: (api: Api, root: string, name: string) => Promise<unknown>,
  name: string,
): Promise<string> {
  await plant(api, root);
  let said: string;
  try {
    said = `ok ${JSON.stringify(await call(api, root, name))}`;
  } catch (error) {
    said = (error as NodeJS.ErrnoException).code ?? String(error);
  }
  return `${said}: ${(await names(api, root).catch(() => ['gone'])).join(' ')}`;
}

/** Of the calls here, nothing may leave the tree: `..` from its top is left out. */
const leaves = (name: string) =>
  /^(dir|link|file|tofile|dangling|loop|empty|missing)\/\.\.$|^dir\/up/.test(name);

for (const [title, call] of Object.entries(CALLS)) {
  e2e(`${title}: what node:fs answers, and what it leaves`, async (t) => {
    const folder = await makeFolder(t);
    const volume = await Volume.open(await makeImage(t, { sizeBytes: 16 << 20 }));
    await volume.mkdir('/w');
    for (const name of PATHS) {
      if (title !== 'mkdir recursive' && leaves(name)) continue;
      t.is(
        await answer(volume, '/w/t', call, name),
        await answer(fs as unknown as Api, join(folder, 't'), call, name),
        `${title} ${name}`,
      );
    }
    await volume.close();
  });
}

e2e('readdir recursive: the names that node:fs lists', async (t) => {
  const folder = await makeFolder(t);
  const volume = await Volume.open(await makeImage(t, { sizeBytes: 16 << 20 }));
  const host = join(folder, 't');
  await plant(volume, '/t');
  await plant(fs as unknown as Api, host);
  const list = async (api: Api, root: string, name: string) => {
    try {
      const found = await api.readdir(`${root}/${name}`, { recursive: true, withFileTypes: true });
      return found.map((entry) => `${entry.name} ${entry.isDirectory()} ${entry.isSymbolicLink()}`).sort();
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    }
  };
  for (const name of [
    '',
    '.',
    'dir',
    'dir/',
    'dir/.',
    'link',
    'link/',
    'dir/sub/..',
    'file',
    'file/',
    'missing',
  ])
    t.deepEqual(await list(volume, '/t', name), await list(fs as unknown as Api, host, name), name);
  await volume.close();
});

async function debugfs(t: ExecutionContext, image: string, ...requests: string[]): Promise<void> {
  for (const request of requests) t.is((await runProcess('debugfs', ['-w', '-R', request, image])).status, 0);
}

e2e('a directory that contains one above itself is EUCLEAN', async (t) => {
  if (!(await hasTool('debugfs', '-V'))) {
    t.log('skipped: debugfs is missing');
    t.pass();
    return;
  }
  const image = await makeImage(t, { sizeBytes: 16 << 20 });
  const before = await Volume.open(image);
  await before.mkdir('/a/b/deep', { recursive: true });
  await before.close();
  await debugfs(t, image, 'link a a/b/c', 'link a a/b/d');
  const volume = await Volume.open(image);
  const damaged = { code: 'EUCLEAN' };
  await t.throwsAsync(volume.readdir('/', { recursive: true }), damaged);
  await t.throwsAsync(volume.readdir('/a', { recursive: true, withFileTypes: true }), damaged);
  await t.throwsAsync(volume.rm('/a', { recursive: true, force: true }), damaged);
  await volume.close();
});

e2e('directories without file types: the inodes are asked', async (t) => {
  if (!(await hasTool('mke2fs', '-V'))) {
    t.log('skipped: mke2fs is missing');
    t.pass();
    return;
  }
  const image = join(await makeFolder(t), 'volume.img');
  const made = await runProcess('mke2fs', ['-q', '-t', 'ext4', '-O', '^filetype', image, '16M']);
  t.is(made.status, 0, made.err);
  const volume = await Volume.open(image);
  await plant(volume, '/t');
  const entries = await volume.readdir('/t', { withFileTypes: true });
  const kinds = entries.map((entry) => [
    entry.name,
    entry.isFile() ? 'file' : entry.isDirectory() ? 'directory' : entry.isSymbolicLink() ? 'link' : '?',
  ]);
  t.deepEqual(Object.fromEntries(kinds), {
    dir: 'directory',
    empty: 'directory',
    file: 'file',
    link: 'link',
    tofile: 'link',
    dangling: 'link',
    loop: 'link',
  });
  t.is((await volume.readdir('/t', { recursive: true })).length, 11);
  await volume.rm('/t', { recursive: true });
  t.deepEqual(await volume.readdir('/'), ['lost+found']);
  await volume.close();
});
