/** E26, E27, E54: the last blocks of a file, what lies behind its end, and the longest extents. */
import { allocAligned, constants, type FileExtent } from '../../src/index.js';
import { e2e, MiB, pattern, withVolume } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const BLOCK = 4096;
/** D3: blocks of one extent. */
const MAX_WRITTEN = 32768;
const MAX_UNWRITTEN = 32767;

e2e('E26: the last block is a file block like any other; behind it is EFBIG', (t) =>
  withVolume(t, { sizeBytes: 512 * MiB, blockSize: BLOCK }, async (volume) => {
    const end = (2 ** 32 - 1) * BLOCK;
    const data = allocAligned(2 * BLOCK);
    pattern(data.length).copy(data);
    for (const direct of [O_DIRECT, 0]) {
      const path = `/file-${direct}`;
      const file = await volume.open(path, O_RDWR | O_CREAT | direct);
      // Clipped (A4.7).
      t.is((await file.write(data, 0, 2 * BLOCK, end - BLOCK)).bytesWritten, BLOCK);
      await t.throwsAsync(file.write(data, 0, BLOCK, end), { code: 'EFBIG' });
      await t.throwsAsync(file.truncate(end + 1), { code: 'EFBIG' });
      await file.sync();
      t.is((await file.stat()).size, end);
      const back = allocAligned(BLOCK);
      t.is((await file.read(back, 0, BLOCK, end - BLOCK)).bytesRead, BLOCK);
      t.true(back.equals(data.subarray(0, BLOCK)));
      t.deepEqual(
        (await file.extents()).map(({ logical, length }) => [logical, length]),
        [[end - BLOCK, BLOCK]],
      );
      await file.close();
    }
  }),
);

e2e('E27: what lay behind the end reads as zeros after growth, however the file grows', (t) =>
  withVolume(t, { blockSize: BLOCK }, async (volume) => {
    const data = allocAligned(4 * BLOCK).fill(0xee);
    for (const [name, grow] of [
      ['truncate', (file) => file.truncate(3 * BLOCK)],
      ['buffered', (file) => file.write(Buffer.from('x'), 0, 1, 3 * BLOCK)],
      ['allocate', (file) => file.fallocate(0, 3 * BLOCK)],
      ['zero', (file) => file.fallocate(2 * BLOCK, BLOCK, { mode: 'zero-range' })],
    ] as readonly [string, (file: Awaited<ReturnType<typeof volume.open>>) => Promise<unknown>][])
      for (const size of [1, 511, BLOCK - 1, BLOCK + 100]) {
        const file = await volume.open(`/${name}-${size}`, O_RDWR | O_CREAT);
        const direct = await volume.open(`/${name}-${size}`, O_RDWR | O_DIRECT);
        await direct.write(data, 0, 4 * BLOCK, 0);
        await file.truncate(size);
        await grow(file);
        const expected = Buffer.alloc(3 * BLOCK).fill(0xee, 0, size);
        const back = allocAligned(3 * BLOCK);
        t.true((await direct.read(back, 0, back.length, 0)).bytesRead >= 3 * BLOCK, name);
        t.true(back.equals(expected), `${name} from ${size}`);
        await direct.close();
        await file.close();
      }
  }),
);

function lengthsOf(extents: readonly FileExtent[], unwritten: boolean): number[] {
  return extents.filter((extent) => extent.unwritten === unwritten).map(({ length }) => length / BLOCK);
}

e2e('E54: no extent is longer than its kind may be, split and merged at the limits', (t) =>
  withVolume(t, { sizeBytes: 768 * MiB, blockSize: BLOCK }, async (volume) => {
    const blocks = 2 * MAX_WRITTEN + 10;
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
    await file.fallocate(0, blocks * BLOCK);
    const check = async (): Promise<void> => {
      const extents = await file.extents();
      t.true(lengthsOf(extents, true).every((length) => length <= MAX_UNWRITTEN));
      t.true(lengthsOf(extents, false).every((length) => length <= MAX_WRITTEN));
      t.is(
        extents.reduce((sum, { length }) => sum + length, 0),
        blocks * BLOCK,
      );
    };
    await check();
    const data = allocAligned(2 * BLOCK).fill(0x5a);
    // Middles are split off around the limits, then everything is written and merges again.
    for (const block of [MAX_UNWRITTEN - 1, MAX_WRITTEN, 0, 2 * MAX_UNWRITTEN, blocks - 2]) {
      t.is((await file.write(data, 0, 2 * BLOCK, block * BLOCK)).bytesWritten, 2 * BLOCK);
      await check();
    }
    const much = allocAligned(8 * MiB).fill(0xa5);
    for (let pos = 0; pos < blocks * BLOCK; pos += much.length)
      await file.write(much, 0, Math.min(much.length, blocks * BLOCK - pos), pos);
    await check();
    t.deepEqual(lengthsOf(await file.extents(), true), []);
    await file.close();
  }),
);
