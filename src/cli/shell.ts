import type {
  FormatOptions,
  FormatReport,
  OpenOptions,
  RecoverOptions,
  RecoveryReport,
  Volume,
} from '../index.js';

/** What the command needs of the world: where it writes, and how it gets at volumes. */
export interface Shell {
  /** Resolves when the stream takes more. */
  readonly out: (data: string | Uint8Array) => Promise<void>;
  readonly err: (line: string) => void;
  readonly open: (image: string, options?: OpenOptions) => Promise<Volume>;
  readonly format: (image: string, options: FormatOptions) => Promise<FormatReport>;
  readonly recover: (image: string, options: RecoverOptions) => Promise<RecoveryReport>;
}

/** The command line is wrong: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Runs `work` with a volume that is closed afterwards, whatever happens. */
export async function withVolume<T>(
  shell: Shell,
  image: string,
  options: OpenOptions,
  work: (volume: Volume) => Promise<T>,
): Promise<T> {
  const volume = await shell.open(image, options);
  let result: T;
  try {
    result = await work(volume);
  } catch (error) {
    // The first failure is the one to tell.
    await volume.close().catch(() => undefined);
    throw error;
  }
  await volume.close();
  return result;
}
