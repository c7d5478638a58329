/** What a strict TypeScript program may write against the built package: it is compiled, never run. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test from 'ava';

const ROOT = process.cwd();

const PROGRAM = `
import type * as promises from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { BigIntStats, Dirent, FileHandle, Stats, Volume, allocAligned, constants } from 'uext4';
import type { Ext4Error, FileExtent, OpenOptions, RecoveryReport, VolumeInfo, VolumeStats } from 'uext4';

export async function use(options: OpenOptions, encoding: BufferEncoding | null | undefined): Promise<unknown> {
  await using volume: Volume = await Volume.open('x', options);
  const names: string[] = await volume.readdir('/', { recursive: true });
  const bytes: Buffer[] = await volume.readdir('/', 'buffer');
  const entries: Dirent[] = await volume.readdir('/', { withFileTypes: true });
  const odd: Dirent<Buffer>[] = await volume.readdir('/', { withFileTypes: true, encoding: 'buffer' });
  const some: { bigint?: boolean } = {};
  const stats: [Stats, BigIntStats, Stats | BigIntStats] = [
    await volume.stat('/a'),
    await volume.stat('/a', { bigint: true }),
    await volume.lstat('/a', some),
  ];
  const data: [string, string, Buffer, Buffer | string, Buffer | string] = [
    await volume.readFile('/a', 'utf8'),
    await volume.readFile('/a', { encoding: 'utf8' }),
    await volume.readFile('/a', { encoding: null }),
    await volume.readFile('/a', encoding),
    await volume.readFile('/a', { encoding }),
  ];
  await volume.writeFile('/a', new DataView(new ArrayBuffer(3)), { flush: true, signal: AbortSignal.timeout(9) });
  await volume.writeFile('/a', ['x', Buffer.from('y')], 'latin1');
  const file: FileHandle = await volume.open('/a', constants.O_RDWR | constants.O_DIRECT);
  const read: { bytesRead: number; buffer: Buffer } = await file.read(allocAligned(10), 0, 10, 0n);
  const into: { buffer: Float64Array } = await file.read({ buffer: new Float64Array(3), position: 3, nowait: true });
  const text: { buffer: string } = await file.write('x', 3, 'utf8');
  await file.writev([new Uint8Array(2)], { position: 3, atomic: true });
  await file.fallocate(0, 3, { mode: 'punch-hole' });
  const rest: [Buffer, string] = [await file.readFile(), await file.readFile('utf8')];
  await pipeline(file.createReadStream({ start: 3 }), file.createWriteStream({ flush: true }));
  const extents: FileExtent[] = await file.extents();
  const made: string | undefined = await volume.mkdir('/x', { recursive: true });
  const recovered: RecoveryReport = await Volume.recover('x', { dryRun: true });
  const told: [VolumeInfo, VolumeStats] = [volume.info(), volume.stats()];
  const failed = ({ code, errno, syscall, path, dest, place, detail }: Ext4Error): unknown =>
    [code, errno, syscall, path, dest, place, detail];
  return [names, bytes, entries, odd, stats, data, read, into, text, rest, extents, made, recovered, told, failed];
}

type Names = 'rename' | 'link' | 'unlink' | 'rmdir' | 'rm' | 'chmod' | 'chown' | 'lchown' | 'utimes' | 'symlink' | 'access' | 'truncate';
type Calls = 'read' | 'write' | 'readv' | 'writev' | 'sync' | 'datasync' | 'truncate' | 'chmod' | 'chown' | 'utimes' | 'close';
/** Whoever takes a part of node:fs takes a volume. */
export const both = (volume: Volume, file: FileHandle): [Pick<typeof promises, Names>, Pick<promises.FileHandle, Calls>] =>
  [volume, file];
`;

const built = existsSync(join(ROOT, 'dist', 'index.d.ts')) ? test : test.skip;

for (const [resolution, module] of [
  ['nodenext', 'nodenext'],
  ['bundler', 'esnext'],
] as const) {
  built(`a strict program compiles with moduleResolution ${resolution}`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'uext4-types-'));
    try {
      mkdirSync(join(folder, 'node_modules'));
      symlinkSync(ROOT, join(folder, 'node_modules', 'uext4'));
      symlinkSync(join(ROOT, 'node_modules', '@types'), join(folder, 'node_modules', '@types'));
      writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
      writeFileSync(join(folder, 'program.ts'), PROGRAM);
      const options = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess'];
      const libraries = ['--target', 'es2022', '--lib', 'es2022,esnext.disposable', '--types', 'node'];
      const modules = ['--moduleResolution', resolution, '--module', module];
      const tsc = join(ROOT, 'node_modules', '.bin', 'tsc');
      const args = [...options, ...libraries, ...modules, 'program.ts'];
      const { status, stdout } = spawnSync(tsc, args, { cwd: folder, encoding: 'utf8' });
      t.is(status, 0, stdout);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
