/** fallocate, SEEK_DATA, SEEK_HOLE and extents on real volumes. */
import { allocAligned, constants, type FileHandle } from '../../src/index.js';
import { e2e, MiB, pattern, withVolume } from './support.js';

const { O_CREAT, O_DIRECT, O_RDONLY, O_RDWR, O_SYNC } = constants;
const BLOCK = 4096;

async function contents(file: FileHandle): Promise<Buffer> {
  const { size } = await file.stat();
  const buffer = allocAligned(Math.max(BLOCK, Math.ceil(size / BLOCK) * BLOCK));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
  return Buffer.from(buffer.subarray(0, bytesRead));
}

for (const direct of [true, false]) {
  e2e(`holes, zeros and moves, ${direct ? 'direct' : 'buffered'}`, (t) =>
    withVolume(t, { blockSize: BLOCK }, async (volume) => {
      const file = await volume.open('/file', O_RDWR | O_CREAT | (direct ? O_DIRECT : 0));
      let model = pattern(16 * BLOCK);
      const data = allocAligned(model.length);
      model.copy(data);
      await file.write(data, 0, data.length, 0);

      await file.fallocate(BLOCK + 1, 3 * BLOCK, { mode: 'punch-hole' });
      model.fill(0, BLOCK + 1, 4 * BLOCK + 1);
      t.true((await contents(file)).equals(model), 'punch-hole');
      t.deepEqual([await file.seekHole(0), await file.seekData(2 * BLOCK)], [2 * BLOCK, 4 * BLOCK]);

      await file.fallocate(6 * BLOCK - 5, BLOCK + 10, { mode: 'zero-range' });
      model.fill(0, 6 * BLOCK - 5, 7 * BLOCK + 5);
      t.true((await contents(file)).equals(model), 'zero-range');

      await file.fallocate(4 * BLOCK, 2 * BLOCK, { mode: 'collapse-range' });
      model = Buffer.concat([model.subarray(0, 4 * BLOCK), model.subarray(6 * BLOCK)]);
      t.true((await contents(file)).equals(model), 'collapse-range');

      await file.fallocate(BLOCK, 5 * BLOCK, { mode: 'insert-range' });
      model = Buffer.concat([model.subarray(0, BLOCK), Buffer.alloc(5 * BLOCK), model.subarray(BLOCK)]);
      t.true((await contents(file)).equals(model), 'insert-range');
      t.is((await file.stat()).size, model.length);

      await file.truncate(BLOCK + 1);
      await file.truncate(3 * BLOCK);
      model = Buffer.concat([model.subarray(0, BLOCK + 1), Buffer.alloc(2 * BLOCK - 1)]);
      t.true((await contents(file)).equals(model), 'truncate');
      await file.close();
    }),
  );
}

e2e('space: allocated, kept beyond the size, and given back by truncate', (t) =>
  withVolume(t, { blockSize: BLOCK }, async (volume) => {
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_SYNC);
    await file.write('hello', 0);
    await file.fallocate(0, 4 * MiB, { keepSize: true });
    t.is((await file.stat()).size, 5);
    t.is((await file.stat()).blocks, (4 * MiB) / 512);
    await file.fallocate(0, MiB);
    t.is((await file.stat()).size, MiB);
    const extents = await file.extents();
    t.deepEqual(
      extents.map(({ unwritten, last }) => [unwritten, last]),
      [
        [false, false],
        [true, true],
      ],
    );
    t.is(extents[0]?.length, BLOCK);
    t.is(
      extents.reduce((sum, { length }) => sum + length, 0),
      4 * MiB,
    );
    t.true(extents.every(({ physical }) => physical > 0));
    await file.truncate(MiB);
    t.is((await file.stat()).blocks, MiB / 512);
    t.deepEqual(await file.extents({ position: 2 * MiB }), []);
    await file.close();
  }),
);

e2e('refusals have the names of Linux', (t) =>
  withVolume(t, { blockSize: BLOCK }, async (volume) => {
    const file = await volume.open('/file', O_RDWR | O_CREAT);
    await file.truncate(8 * BLOCK);
    const fails = (
      position: number,
      length: number,
      mode: 'collapse-range' | 'insert-range' | number,
      code: string,
    ) => t.throwsAsync(file.fallocate(position, length, { mode }), { code, message: /, fallocate$/ });
    await fails(0, 0, 0, 'EINVAL');
    await fails(-1, 1, 0, 'EINVAL');
    await fails(0, 1, 2, 'ENOTSUP');
    await fails(0, 1, 0x21, 'ENOTSUP');
    await fails(1, BLOCK, 'collapse-range', 'EINVAL');
    await fails(4 * BLOCK, 4 * BLOCK, 'collapse-range', 'EINVAL');
    await fails(8 * BLOCK, BLOCK, 'insert-range', 'EINVAL');
    await fails(0, 2 ** 44 - BLOCK, 'insert-range', 'EFBIG');
    await fails(2 ** 44, 1, 0, 'EFBIG');
    await t.throwsAsync(file.seekData(0), { code: 'ENXIO', message: /, lseek$/ });
    t.is(await file.seekHole(5), 5);
    await t.throwsAsync(file.seekHole(8 * BLOCK), { code: 'ENXIO' });
    await file.close();
    const reader = await volume.open('/file', O_RDONLY);
    await t.throwsAsync(reader.fallocate(0, 1), { code: 'EBADF' });
    await t.throwsAsync(reader.fallocate(0, 1, { mode: 2 }), { code: 'ENOTSUP' });
    await reader.close();
  }),
);
