/** The command's arguments. */
import { parseArgs } from 'node:util';

import { FEATURES, type Feature, type Features } from './features.js';
import { MAX_FILES } from './generate.js';

export class UsageError extends Error {}

export const USAGE = `usage: npm run exercise -- [--seed N] [--ops N] [--files K] [--features A,B,-C] [--block-size N]
                           [--epoch N] [--image PATH] [--replay LIST] [--dax] [--block-maps] [--quiet]
  --seed        where the random numbers begin (default: the time)
  --ops         operations (default 50000)
  --files       files, at most ${MAX_FILES} (default 6)
  --features    of ${FEATURES.join(', ')};
                with a minus sign: all but those (default: all)
  --block-size  of the volume, in bytes (default: each epoch another)
  --epoch       operations before a fresh volume is made (default 20000)
  --image       where the volume is made (default: a temporary file)
  --replay      runs a list that was printed before, instead of random operations
  --dax         loads and stores data in place: the image has to lie on tmpfs
  --block-maps  on a volume of mke2fs without extents, and without what those alone can do`;

export interface Options {
  readonly seed: number;
  readonly ops: number;
  readonly files: number;
  readonly features: Features;
  /** Undefined: another one each epoch. */
  readonly blockSize: number | undefined;
  readonly epochOps: number;
  readonly image: string | undefined;
  readonly replay: string | undefined;
  readonly dax: boolean;
  readonly blockMaps: boolean;
  readonly quiet: boolean;
}

/** @throws UsageError */
export function parseOptions(args: readonly string[]): Options {
  const text = { type: 'string' } as const;
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        seed: text,
        ops: text,
        files: text,
        features: text,
        'block-size': text,
        epoch: text,
        image: text,
        replay: text,
        dax: { type: 'boolean' },
        'block-maps': { type: 'boolean' },
        quiet: { type: 'boolean' },
      },
    }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const blockSize = values['block-size'];
  const blockMaps = values['block-maps'] === true;
  return {
    seed: count('seed', values.seed ?? String(Date.now() % 2 ** 31), 0, 2 ** 31),
    ops: count('ops', values.ops ?? '50000', 1, 2 ** 40),
    files: count('files', values.files ?? '6', 1, MAX_FILES),
    features: blockMaps ? withoutExtents(features(values.features)) : features(values.features),
    blockSize: blockSize === undefined ? undefined : count('block-size', blockSize, 1024, 65536),
    epochOps: count('epoch', values.epoch ?? '20000', 1, 2 ** 40),
    image: values.image,
    replay: values.replay,
    dax: values.dax === true,
    blockMaps,
    quiet: values.quiet === true,
  };
}

/**
 * What a block map does not support, on Linux either; nor is a direct write that meets a hole one step there: the page
 * cache writes the rest under a lock of its own (A16).
 */
function withoutExtents(wanted: Features): Features {
  const never: readonly Feature[] = ['preallocate', 'zero', 'collapse', 'insert', 'overlap'];
  return new Set([...wanted].filter((feature) => !never.includes(feature)));
}

function count(name: string, value: string, min: number, max: number): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < min || number > max)
    throw new UsageError(`--${name} must be a number from ${min} to ${max}`);
  return number;
}

function isFeature(word: string): word is Feature {
  return (FEATURES as readonly string[]).includes(word);
}

function features(list: string | undefined): Features {
  if (list === undefined) return new Set(FEATURES);
  const named = list.split(',').map((word) => word.trim());
  for (const word of named)
    if (!isFeature(word.replace(/^-/, ''))) throw new UsageError(`no feature is called ${word}`);
  const kept = new Set<Feature>(named.some((word) => word.startsWith('-')) ? FEATURES : []);
  for (const word of named) {
    if (isFeature(word)) kept.add(word);
    else kept.delete(word.slice(1) as Feature);
  }
  if (!kept.has('direct') && !kept.has('buffered')) throw new UsageError('direct or buffered is needed');
  return kept;
}
