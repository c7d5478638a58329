/** Atomic writes (C24) through the package. */
import { allocAligned, constants, Volume } from '../../src/index.js';
import { e2e, pattern, withVolume } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const BLOCK = 4096;

e2e('atomic writes: units, refusals, and what is read back', (t) =>
  withVolume(t, { blockSize: BLOCK }, async (volume) => {
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
    const stat = await file.stat();
    const { atomicWriteUnitMin: min, atomicWriteUnitMax: max } = stat;
    t.is(min, BLOCK);
    t.true(max >= 16 * BLOCK && Number.isInteger(Math.log2(max)));
    t.deepEqual(
      [stat.dioOffsetAlign, stat.dioMemAlign],
      [volume.info().dioOffsetAlign, volume.info().dioMemoryAlign],
    );
    t.is((await file.stat({ bigint: true })).atomicWriteUnitMax, BigInt(max));
    t.is((await volume.stat('/')).atomicWriteUnitMax, 0);

    const data = allocAligned(max);
    pattern(max).copy(data);
    // In a hole, past the end, over itself, and a part of it.
    for (const [position, length] of [
      [2 * max, max],
      [0, BLOCK],
      [2 * max, max],
      [2 * max, 4 * BLOCK],
    ] as const)
      t.is((await file.write(data.subarray(0, length), { position, atomic: true })).bytesWritten, length);
    t.is(file.writeSync(data.subarray(0, 2 * BLOCK), { position: 4 * BLOCK, atomic: true }), 2 * BLOCK);
    for (const [position, length] of [
      [0, 512],
      [0, 3 * BLOCK],
      [BLOCK, 2 * BLOCK],
    ] as const)
      await t.throwsAsync(file.write(data.subarray(0, length), { position, atomic: true }), {
        code: 'EINVAL',
      });
    t.is(volume.stats().writes.exclusiveBecause.atomic > 0, true);

    // Directly over it, and read in both ways.
    const block = allocAligned(BLOCK).fill(0xee);
    await file.write(block, 0, BLOCK, 2 * max + BLOCK);
    const back = allocAligned(max);
    await file.read(back, 0, max, 2 * max);
    const expected = Buffer.from(data);
    expected.fill(0xee, BLOCK, 2 * BLOCK);
    t.true(back.equals(expected));
    t.true((await volume.readFile('/file')).subarray(2 * max).equals(expected));
    await file.close();
  }),
);

e2e('an atomic write has survived when it reports', (t) =>
  withVolume(t, { blockSize: BLOCK }, async (volume, image) => {
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
    await file.write(allocAligned(4 * BLOCK).fill(7), { position: 0, atomic: true });
    await volume.shutdown('nologflush');
    await file.close().catch(() => {});
    await volume.close().catch(() => {});
    const again = await Volume.open(image);
    t.true((await again.readFile('/file')).equals(Buffer.alloc(4 * BLOCK, 7)));
    await again.close();
  }),
);
