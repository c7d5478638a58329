/**
 * Short histories of calls at once on real files, judged as the explorer judges the model's (interleavings/history.ts):
 * a sector is 512 bytes, a block two sectors. What orders the host and the workers make, they make.
 */
import { allocAligned, constants, Volume, type EngineName, type FileHandle } from '../../src/index.js';
import { unexplained, type Call, type Heard, type SequentialFile } from '../interleavings/history.js';
import { e2e, withVolume } from './support.js';

const { O_APPEND, O_CREAT, O_DIRECT, O_RDWR } = constants;
const SECTOR = 512;
const SECTORS = 12;
const HISTORIES = 400;

/** One file, opened in every way. */
interface Files {
  readonly direct: FileHandle;
  readonly buffered: FileHandle;
  readonly append: FileHandle;
}

interface Operation {
  readonly name: string;
  readonly nowait?: boolean;
  readonly apply: (file: SequentialFile) => Heard;
  readonly run: (files: Files) => Promise<Heard>;
}

let lastValue = 0;

function write(how: keyof Files, pos: number, len: number, nowait = false): Operation {
  const value = (lastValue = (lastValue % 200) + 1);
  const data = allocAligned(len * SECTOR).fill(value);
  return {
    name: `${how}${nowait ? ' nowait' : ''} write ${pos}+${len}`,
    nowait,
    apply: (file) => {
      const sectors = Array.from({ length: len }, () => value);
      file.write(how === 'append' ? file.bytes.length : pos, sectors);
      return { result: len };
    },
    run: async (files) => {
      const { bytesWritten } = await files[how].write(data, { position: pos * SECTOR, nowait });
      return { result: bytesWritten / SECTOR };
    },
  };
}

function read(how: 'direct' | 'buffered', nowait = false): Operation {
  return {
    name: `${how}${nowait ? ' nowait' : ''} read`,
    nowait,
    apply: ({ bytes }) => ({ result: bytes.length, bytes: [...bytes], pos: 0 }),
    run: async (files) => {
      const buffer = Buffer.alloc(SECTORS * SECTOR);
      const { bytesRead } = await files[how].read(buffer, { position: 0, nowait });
      return { result: bytesRead / SECTOR, bytes: sectorsOf(buffer.subarray(0, bytesRead)), pos: 0 };
    },
  };
}

function change(
  name: string,
  apply: (file: SequentialFile) => void,
  run: (file: FileHandle) => Promise<void>,
): Operation {
  return {
    name,
    apply: (file) => {
      apply(file);
      return { result: 0 };
    },
    run: async ({ direct }) => {
      await run(direct);
      return { result: 0 };
    },
  };
}

const punched = { mode: 'punch-hole', keepSize: true } as const;

const KINDS: readonly (() => Operation)[] = [
  () => write('direct', 0, 2),
  () => write('direct', 1, 1),
  () => write('direct', 2, 2),
  () => write('direct', 2, 1),
  () => write('direct', 3, 1),
  () => write('direct', 4, 1),
  () => write('direct', 5, 1),
  () => write('direct', 0, 6),
  () => write('direct', 7, 2),
  () => write('direct', 8, 2),
  () => write('direct', 0, 2, true),
  () => write('direct', 3, 1, true),
  () => write('append', 0, 1),
  () => write('buffered', 1, 3),
  () => write('buffered', 9, 1),
  () => read('direct'),
  () => read('direct', true),
  () => read('buffered'),
  () =>
    change(
      'truncate 3',
      (file) => file.truncate(3),
      async (file) => file.truncate(3 * SECTOR),
    ),
  () =>
    change(
      'truncate 10',
      (file) => file.truncate(10),
      async (file) => file.truncate(10 * SECTOR),
    ),
  () =>
    change(
      'punch 1+4',
      (file) => file.zero(1, 4),
      async (file) => file.fallocate(SECTOR, 4 * SECTOR, punched),
    ),
  () =>
    change(
      'datasync',
      () => {},
      async (file) => file.datasync(),
    ),
];

/** A sector is what one writer wrote, or zeros; anything else is told as -1. */
function sectorsOf(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length / SECTOR }, (_, sector) => {
    const part = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    const [first] = part;
    return part.every((byte) => byte === first) ? (first as number) : -1;
  });
}

/** A written block, an unwritten one, a hole, and half a written one. */
async function prepare(volume: Volume, path: string): Promise<Files> {
  const direct = await volume.open(path, O_RDWR | O_CREAT | O_DIRECT);
  await direct.write(allocAligned(2 * SECTOR).fill(201), 0, 2 * SECTOR, 0);
  await direct.write(allocAligned(SECTOR).fill(202), 0, SECTOR, 6 * SECTOR);
  await direct.fallocate(2 * SECTOR, 2 * SECTOR);
  const buffered = await volume.open(path, O_RDWR);
  return { direct, buffered, append: await volume.open(path, O_RDWR | O_DIRECT | O_APPEND) };
}

async function heardOf(operation: Operation, files: Files): Promise<Heard> {
  try {
    return await operation.run(files);
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (errno === undefined || operation.nowait !== true) throw error;
    return { result: errno };
  }
}

async function history(volume: Volume, seed: number): Promise<string | undefined> {
  const path = `/${seed}`;
  const files = await prepare(volume, path);
  const initial = sectorsOf(await volume.readFile(path));
  if (seed % 3 === 0) await files.buffered.write(Buffer.alloc(SECTOR, 203), 0, SECTOR, 0);
  if (seed % 3 === 0) initial[0] = 203;
  let clock = 0;
  let random = seed * 2654435761 + 1;
  const calls = await Promise.all(
    Array.from({ length: 2 + (seed % 3) }, async (): Promise<Call> => {
      random = (random * 1103515245 + 12345) % 2 ** 31;
      const operation = (KINDS[Math.floor(random / 65536) % KINDS.length] as () => Operation)();
      // Some begin later, when others have ended.
      for (let turn = Math.floor(random / 1024) % 4; turn > 0; turn -= 1)
        await new Promise((resolve) => {
          setImmediate(resolve);
        });
      const begun = (clock += 1);
      const heard = await heardOf(operation, files);
      const { name, apply, nowait = false } = operation;
      return { name, apply, nowait, begun, ended: (clock += 1), heard };
    }),
  );
  const final = sectorsOf(await volume.readFile(path));
  for (const file of Object.values(files) as FileHandle[]) await file.close();
  await volume.unlink(path);
  const sectors = unexplained(initial, calls, final, false);
  if (sectors.length === 0) return undefined;
  const text = calls.map((call) => `${call.begun}–${call.ended} ${call.name} ${JSON.stringify(call.heard)}`);
  return `history ${seed}: sectors ${sectors.join(', ')}: [${initial.join(' ')}] → [${final.join(' ')}]\n  ${text.join('\n  ')}`;
}

for (const engine of ['io_uring', 'threads'] satisfies EngineName[]) {
  e2e(`${HISTORIES} histories of two to four calls at once: ${engine}`, (t) =>
    withVolume(t, { blockSize: 2 * SECTOR }, async (first, image) => {
      await first.close();
      const volume = await Volume.open(image, { engine }).catch((error: Error) => error);
      if (volume instanceof Error) {
        t.log(`skipped: ${engine} is refused here: ${volume.message}`);
        t.pass();
        return;
      }
      for (let seed = 1; seed <= HISTORIES; seed += 1) {
        const wrong = await history(volume, seed);
        if (wrong !== undefined) t.fail(wrong);
      }
      const { shared, exclusive, upgraded, drained, buffered, nowaitRefused } = volume.stats().writes;
      t.log({ shared, exclusive, upgraded, drained, buffered, nowaitRefused });
      t.true(shared > 0 && exclusive > 0 && upgraded > 0 && buffered > 0);
      await volume.close();
    }),
  );
}
