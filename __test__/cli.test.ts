import { mkdtemp, mkdir, readFile, readlink, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test from 'ava';

import { run } from '../src/cli/run.js';
import { parseSize } from '../src/cli/size.js';
import { formatContainer, recoverContainer } from '../src/containers.js';
import { Engine } from '../src/engine.js';
import { Volume } from '../src/volume.js';
import { FakeNative } from './fake-native.js';

function setup(): {
  native: FakeNative;
  cli: (...argv: string[]) => Promise<{ status: number; out: string; err: string }>;
} {
  const native = new FakeNative();
  const engine = new Engine(native);
  const cli = async (...argv: string[]): Promise<{ status: number; out: string; err: string }> => {
    const out: Uint8Array[] = [];
    const err: string[] = [];
    const status = await run(
      {
        out: async (data) => {
          out.push(Buffer.from(data as string));
        },
        err: (line) => err.push(line),
        open: (image, options) => Volume.openOn(engine, image, options),
        format: (image, options) => formatContainer(engine, image, options),
        recover: (image, options) => recoverContainer(engine, image, options ?? {}),
      },
      argv,
      () => '0.1.0',
    );
    return { status, out: Buffer.concat(out).toString(), err: err.join('\n') };
  };
  return { native, cli };
}

for (const [text, bytes] of [
  ['4096', 4096],
  ['64M', 67_108_864],
  ['2GiB', 2_147_483_648],
  ['1.5k', 1536],
  ['1TB', 2 ** 40],
  ['', undefined],
  ['-1', undefined],
  ['1X', undefined],
  ['0.3', undefined],
] as const) {
  test(`sizes: "${text}"`, (t) => t.is(parseSize(text), bytes));
}

for (const argv of [
  [],
  ['nope'],
  ['mkfs'],
  ['mkfs', 'image'],
  ['mkfs', 'image', '--size', 'big'],
  ['ls', 'image', '--nope'],
  ['cat', 'image'],
  ['put', 'image', 'from'],
  ['mv', 'image', 'from'],
  ['ln', '-s', 'image', 'target'],
  ['info', 'image', 'more'],
]) {
  test(`wrong usage is exit status 2: ${argv.join(' ')}`, async (t) => {
    const { status, out, err } = await setup().cli(...argv);
    t.is(status, 2);
    t.is(out, '');
    t.regex(err, /uext4 --help/);
  });
}

test('help and version', async (t) => {
  const { cli } = setup();
  for (const argv of [['--help'], ['-h'], ['help'], ['ls', '--help']]) {
    const { status, out } = await cli(...argv);
    t.is(status, 0);
    t.regex(out, /uext4 mkfs IMAGE \[--size N\]/);
  }
  t.is((await cli('--version')).out, '0.1.0\n');
});

test('mkfs hands the options on and reports', async (t) => {
  const { cli } = setup();
  const { status, out } = await cli(
    'mkfs',
    'image',
    '--size',
    '64M',
    '--label',
    'data',
    '--block-size',
    '1K',
    '--json',
  );
  t.is(status, 0);
  t.deepEqual(JSON.parse(out), { path: 'image', sizeBytes: 67_108_864, label: 'data', blockSize: 1024 });
  const bad = await cli('mkfs', 'image', '--size', '64M', '--block-size', '3000');
  t.is(bad.status, 1);
  t.regex(bad.err, /power of two/);
});

test('info', async (t) => {
  const { cli } = setup();
  t.regex((await cli('info', 'image')).out, /^blockSize: 4096$/m);
  t.is((JSON.parse((await cli('info', 'image', '--json')).out) as { backend: string }).backend, 'memory');
});

test('recover: the status of a dry run says whether there is something to do', async (t) => {
  const { native, cli } = setup();
  const nothing = await cli('recover', 'image');
  t.is(nothing.status, 0);
  t.is(nothing.out, 'nothing to do\n');
  native.recovery = { ...native.recovery, needed: true, transactions: 3, blocks: 17, orphansDeleted: 2 };
  const would = await cli('recover', '--dry-run', 'image');
  t.is(would.status, 3);
  t.regex(would.out, /^to do:\ntransactions: 3\nblocks: 17\n/);
  const did = await cli('recover', 'image', '--json');
  t.is(did.status, 0);
  t.like(JSON.parse(did.out), { needed: true, dryRun: false, transactions: 3, orphansDeleted: 2 });
  native.recovery = { ...native.recovery, hasErrors: true };
  t.like(await cli('recover', 'image'), {
    status: 4,
    err: 'uext4: errors were seen on image: check it with e2fsck',
  });
  native.recovery = { ...native.recovery, hasErrors: false, orphansLeft: [12, 13] };
  t.like(await cli('recover', 'image'), {
    status: 4,
    err: 'uext4: damaged orphans were left on image: inode 12, 13',
  });
  native.script.set('recoverVolume', [-117]);
  const failed = await cli('recover', 'image');
  t.is(failed.status, 1);
  t.regex(failed.err, /EUCLEAN: .*recover 'image'/);
});

test('put, ls, cat, get: a tree comes back with its modes, times and links', async (t) => {
  const { native, cli } = setup();
  const host = await mkdtemp(join(tmpdir(), 'uext4-cli-'));
  t.teardown(() => rm(host, { recursive: true }));
  const source = join(host, 'tree');
  await mkdir(join(source, 'sub'), { recursive: true });
  await writeFile(join(source, 'sub', 'file'), 'hello', { mode: 0o750 });
  await symlink('sub/file', join(source, 'link'));
  const time = new Date(1_600_000_000_000);
  await utimes(join(source, 'sub', 'file'), time, time);

  t.like(await cli('put', 'image', source, '/'), { status: 0, err: '' });
  t.is(native.openFiles, 0);
  t.is((await cli('ls', 'image')).out, 'tree\n');
  t.is((await cli('ls', '-R', 'image', '/')).out, 'tree\ntree/link\ntree/sub\ntree/sub/file\n');
  t.regex(
    (await cli('ls', '-l', 'image', '/tree/sub')).out,
    /^-rwxr-x--- 1 0 0 {12}5 2020-09-13 12:26:40 file\n$/,
  );
  t.regex((await cli('ls', '-l', 'image', '/tree')).out, / link -> sub\/file\n/);
  const listed = JSON.parse((await cli('ls', '--json', '-R', 'image')).out) as {
    path: string;
    size: number;
  }[];
  t.like(listed.at(-1), { path: '/tree/sub/file', type: 'file', size: 5, mode: 0o750 });
  t.is((await cli('cat', 'image', '/tree/sub/file')).out, 'hello');

  const back = join(host, 'back');
  t.like(await cli('get', 'image', '/tree', back), { status: 0, err: '' });
  t.is(await readFile(join(back, 'sub', 'file'), 'utf8'), 'hello');
  t.is(await readlink(join(back, 'link')), 'sub/file');
  const stats = await stat(join(back, 'sub', 'file'));
  t.is(stats.mode & 0o777, 0o750);
  t.is(stats.mtimeMs, time.getTime());
});

test('mv and ln: to a name, and into a directory', async (t) => {
  const { native, cli } = setup();
  native.addFile('/file', Buffer.from('hello'));
  native.addFile('/other', Buffer.from('other'));
  const host = await mkdtemp(join(tmpdir(), 'uext4-cli-'));
  t.teardown(() => rm(host, { recursive: true }));
  t.like(await cli('put', 'image', host, '/dir'), { status: 0 });
  t.like(await cli('mv', 'image', '/file', '/dir'), { status: 0, out: '', err: '' });
  t.like(await cli('ln', 'image', '/dir/file', '/second'), { status: 0 });
  t.like(await cli('ln', '-s', 'image', '/dir/file', '/dir/link'), { status: 0 });
  t.like(await cli('mv', 'image', '/other', '/second'), { status: 0 });
  t.is((await cli('ls', '-R', 'image', '/')).out, 'dir\ndir/file\ndir/link\nsecond\n');
  t.is((await cli('cat', 'image', '/second')).out, 'other');
  t.is((await cli('cat', 'image', '/dir/link')).out, 'hello');
  const { status, err } = await cli('ln', 'image', '/dir', '/again');
  t.is(status, 1);
  t.is(err, "uext4: EPERM: operation not permitted, link '/dir' -> '/again'");
});

test('a failure is exit status 1 with the error of node:fs, and the volume is closed', async (t) => {
  const { native, cli } = setup();
  t.deepEqual(await cli('cat', 'image', '/missing'), {
    status: 1,
    out: '',
    err: "uext4: ENOENT: no such file or directory, open '/missing'",
  });
  t.is(native.calls.at(-1), 'closeVolume');
  native.script.set('openVolume', [-16]);
  t.is(
    (await cli('ls', 'image')).err,
    "uext4: EBUSY: resource busy or locked, mount 'image' (scripted, openVolume in a test)",
  );
});
