/** The same calls on node:fs and on a volume: results and errors must have the same shape. */
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { Engine } from '../src/engine.js';
import { Volume } from '../src/volume.js';
import { FakeNative } from './fake-native.js';

interface Shape {
  code: unknown;
  errno: unknown;
  syscall: unknown;
  path: unknown;
  dest: unknown;
  message: string;
  type: string;
}

type Api = Pick<
  Volume,
  | 'open'
  | 'mkdir'
  | 'readdir'
  | 'unlink'
  | 'rmdir'
  | 'stat'
  | 'lstat'
  | 'symlink'
  | 'readlink'
  | 'chmod'
  | 'utimes'
  | 'readFile'
  | 'writeFile'
>;

async function makeVolume(): Promise<{ native: FakeNative; volume: Volume }> {
  const native = new FakeNative();
  return { native, volume: await Volume.openOn(new Engine(native), '/image') };
}

async function shape(work: () => Promise<unknown>, root: string): Promise<Shape | { value: unknown }> {
  try {
    return { value: await work() };
  } catch (error) {
    const { code, errno, syscall, path, dest, message, constructor } = error as Shape & Error;
    const text = JSON.stringify([path, dest, message]).replaceAll(root, '');
    const [relPath, relDest, relMessage] = JSON.parse(text) as [unknown, unknown, string];
    return {
      code,
      errno,
      syscall,
      path: relPath,
      dest: relDest,
      message: relMessage,
      type: constructor.name,
    };
  }
}

/** Runs the same on both, each in an own folder with a file, a directory and a link. */
async function same(
  t: ExecutionContext,
  name: string,
  work: (api: Api, root: string) => Promise<unknown>,
): Promise<void> {
  const host = await fs.mkdtemp(join(tmpdir(), 'uext4-'));
  try {
    const { volume } = await makeVolume();
    await volume.mkdir('/root');
    const sides: [Api, string][] = [
      [fs as unknown as Api, host],
      [volume, '/root'],
    ];
    const shapes = [];
    for (const [api, root] of sides) {
      await api.writeFile(`${root}/file`, 'content');
      await api.mkdir(`${root}/dir`);
      await api.writeFile(`${root}/dir/inside`, '');
      await api.symlink('file', `${root}/link`);
      shapes.push(await shape(() => work(api, root), root));
    }
    t.deepEqual(shapes[1], shapes[0], name);
  } finally {
    await fs.rm(host, { recursive: true });
  }
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names the type that is dodged
const wrong = <T>(value: unknown): T => value as T;

const CASES: Record<string, (api: Api, root: string) => Promise<unknown>> = {
  'open: missing': (api, root) => api.open(`${root}/missing`),
  'open: missing parent': (api, root) => api.open(`${root}/missing/x`, 'w'),
  'open: exists, exclusive': (api, root) => api.open(`${root}/file`, 'wx'),
  'open: a directory for writing': (api, root) => api.open(`${root}/dir`, 'r+'),
  'open: below a file': (api, root) => api.open(`${root}/file/x`),
  'open: bad flags': (api, root) => api.open(`${root}/file`, 'zz'),
  'open: flags of a wrong type': (api, root) => api.open(`${root}/file`, wrong<string>({})),
  'open: path of a wrong type': (api) => api.open(wrong<string>(7)),
  'open: path undefined': (api) => api.open(wrong<string>(undefined)),
  'open: path with a null byte': (api) => api.open('a\0b'),
  'open: bad mode': (api, root) => api.open(`${root}/new`, 'w', 'abc'),
  'mkdir: exists': (api, root) => api.mkdir(`${root}/dir`),
  'mkdir: exists, recursive': (api, root) => api.mkdir(`${root}/dir`, { recursive: true }),
  'mkdir: a file, recursive': (api, root) => api.mkdir(`${root}/file`, { recursive: true }),
  'mkdir: below a file, recursive': (api, root) => api.mkdir(`${root}/file/x/y`, { recursive: true }),
  'mkdir: recursive returns the first': async (api, root) =>
    (await api.mkdir(`${root}/a/b/c`, { recursive: true }))?.replace(root, ''),
  'mkdir: missing parent': (api, root) => api.mkdir(`${root}/a/b`),
  'readdir: names': async (api, root) => (await api.readdir(root)).toSorted(),
  'readdir: buffers': async (api, root) => (await api.readdir(root, 'buffer')).map(String).toSorted(),
  'readdir: missing': (api, root) => api.readdir(`${root}/missing`),
  'readdir: a file': (api, root) => api.readdir(`${root}/file`),
  'readdir: types': async (api, root) =>
    (await api.readdir(root, { withFileTypes: true }))
      .map((entry) => [
        entry.name,
        entry.isFile(),
        entry.isDirectory(),
        entry.isSymbolicLink(),
        entry.path === root,
      ])
      .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
  'unlink: missing': (api, root) => api.unlink(`${root}/missing`),
  'rmdir: missing': (api, root) => api.rmdir(`${root}/missing`),
  'rmdir: not empty': (api, root) => api.rmdir(`${root}/dir`),
  'rmdir: a file': (api, root) => api.rmdir(`${root}/file`),
  'stat: missing': (api, root) => api.stat(`${root}/missing`),
  'lstat: missing': (api, root) => api.lstat(`${root}/missing`),
  'stat and lstat of a link': async (api, root) => [
    (await api.stat(`${root}/link`)).isFile(),
    (await api.lstat(`${root}/link`)).isSymbolicLink(),
    (await api.stat(`${root}/file`)).size,
    typeof (await api.stat(`${root}/file`, { bigint: true })).mtimeNs,
  ],
  'symlink: exists': (api, root) => api.symlink('to', `${root}/file`),
  'readlink: of a link': (api, root) => api.readlink(`${root}/link`),
  'readlink: of a file': (api, root) => api.readlink(`${root}/file`),
  'chmod: missing': (api, root) => api.chmod(`${root}/missing`, 0o600),
  'chmod: bad mode': (api, root) => api.chmod(`${root}/file`, wrong<number>('9z')),
  'chmod: then stat': async (api, root) => {
    await api.chmod(`${root}/file`, '640');
    return (await api.stat(`${root}/file`)).mode;
  },
  'utimes: missing': (api, root) => api.utimes(`${root}/missing`, 1, 1),
  'utimes: wrong type': (api, root) => api.utimes(`${root}/file`, 1, wrong<number>('x')),
  'utimes: then stat': async (api, root) => {
    await api.utimes(`${root}/file`, '12.5', new Date(1_600_000_000_123));
    const { atimeMs, mtimeMs, mtime } = await api.stat(`${root}/file`);
    return [atimeMs, Math.round(mtimeMs), mtime.toISOString()];
  },
  'readFile: text': (api, root) => api.readFile(`${root}/file`, 'utf8'),
  'readFile: bytes': (api, root) => api.readFile(`${root}/file`),
  'readFile: missing': (api, root) => api.readFile(`${root}/missing`),
  'readFile: a directory': (api, root) => api.readFile(`${root}/dir`),
  'writeFile: append': async (api, root) => {
    await api.writeFile(`${root}/file`, '+more', { flag: 'a' });
    await api.writeFile(`${root}/file`, new Uint16Array([0x4142]), { flag: 'a' });
    return api.readFile(`${root}/file`, { encoding: 'latin1' });
  },
  'writeFile: shorter': async (api, root) => {
    await api.writeFile(`${root}/file`, 'ab');
    return api.readFile(`${root}/file`, 'utf8');
  },
  'FileHandle: use after close': async (api, root) => {
    const file = await api.open(`${root}/file`, 'r+');
    await file.close();
    await file.close();
    const results = [];
    for (const work of [
      () => file.read(Buffer.alloc(1)),
      () => file.write('x'),
      () => file.stat(),
      () => file.truncate(),
      () => file.chmod(0o600),
      () => file.utimes(1, 1),
      () => file.sync(),
      () => file.datasync(),
    ]) {
      results.push(await shape(work, root));
    }
    return results;
  },
};

for (const [name, work] of Object.entries(CASES)) {
  test(name, (t) => same(t, name, work));
}

type Handle = Awaited<ReturnType<Volume['open']>>;

const HANDLE_CASES: Record<string, [string, (file: Handle) => Promise<unknown>]> = {
  'read: whole': ['r', async (file) => (await file.read(Buffer.alloc(10))).bytesRead],
  'read: shape': [
    'r',
    async (file) => Object.keys(await file.read({ buffer: Buffer.alloc(4), position: 3 })),
  ],
  'read: position, then sequential': [
    'r',
    async (file) => {
      const read = async (...args: [number, number, number | null]): Promise<string> => {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(8), ...args);
        return `${bytesRead}:${buffer.toString('latin1')}`;
      };
      return [await read(0, 3, null), await read(1, 2, 5), await read(0, 8, null), await read(0, 8, null)];
    },
  ],
  'read: offset beyond': ['r', (file) => file.read(Buffer.alloc(4), 5, 1, 0)],
  'read: length beyond': ['r', (file) => file.read(Buffer.alloc(4), 2, 3, 0)],
  'read: negative offset': ['r', (file) => file.read(Buffer.alloc(4), -1, 3, 0)],
  'read: negative length': ['r', (file) => file.read(Buffer.alloc(4), 0, -3, 0)],
  'read: offset of a wrong type': ['r', (file) => file.read(Buffer.alloc(4), wrong<number>('1'), 1, 0)],
  'read: position of a wrong type': ['r', (file) => file.read(Buffer.alloc(4), 0, 1, wrong<number>('1'))],
  'read: empty buffer': ['r', (file) => file.read(Buffer.alloc(0), 0, 1, 0)],
  'read: not readable': ['w', (file) => file.read(Buffer.alloc(4), 0, 1, 0)],
  'write: shape': ['r+', (file) => file.write(Buffer.from('abc'), 1, 2, 0)],
  'write: text': ['r+', (file) => file.write('żółw', 2, 'utf8')],
  'write: sequential': [
    'r+',
    async (file) => {
      await file.write('ab');
      await file.write(Buffer.from('cd'));
      await file.write('XY', 6);
      await file.write('ef');
      const { buffer, bytesRead } = await file.read(Buffer.alloc(20), 0, 20, 0);
      return buffer.toString('latin1', 0, bytesRead);
    },
  ],
  'write: append ignores the position': [
    'a+',
    async (file) => {
      await file.write('!', 0);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(20), 0, 20, 0);
      return buffer.toString('latin1', 0, bytesRead);
    },
  ],
  'write: offset beyond': ['r+', (file) => file.write(Buffer.alloc(4), 5, 1, 0)],
  'write: length beyond': ['r+', (file) => file.write(Buffer.alloc(4), 2, 3, 0)],
  'write: negative offset': ['r+', (file) => file.write(Buffer.alloc(4), -1, 3, 0)],
  'write: negative length': ['r+', (file) => file.write(Buffer.alloc(4), 0, -3, 0)],
  'write: fractional offset': ['r+', (file) => file.write(Buffer.alloc(4), 0.5, 1, 0)],
  'write: a number': ['r+', (file) => file.write(wrong<Buffer>(5))],
  'write: an object': ['r+', (file) => file.write(wrong<Buffer>({}))],
  'write: bad encoding': ['r+', (file) => file.write('x', 0, wrong<BufferEncoding>('nope'))],
  'write: not writable': ['r', (file) => file.write('x')],
  'write: empty': ['r', (file) => file.write(Buffer.alloc(0))],
  'truncate: not writable': ['r', (file) => file.truncate(1)],
  'truncate: wrong type': ['r+', (file) => file.truncate(wrong<number>('1'))],
  'truncate: fraction': ['r+', (file) => file.truncate(1.5)],
  'truncate: shorter and longer': [
    'r+',
    async (file) => {
      await file.truncate(3);
      await file.truncate(5);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0);
      return `${bytesRead} ${buffer.toString('latin1')}`;
    },
  ],
  'chmod: bad mode': ['r+', (file) => file.chmod(wrong<number>(-1))],
  'utimes: wrong type': ['r+', (file) => file.utimes(wrong<number>({}), 1)],
  'stat, sync, datasync': [
    'r+',
    async (file) => [(await file.stat()).size, await file.sync(), await file.datasync()],
  ],
};

for (const [name, [flags, work]] of Object.entries(HANDLE_CASES)) {
  test(`FileHandle ${name}`, (t) =>
    same(t, name, async (api, root) => {
      const file = await api.open(`${root}/file`, flags);
      try {
        return await work(file);
      } finally {
        await file.close();
      }
    }));
}

test('EUCLEAN and EBADMSG have a name and the place', async (t) => {
  const { native, volume } = await makeVolume();
  native.script.set('stat', [-117, -74]);
  const damaged = await t.throwsAsync(volume.stat('/x'), { code: 'EUCLEAN' });
  t.is(damaged?.message, "EUCLEAN: structure needs cleaning, stat '/x' (scripted, stat in a test)");
  t.like(damaged, { errno: -117, syscall: 'stat', path: '/x', place: 'stat in a test' });
  await t.throwsAsync(volume.stat('/x'), { code: 'EBADMSG', message: /bad message/ });
});

test('errors carry the stack of whoever awaits', async (t) => {
  const { volume } = await makeVolume();
  async function caller(): Promise<void> {
    await volume.stat('/missing');
  }
  const error = await t.throwsAsync(caller());
  t.regex(error?.stack ?? '', /caller/);
});

test('close waits for operations in flight, and a volume closes its files', async (t) => {
  const { native, volume } = await makeVolume();
  native.addFile('/file', Buffer.from('content'));
  const file = await volume.open('/file', 'r+');
  await volume.open('/file');
  const order: string[] = [];
  const write = file.write('x').then(() => order.push('write'));
  const close = volume.close().then(() => order.push('close'));
  await Promise.all([write, close]);
  t.deepEqual(order, ['write', 'close']);
  t.is(native.openFiles, 0);
  t.is(native.calls.at(-1), 'closeVolume');
  await volume.close();
  await t.throwsAsync(volume.stat('/'), { code: 'EBADF', message: 'volume closed' });
  t.throws(() => volume.info(), { code: 'EBADF' });
});

test('O_TRUNC takes the lock and drains; the file is closed when it fails', async (t) => {
  const { native, volume } = await makeVolume();
  native.addFile('/file', Buffer.from('content'));
  native.script.set('truncate', [-30]);
  await t.throwsAsync(volume.open('/file', 'w'), { code: 'EROFS' });
  t.is(native.openFiles, 0);
  const file = await volume.open('/file', 'w');
  t.is((await file.stat()).size, 0);
  await file.close();
});

test('sync and asynchronous calls on one handle keep the position', async (t) => {
  const { native, volume } = await makeVolume();
  native.addFile('/file', Buffer.alloc(0));
  const file = await volume.open('/file', 'r+');
  native.hold = true;
  const first = file.write('aa');
  t.is(file.writeSync('bb'), 2);
  await first;
  const buffer = Buffer.alloc(8);
  t.is(file.readSync(buffer, 0, 8, 0), 4);
  t.is(buffer.toString('latin1', 0, 4), 'aabb');
  t.throws(() => file.readSync(buffer, 9, 1, 0), { code: 'ERR_OUT_OF_RANGE' });
  native.hold = false;
  await file.close();
  t.throws(() => file.writeSync('x'), { code: 'EBADF', message: 'file closed' });
});
