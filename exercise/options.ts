/** The command's arguments. */
import { parseArgs } from 'node:util';

import { FEATURES, type Feature, type Features } from './features.js';
import { MAX_FILES } from './generate.js';
import { KINDS, type Kind } from './kinds.js';

export class UsageError extends Error {}

export const USAGE = `usage: npm run exercise -- [--seed N] [--ops N] [--files K] [--features A,B,-C] [--kind NAME]
                           [--epoch N] [--faults queued|blocking] [--image PATH] [--replay LIST] [--quiet]
  --seed        where the random numbers begin (default: the time)
  --ops         operations (default 50000)
  --files       files, at most ${MAX_FILES} (default 6)
  --features    of ${FEATURES.join(', ')};
                with a minus sign: all but those (default: all)
  --kind        of the volume: ${KINDS.map(({ name }) => name).join(', ')} (default: each epoch another)
  --epoch       operations before a fresh volume is made (default 20000)
  --faults      direct requests fail now and then; or some of the journal's, metadata's and write-back's
  --image       where the volume is made (default: a temporary file)
  --replay      runs a list that was printed before, instead of random operations`;

export interface Options {
  readonly seed: number;
  readonly ops: number;
  readonly files: number;
  readonly features: Features;
  /** Undefined: another one each epoch. */
  readonly kind: Kind | undefined;
  readonly epochOps: number;
  readonly faults: 'queued' | 'blocking' | undefined;
  readonly image: string | undefined;
  readonly replay: string | undefined;
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
        kind: text,
        faults: text,
        epoch: text,
        image: text,
        replay: text,
        quiet: { type: 'boolean' },
      },
    }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const { faults } = values;
  if (faults !== undefined && faults !== 'queued' && faults !== 'blocking')
    throw new UsageError('--faults is queued or blocking');
  return {
    seed: count('seed', values.seed ?? String(Date.now() % 2 ** 31), 0, 2 ** 31),
    ops: count('ops', values.ops ?? '50000', 1, 2 ** 40),
    files: count('files', values.files ?? '6', 1, MAX_FILES),
    features: features(values.features),
    kind: kind(values.kind),
    epochOps: count('epoch', values.epoch ?? '20000', 1, 2 ** 40),
    faults,
    image: values.image,
    replay: values.replay,
    quiet: values.quiet === true,
  };
}

function kind(name: string | undefined): Kind | undefined {
  const found = KINDS.find((each) => each.name === name);
  if (name !== undefined && found === undefined) throw new UsageError(`no kind is called ${name}`);
  return found;
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
