/** What a caller or a disk may get wrong: a clear error each, with the right errno, and nothing lost. */
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Volume, allocAligned, constants, type OpenOptions } from '../../src/index.js';
import { assertClean, e2e, hasTool, makeFolder, makeImage, MiB, pattern, runProcess } from './support.js';

const SUPERBLOCK = 1024;
const S_FEATURE_INCOMPAT = 0x60;
const S_FEATURE_RO_COMPAT = 0x64;
const S_CHECKSUM = 0x3fc;

const CRC32C = Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

/** Changes the primary superblock; with its checksum made right again. */
async function editSuperblock(
  image: string,
  edit: (superblock: Buffer) => void,
  isSealed = true,
): Promise<void> {
  const file = await open(image, 'r+');
  try {
    const superblock = Buffer.alloc(1024);
    await file.read(superblock, 0, 1024, SUPERBLOCK);
    edit(superblock);
    if (isSealed) {
      let crc = 0xffffffff;
      for (const byte of superblock.subarray(0, S_CHECKSUM))
        crc = (CRC32C[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
      superblock.writeUInt32LE(crc >>> 0, S_CHECKSUM);
    }
    await file.write(superblock, 0, 1024, SUPERBLOCK);
  } finally {
    await file.close();
  }
}

function flip(offset: number, bit: number): (superblock: Buffer) => void {
  return (superblock) => {
    superblock.writeUInt32LE((superblock.readUInt32LE(offset) ^ bit) >>> 0, offset);
  };
}

/** A value that the types forbid. */
function wrong(value: unknown): never {
  return value as never;
}

function refusal(image: string, options?: OpenOptions): Promise<unknown> {
  return Volume.open(image, options).then(
    () => undefined,
    (error: unknown) => error,
  );
}

e2e('no ext4 volume, and none at all', async (t) => {
  const folder = await makeFolder(t);
  const image = join(folder, 'noise');
  await writeFile(image, pattern(MiB));
  t.like(await refusal(image), { code: 'EINVAL', errno: -22, syscall: 'mount', path: image });
  await writeFile(image, '');
  t.like(await refusal(image), { code: 'EINVAL' });
  const missing = join(folder, 'missing');
  t.like(await refusal(missing), { code: 'ENOENT', errno: -2, syscall: 'mount', path: missing });
  t.like(await refusal(folder), { syscall: 'mount', path: folder });
});

e2e('a truncated image', async (t) => {
  const image = await makeImage(t);
  await truncate(image, 32 * MiB);
  const error = await refusal(image);
  t.like(error, { code: 'EUCLEAN', errno: -117, syscall: 'mount' });
  t.regex((error as Error).message, /truncated/);
});

e2e('a superblock with a wrong checksum', async (t) => {
  const image = await makeImage(t);
  await editSuperblock(image, (superblock) => superblock.write('damaged', 0x78), false);
  t.like(await refusal(image), { code: 'EBADMSG', errno: -74, syscall: 'mount' });
});

e2e('unknown features: an incompatible one refuses the mount, a ro_compat one only writing', async (t) => {
  const image = await makeImage(t);
  await editSuperblock(image, flip(S_FEATURE_INCOMPAT, 0x80000000));
  t.like(await refusal(image), { code: 'ENOTSUP', errno: -95, syscall: 'mount' });
  t.like(await refusal(image, { readOnly: true }), { code: 'ENOTSUP' });
  await editSuperblock(image, flip(S_FEATURE_INCOMPAT, 0x80000000));
  await editSuperblock(image, flip(S_FEATURE_RO_COMPAT, 0x40000000));
  t.like(await refusal(image), { code: 'EROFS', errno: -30 });
  const volume = await Volume.open(image, { readOnly: true });
  t.deepEqual(await volume.readdir('/'), ['lost+found']);
  await volume.close();
});

e2e('a container in use', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  t.like(await refusal(image), { code: 'EBUSY', errno: -16, syscall: 'mount', path: image });
  t.like(await refusal(image, { readOnly: true }), { code: 'EBUSY' });
  await t.throwsAsync(Volume.format(image, { sizeBytes: 64 * MiB }), { code: 'EBUSY' });
  await volume.close();
  const readers = await Promise.all([1, 2].map(() => Volume.open(image, { readOnly: true })));
  t.like(await refusal(image), { code: 'EBUSY' });
  await Promise.all(readers.map((reader) => reader.close()));
  await assertClean(t, image);
});

/** Each was believed: data went over a bitmap, and the journal was overwritten while it ran. */
e2e('a map and a name that lead to the volume itself', async (t) => {
  if (!(await hasTool('debugfs', '-V'))) {
    t.log('debugfs is missing: nothing damages the volume');
    t.pass();
    return;
  }
  const image = await makeImage(t, { blockSize: 4096 });
  const made = await Volume.open(image);
  await made.writeFile('/file', pattern(4096));
  await made.close();
  const change = (request: string): Promise<unknown> => runProcess('debugfs', ['-w', '-R', request, image]);
  // The first extent leads to the second block: a group descriptor.
  await change('sif /file block[5] 1');
  await change('link <8> journal');
  const before = await readFile(image);
  const volume = await Volume.open(image, { errors: 'continue' });
  for (const flags of [constants.O_RDWR, constants.O_RDWR | constants.O_DIRECT]) {
    const file = await volume.open('/file', flags);
    const write = async (): Promise<void> => {
      await file.write(allocAligned(4096).fill(0xaa), 0, 4096, 0);
      await file.sync();
    };
    await t.throwsAsync(write, { code: 'EUCLEAN' });
    await file.close().catch(() => undefined);
  }
  await t.throwsAsync(volume.open('/journal', 'r+'), { code: 'EUCLEAN' });
  await t.throwsAsync(volume.truncate('/journal', 0), { code: 'EUCLEAN' });
  t.like(await volume.readdir('/').then((names) => names.toSorted()), ['file', 'journal', 'lost+found']);
  await volume.close().catch(() => undefined);
  const after = await readFile(image);
  t.true(after.subarray(4096, 8192).equals(before.subarray(4096, 8192)), 'the descriptors');
});

const OPEN_SCRIPT = `
const { Volume } = await import(process.argv[1]);
const [, , image, options] = process.argv;
try {
  const volume = await Volume.open(image, JSON.parse(options));
  console.log(JSON.stringify(volume.info()));
  await volume.close();
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}`;
const API = new URL('../../src/index.js', import.meta.url).href;

function openArguments(image: string, options: OpenOptions): string[] {
  return ['--input-type=module', '--eval', OPEN_SCRIPT, API, image, JSON.stringify(options)];
}

e2e('a container that cannot be written', async (t) => {
  const image = await makeImage(t);
  const file = await open(image, 'r');
  const folder = await open(join(image, '..'), 'r');
  await folder.chmod(0o755);
  await file.chmod(0o444);
  await folder.close();
  await file.close();
  const nobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const refused = (await runProcess(process.execPath, openArguments(image, {}), nobody)).out;
  t.true(['EACCES', 'EROFS'].includes((JSON.parse(refused) as { code: string }).code), refused);
  const readable = (await runProcess(process.execPath, openArguments(image, { readOnly: true }), nobody)).out;
  t.true((JSON.parse(readable) as { readOnly: boolean }).readOnly);
});

e2e('a backend that is refused', async (t) => {
  if (!(await hasTool('python3', '--version'))) {
    t.log('python3 is missing: nothing to refuse io_uring with');
    t.pass();
    return;
  }
  const image = await makeImage(t);
  const launcher = join(process.cwd(), '__test__', 'e2e', 'refuse-io-uring.py');
  const run = async (options: OpenOptions): Promise<string> =>
    (await runProcess('python3', [launcher, process.execPath, ...openArguments(image, options)])).out;
  const automatic = JSON.parse(await run({})) as { backend: string; backendReason: string };
  t.is(automatic.backend, 'threads');
  t.regex(automatic.backendReason, /io_uring/);
  const demanded = JSON.parse(await run({ engine: 'io_uring' })) as { code: string; message: string };
  t.is(demanded.code, 'EPERM');
  t.is((JSON.parse(await run({ engine: 'threads' })) as { backend: string }).backend, 'threads');
  await assertClean(t, image);
});

e2e('wrong argument types', async (t) => {
  await t.throwsAsync(Volume.open(wrong(7)), { code: 'ERR_INVALID_ARG_TYPE' });
  await t.throwsAsync(Volume.open('x', wrong({ engine: 'gas' })), { code: 'ERR_INVALID_ARG_VALUE' });
  await t.throwsAsync(Volume.open('x', wrong({ direct: 1 })), { code: 'ERR_INVALID_ARG_TYPE' });
  await t.throwsAsync(Volume.format('x', wrong({ sizeBytes: '1' })), { code: 'ERR_INVALID_ARG_TYPE' });
  await t.throwsAsync(Volume.format('x', { sizeBytes: -1 }), { code: 'ERR_OUT_OF_RANGE' });
  await t.throwsAsync(Volume.format('x', { sizeBytes: MiB, uuid: 'none' }), {
    code: 'ERR_INVALID_ARG_VALUE',
  });
  await t.throwsAsync(Volume.format('x', { sizeBytes: MiB, blockSize: 3000 }), {
    code: 'ERR_INVALID_ARG_VALUE',
  });
  const image = join(await makeFolder(t), 'small');
  await t.throwsAsync(Volume.format(image, { sizeBytes: 10_000 }), { code: 'ENOSPC' });
});

for (const direct of [false, true]) {
  e2e(
    `a full volume, ${direct ? 'direct' : 'buffered'}: ENOSPC, nothing lost, and room again after unlink`,
    async (t) => {
      const image = await makeImage(t, { sizeBytes: 16 * MiB });
      const volume = await Volume.open(image, { direct });
      const data = pattern(MiB, 3);
      const whole: string[] = [];
      let failure: NodeJS.ErrnoException | undefined;
      for (let index = 0; index < 40 && failure === undefined; index += 1) {
        try {
          await volume.writeFile(`/file-${index}`, data, { flush: true });
          whole.push(`/file-${index}`);
        } catch (error) {
          failure = error as NodeJS.ErrnoException;
        }
      }
      t.like(failure, { code: 'ENOSPC', errno: -28 });
      t.true(whole.length >= 8);
      for (const path of whole) t.true((await volume.readFile(path)).equals(data), path);
      for (const path of whole.slice(0, 3)) await volume.unlink(path);
      await volume.writeFile('/again', data, { flush: true });
      await volume.close();
      await assertClean(t, image);
      const again = await Volume.open(image, { readOnly: true });
      for (const path of [...whole.slice(3), '/again'])
        t.true((await again.readFile(path)).equals(data), path);
      await again.close();
    },
  );
}

e2e('a volume without inodes left is ENOSPC too', async (t) => {
  const image = await makeImage(t, { sizeBytes: 4 * MiB });
  const volume = await Volume.open(image);
  const { freeInodes } = volume.info();
  for (let index = 0; index < freeInodes; index += 1) await volume.writeFile(`/${index}`, '');
  await t.throwsAsync(volume.writeFile('/more', ''), { code: 'ENOSPC' });
  await t.throwsAsync(volume.mkdir('/more'), { code: 'ENOSPC' });
  t.is(volume.info().freeInodes, 0);
  await volume.close();
  await assertClean(t, image);
});
