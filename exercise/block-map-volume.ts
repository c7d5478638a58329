/** A volume of mke2fs: our own format makes none without extents. */
import { execFile } from 'node:child_process';
import { truncate, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

export async function makeBlockMapVolume(image: string, sizeBytes: number, blockSize: number): Promise<void> {
  await writeFile(image, '');
  await truncate(image, sizeBytes);
  const options = ['-q', '-F', '-m', '0', '-t', 'ext4', '-O', '^extent,^64bit', '-b', String(blockSize)];
  await promisify(execFile)('mke2fs', [...options, image]);
}
