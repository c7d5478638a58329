/** E58: what we leave the kernel reads and writes on, and the reverse; e2fsck is content both ways. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { FEATURES } from '../../exercise/features.js';
import { Generator } from '../../exercise/generate.js';
import { format, KINDS, kindsHere } from '../../exercise/kinds.js';
import { Random } from '../../exercise/random.js';
import { Session } from '../../exercise/session.js';
import { Volume } from '../../src/index.js';
import { runCommand } from '../../src/main-job/command.js';
import { assertClean, e2eSerial, makeFolder } from './support.js';

const ROUNDS = 120;
const FILES = 4;
const TIMEOUT_MS = 60_000;

/** Mounts the image with the kernel while `work` runs; says why where that is impossible. */
async function onKernel(
  image: string,
  mountPoint: string,
  work: () => Promise<void>,
): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'only root may mount';
  const { status, output } = await runCommand(
    'mount',
    ['-t', 'ext4', '-o', 'loop', image, mountPoint],
    TIMEOUT_MS,
  );
  if (status !== 0) return `mount: ${output}`;
  try {
    await work();
  } finally {
    await runCommand('umount', [mountPoint], TIMEOUT_MS);
  }
  return undefined;
}

// Not on full ones: the kernel shall have room.
for (const kind of KINDS.filter(({ open, freeBytes }) => open.dax !== true && freeBytes === undefined))
  e2eSerial(`E58: a volume of kind ${kind.name} there and back`, async (t) => {
    const [image, mountPoint] = [join(await makeFolder(t), 'volume.img'), await makeFolder(t)];
    if (!(await kindsHere(image)).includes(kind)) {
      t.log('skipped: needs mke2fs');
      return t.pass();
    }
    await format(kind, image);
    const session = await Session.start(image, { files: FILES, maxFileBytes: 256 * 1024, kind });
    const generator = new Generator(new Random(58), new Set(FEATURES), session.geometry);
    for (let left = ROUNDS; left > 0; left -= 1) await session.run(generator.round(session.models));
    await session.finish();
    const refused = await onKernel(image, mountPoint, async () => {
      for (const [file, { content }] of session.models.entries()) {
        t.true((await readFile(join(mountPoint, `file-${file}`))).equals(content), `file ${file}`);
        await writeFile(join(mountPoint, `file-${file}`), Buffer.concat([content, Buffer.from('more')]));
      }
    });
    if (refused !== undefined) {
      t.log(`skipped: ${refused}`);
      return t.pass();
    }
    await assertClean(t, image);
    const volume = await Volume.open(image, kind.open);
    for (const [file, { content }] of session.models.entries())
      t.true((await volume.readFile(`/file-${file}`)).equals(Buffer.concat([content, Buffer.from('more')])));
    await volume.close();
    return assertClean(t, image);
  });
