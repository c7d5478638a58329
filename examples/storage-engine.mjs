// A storage engine's files: pages written in place by direct I/O, and a log that is durable before it is answered.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Volume, allocAligned, constants } from 'uext4';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const PAGE_BYTES = 4096;

const folder = await mkdtemp(join(tmpdir(), 'storage-'));
const image = join(folder, 'data.ext4');
await Volume.format(image, { sizeBytes: 256 * 1024 * 1024, label: 'data' });
const volume = await Volume.open(image);
try {
  await volume.mkdir('/db');

  // 1,024 pages in one extending write; from then on every page is a shared overwrite.
  const pages = await volume.open('/db/pages', O_RDWR | O_CREAT | O_DIRECT, 0o600);
  const all = allocAligned(1024 * PAGE_BYTES);
  await pages.write(all, 0, all.length, 0);

  const log = await volume.open('/db/log', 'a', 0o600);
  await log.write('page 7 := hello\n');
  await log.datasync();

  const page = allocAligned(PAGE_BYTES);
  page.write('hello');
  await Promise.all([7, 8, 9].map((number) => pages.write(page, 0, PAGE_BYTES, number * PAGE_BYTES)));

  await pages.read(page, 0, PAGE_BYTES, 7 * PAGE_BYTES);
  console.log(page.toString('utf8', 0, 5), await volume.readFile('/db/log', 'utf8'));
  console.log(volume.info().backend, volume.stats().writes);

  await log.close();
  await pages.close();
} finally {
  await volume.close();
  await rm(folder, { recursive: true });
}
