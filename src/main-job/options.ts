/** The main job's command line. */
import { parseArgs } from 'node:util';

import { parseSize } from '../cli/size.js';

/** What the job was asked to do. */
export interface JobOptions {
  /** The container; undefined: a new one in the temporary directory. */
  readonly image: string | undefined;
  /** Bytes; undefined: as large as the tree needs, at least 1 GiB. */
  readonly sizeBytes: number | undefined;
  /** The tree to copy. */
  readonly from: string;
  /** Leaves a temporary container in place. */
  readonly keep: boolean;
  /** How long the random overwrites run. */
  readonly overwriteSeconds: number;
}

export const HELP = `Makes an ext4 volume, fills it by direct I/O, and lets e2fsck and the kernel judge it.

Usage: npm start [-- OPTIONS]
  --image PATH   the container (default: a new file in the temporary directory); it is kept
  --size N       its size, as in 2GiB (default: 1 GiB, more if the tree needs it)
  --from DIR     the tree to copy (default: the project's node_modules)
  --seconds N    how long the random overwrites run (default: 3)
  --keep         keeps a container in the temporary directory
Exit status: 0 all held, 1 something did not, 2 wrong usage
`;

/** The command line is wrong: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

function parse(argv: readonly string[]): ReturnType<typeof parseJobArgs> {
  try {
    return parseJobArgs(argv);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function parseJobArgs(argv: readonly string[]) {
  return parseArgs({
    args: [...argv],
    options: {
      image: { type: 'string' },
      size: { type: 'string' },
      from: { type: 'string' },
      seconds: { type: 'string' },
      keep: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
}

/** The options, or 'help'. `defaultTree`: what is copied without --from. Throws {@link UsageError}. */
export function parseOptions(argv: readonly string[], defaultTree: string): JobOptions | 'help' {
  const { values } = parse(argv);
  if (values.help === true) return 'help';
  const sizeBytes = values.size === undefined ? undefined : parseSize(values.size);
  if (values.size !== undefined && sizeBytes === undefined)
    throw new UsageError(`--size: not a size: ${values.size}`);
  const overwriteSeconds = Number(values.seconds ?? '3');
  if (!Number.isFinite(overwriteSeconds) || overwriteSeconds <= 0)
    throw new UsageError(`--seconds: not a positive number: ${values.seconds}`);
  return {
    image: values.image,
    sizeBytes,
    from: values.from ?? defaultTree,
    keep: values.keep === true,
    overwriteSeconds,
  };
}
