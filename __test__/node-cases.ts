/** Calls that node:fs and a volume must answer in the same shape: results, and errors with their fields. */
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import type { Volume } from '../src/volume.js';

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
  | 'rename'
  | 'link'
  | 'symlink'
  | 'readlink'
  | 'chmod'
  | 'utimes'
  | 'readFile'
  | 'writeFile'
  | 'appendFile'
  | 'rm'
  | 'access'
  | 'truncate'
  | 'chown'
  | 'lchown'
>;

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

/** One call, given the API and the folder to work in. */
export type NodeCase = (api: Api, root: string) => Promise<unknown>;

/** Runs `work` on node:fs and on the volume, each in a new folder with a file, a directory and a link. */
export async function same(t: ExecutionContext, volume: Volume, root: string, work: NodeCase): Promise<void> {
  const host = await fs.mkdtemp(join(tmpdir(), 'uext4-'));
  try {
    await volume.mkdir(root);
    const sides: [Api, string][] = [
      [fs as unknown as Api, host],
      [volume, root],
    ];
    const shapes = [];
    for (const [api, folder] of sides) {
      await api.writeFile(`${folder}/file`, 'content');
      await api.mkdir(`${folder}/dir`);
      await api.writeFile(`${folder}/dir/inside`, '');
      await api.symlink('file', `${folder}/link`);
      shapes.push(await shape(() => work(api, folder), folder));
    }
    t.deepEqual(shapes[1], shapes[0]);
  } finally {
    await fs.rm(host, { recursive: true });
  }
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names the type that is dodged
const wrong = <T>(value: unknown): T => value as T;

async function* later(): AsyncGenerator<string> {
  yield 'EF';
  yield 'GH';
}

const CASES: Record<string, NodeCase> = {
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
  'rename: a file over another': async (api, root) => {
    await api.writeFile(`${root}/other`, 'new');
    const result = await api.rename(`${root}/other`, `${root}/file`);
    return [result, await api.readFile(`${root}/file`, 'utf8'), (await api.readdir(root)).toSorted()];
  },
  'rename: a directory into another': async (api, root) => {
    await api.mkdir(`${root}/to`);
    await api.rename(`${root}/dir`, `${root}/to/dir`);
    return [await api.readdir(`${root}/to`), await api.readdir(`${root}/to/dir`)];
  },
  'rename: over an empty directory': async (api, root) => {
    await api.mkdir(`${root}/to`);
    await api.rename(`${root}/dir`, `${root}/to`);
    return [await api.readdir(`${root}/to`), (await api.readdir(root)).toSorted()];
  },
  'rename: onto itself': async (api, root) => [
    await api.rename(`${root}/file`, `${root}/file`),
    await api.readFile(`${root}/file`, 'utf8'),
  ],
  'rename: missing': (api, root) => api.rename(`${root}/missing`, `${root}/new`),
  'rename: missing parent': (api, root) => api.rename(`${root}/file`, `${root}/missing/new`),
  'rename: below a file': (api, root) => api.rename(`${root}/file`, `${root}/file/new`),
  'rename: below itself': (api, root) => api.rename(`${root}/dir`, `${root}/dir/new`),
  'rename: a directory over a file': (api, root) => api.rename(`${root}/dir`, `${root}/file`),
  'rename: a file over a directory': (api, root) => api.rename(`${root}/file`, `${root}/dir`),
  'rename: over a full directory': async (api, root) => {
    await api.mkdir(`${root}/from`);
    return api.rename(`${root}/from`, `${root}/dir`);
  },
  'rename: old path of a wrong type': (api, root) => api.rename(wrong<string>(7), `${root}/new`),
  'rename: new path of a wrong type': (api, root) => api.rename(`${root}/file`, wrong<string>(undefined)),
  'rename: path with a null byte': (api, root) => api.rename(`${root}/file`, 'a\0b'),
  'link: another name': async (api, root) => {
    await api.link(`${root}/file`, `${root}/dir/second`);
    const [one, two] = [await api.stat(`${root}/file`), await api.stat(`${root}/dir/second`)];
    return [one.nlink, two.nlink, one.ino === two.ino];
  },
  'link: of a symbolic link': async (api, root) => {
    await api.link(`${root}/link`, `${root}/again`);
    return api.readlink(`${root}/again`);
  },
  'link: exists': (api, root) => api.link(`${root}/file`, `${root}/link`),
  'link: missing': (api, root) => api.link(`${root}/missing`, `${root}/new`),
  'link: missing parent': (api, root) => api.link(`${root}/file`, `${root}/missing/new`),
  'link: of a directory': (api, root) => api.link(`${root}/dir`, `${root}/new`),
  'link: existing path of a wrong type': (api, root) => api.link(wrong<string>({}), `${root}/new`),
  'link: new path of a wrong type': (api, root) => api.link(`${root}/file`, wrong<string>(1)),
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
  'writeFile: pieces': async (api, root) => {
    await api.writeFile(`${root}/file`, ['ab', Buffer.from('cd'), 'é']);
    await api.appendFile(`${root}/file`, later());
    return api.readFile(`${root}/file`, 'utf8');
  },
  'writeFile: no data': (api, root) => api.writeFile(`${root}/file`, wrong<string>(7)),
  'writeFile: flush of a wrong type': (api, root) =>
    api.writeFile(`${root}/file`, '', { flush: wrong<boolean>(1) }),
  'writeFile: options of a wrong type': (api, root) =>
    api.writeFile(`${root}/file`, '', wrong<BufferEncoding>(7)),
  'readFile: options of a wrong type': (api, root) => api.readFile(`${root}/file`, wrong<'utf8'>(7)),
  'readFile: aborted': (api, root) => api.readFile(`${root}/file`, { signal: AbortSignal.abort() }),
  'writeFile: aborted': (api, root) =>
    api.writeFile(`${root}/file`, 'x', { signal: AbortSignal.abort('enough') }),
  appendFile: async (api, root) => {
    await api.appendFile(`${root}/file`, '+');
    await api.appendFile(`${root}/new`, new Uint16Array([0x4142]), { encoding: 'utf8' });
    return [await api.readFile(`${root}/file`, 'utf8'), await api.readFile(`${root}/new`, 'latin1')];
  },
  'appendFile: missing parent': (api, root) => api.appendFile(`${root}/missing/x`, ''),
  access: (api, root) => api.access(`${root}/link`),
  'access: for writing': (api, root) => api.access(`${root}/file`, 2),
  'access: missing': (api, root) => api.access(`${root}/missing`),
  'access: below a file': (api, root) => api.access(`${root}/file/x`),
  truncate: async (api, root) => {
    await api.truncate(`${root}/link`, 9);
    const longer = await api.readFile(`${root}/file`, 'latin1');
    await api.truncate(`${root}/file`);
    return [longer, (await api.stat(`${root}/file`)).size];
  },
  'chown: missing': (api, root) => api.chown(`${root}/missing`, 1, 1),
  'lchown: missing': (api, root) => api.lchown(`${root}/missing`, 1, 1),
  'chown: bad id': (api, root) => api.chown(`${root}/file`, -2, 1),
  'chown: wrong type': (api, root) => api.chown(`${root}/file`, 1, wrong<number>('1')),
  'truncate: missing': (api, root) => api.truncate(`${root}/missing`, 1),
  'truncate: a directory': (api, root) => api.truncate(`${root}/dir`, 1),
  'rm: a file and a link': async (api, root) => {
    await api.rm(`${root}/link`);
    await api.rm(`${root}/file`);
    return api.readdir(root);
  },
  'rm: missing': (api, root) => api.rm(`${root}/missing`),
  'rm: missing, force': (api, root) => api.rm(`${root}/missing`, { force: true, recursive: true }),
  'rm: below a file, force': (api, root) => api.rm(`${root}/file/x`, { force: true }),
  'rm: a directory': async (api, root) => {
    // Its message has changed with Node's versions.
    try {
      await api.rm(`${root}/dir`);
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    }
    return 'removed';
  },
  'rm: recursive of a wrong type': (api, root) => api.rm(`${root}/dir`, { recursive: wrong<boolean>(1) }),
  'rm: recursive': async (api, root) => {
    await api.mkdir(`${root}/dir/a/b/c`, { recursive: true });
    await api.writeFile(`${root}/dir/a/b/x`, '');
    await api.symlink('..', `${root}/dir/a/up`);
    await api.rm(`${root}/dir/`, { recursive: true });
    await api.rm(`${root}/file`, { recursive: true });
    return api.readdir(root);
  },
  'readdir: recursive': async (api, root) => {
    await api.mkdir(`${root}/dir/a/b`, { recursive: true });
    await api.writeFile(`${root}/dir/a/b/x`, '');
    const entries = await api.readdir(root, { recursive: true, withFileTypes: true });
    return [
      (await api.readdir(root, { recursive: true })).toSorted(),
      (await api.readdir(`${root}/`, { recursive: true, encoding: 'latin1' })).toSorted(),
      entries.map((entry) => `${entry.name} ${entry.isDirectory()}`).toSorted(),
    ];
  },
  'readdir: recursive, missing': (api, root) => api.readdir(`${root}/missing`, { recursive: true }),
  'readdir: options of a wrong type': (api, root) => api.readdir(root, wrong<'utf8'>(7)),
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
  'read: options that are an array': ['r', (file) => file.read(wrong<object>([]))],
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
  'writev, readv: sequential and with a position': [
    'r+',
    async (file) => {
      const parts = [Buffer.from('AB'), Buffer.alloc(0), new Uint8Array([67, 68])];
      const { bytesWritten, buffers } = await file.writev(parts);
      await file.writev([Buffer.from('z')], 6);
      await file.writev([]);
      const into = [Buffer.alloc(3), Buffer.alloc(20)];
      const read = await file.readv(into, 0);
      const rest = await file.readv([Buffer.alloc(2)]);
      return [bytesWritten, buffers === parts, read.bytesRead, read.buffers === into, into, rest];
    },
  ],
  'writev: append ignores the position': [
    'a+',
    async (file) => {
      await file.writev([Buffer.from('!'), Buffer.from('?')], 0);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(20), 0, 20, 0);
      return buffer.toString('latin1', 0, bytesRead);
    },
  ],
  'writev: no array': ['r+', (file) => file.writev(wrong<Buffer[]>('x'))],
  'writev: no views': ['r+', (file) => file.writev(wrong<Buffer[]>([1]))],
  'writev: not writable': ['r', (file) => file.writev([Buffer.from('x')])],
  'readv: nothing to read into': ['r', (file) => file.readv([])],
  'readv: not readable': ['w', (file) => file.readv([Buffer.alloc(1)])],
  'readv: after close': [
    'r',
    async (file) => {
      await file.close();
      return file.readv([Buffer.alloc(1)]);
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
  'readFile: from the position on': [
    'r',
    async (file) => {
      await file.read(Buffer.alloc(2), 0, 2, null);
      return [
        await file.readFile('utf8'),
        await file.readFile({ encoding: 'latin1' }),
        await file.readFile(),
      ];
    },
  ],
  'readFile: not readable': ['w', (file) => file.readFile()],
  'writeFile: from the position on, in pieces': [
    'r+',
    async (file) => {
      await file.writeFile('AB');
      await file.writeFile(['C', Buffer.from('D')], 'latin1');
      await file.appendFile(new Uint16Array([0x4545]));
      const { buffer, bytesRead } = await file.read(Buffer.alloc(20), 0, 20, 0);
      return buffer.toString('latin1', 0, bytesRead);
    },
  ],
  'writeFile: not writable': ['r', (file) => file.writeFile('x')],
  'writeFile: no data': ['r+', (file) => file.writeFile(wrong<string>(7))],
  'createReadStream: a part, as text, then closed': [
    'r',
    async (file) => {
      const parts: unknown[] = [];
      for await (const part of file.createReadStream({
        start: 1,
        end: 4,
        encoding: 'utf8',
        highWaterMark: 2,
      }))
        parts.push(part);
      return [parts, await file.read(Buffer.alloc(1)).catch((error: unknown) => String(error))];
    },
  ],
  'createReadStream: from the position on, left open': [
    'r',
    async (file) => {
      await file.read(Buffer.alloc(2));
      const parts: string[] = [];
      for await (const part of file.createReadStream({ autoClose: false })) parts.push(String(part));
      return [parts.join(''), (await file.read(Buffer.alloc(9))).bytesRead];
    },
  ],
  'chmod: bad mode': ['r+', (file) => file.chmod(wrong<number>(-1))],
  'utimes: far away': ['r+', (file) => file.utimes(2 ** 60, 2 ** 53)],
  'utimes: wrong type': ['r+', (file) => file.utimes(wrong<number>({}), 1)],
  'stat, sync, datasync': [
    'r+',
    async (file) => [(await file.stat()).size, await file.sync(), await file.datasync()],
  ],
};

function withFile(flags: string, work: (file: Handle) => Promise<unknown>): NodeCase {
  return async (api, root) => {
    const file = await api.open(`${root}/file`, flags);
    try {
      return await work(file);
    } finally {
      await file.close();
    }
  };
}

/** Every case by its name. */
export const NODE_CASES: ReadonlyMap<string, NodeCase> = new Map([
  ...Object.entries(CASES),
  ...Object.entries(HANDLE_CASES).map(
    ([name, [flags, work]]) => [`FileHandle ${name}`, withFile(flags, work)] as const,
  ),
]);
