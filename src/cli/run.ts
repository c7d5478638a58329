/** The command: arguments in, exit status out. */
import { existsSync } from 'node:fs';
import { parseArgs, type ParseArgsConfig } from 'node:util';

import type { FormatOptions } from '../index.js';
import { cat, get, put } from './copy.js';
import { escapeText } from './bytes.js';
import { extents } from './extents.js';
import { list } from './list.js';
import { link, move } from './names.js';
import { UsageError, withVolume, type Shell } from './shell.js';
import { parseSize } from './size.js';

export const HELP = `uext4: ext4 volumes in files and on block devices, without a mount

Usage:
  uext4 mkfs IMAGE [--size N] [--label TEXT] [--uuid UUID] [--block-size N] [--force] [--json]
  uext4 info IMAGE [--json]
  uext4 recover IMAGE [--dry-run] [--json]
                               replays the journal and processes orphans, or says what there is to do
  uext4 ls IMAGE [PATH] [-l] [-R] [--json]
  uext4 cat IMAGE PATH
  uext4 extents IMAGE PATH [--json]
                               what a file lies on: position, length, place on the device in bytes; state
  uext4 put IMAGE FROM TO      copies a file or tree into the volume, as cp -a, but for its attributes
  uext4 get IMAGE FROM TO      copies one out of it; what cannot be kept is said, exit status 1
  uext4 mv IMAGE FROM TO       renames; into a directory that exists
  uext4 ln IMAGE TARGET TO [-s]

--size: left out, that of the file or device that is there
--force: over a file system that is there (mkfs); what the host's kernel has in use, too (all others)
Sizes: bytes, or with K, M, G, T (powers of 1024), as in 64M or 2GiB.
Options: --help, --version; all but mkfs: --journal PATH, the container of an external journal
Exit status: 0 done, 1 failed, 2 wrong usage, 3 recovery is needed (recover --dry-run),
4 recovered as far as it goes: e2fsck has to look at the volume (recover)
`;

type Values = Record<string, string | boolean | undefined>;
/** Resolves with an exit status where it is not 0. */
type Command = (shell: Shell, args: string[], values: Values) => Promise<number | void>;
type Options = NonNullable<ParseArgsConfig['options']>;

interface Definition {
  readonly options: Options;
  /** Names of the arguments; those after `required` may be left out. */
  readonly args: readonly string[];
  readonly required: number;
  readonly run: Command;
}

const JSON_OPTION = { json: { type: 'boolean' } } as const;
const JOURNAL_OPTION = { journal: { type: 'string' }, force: { type: 'boolean' } } as const;

function sizeOption(values: Values, name: string): number | undefined {
  const text = values[name];
  if (typeof text !== 'string') return undefined;
  const bytes = parseSize(text);
  if (bytes === undefined) throw new UsageError(`--${name}: not a size: ${text}`);
  return bytes;
}

const mkfs: Command = async (shell, [image], values) => {
  const sizeBytes = sizeOption(values, 'size');
  const blockSize = sizeOption(values, 'block-size');
  const options: FormatOptions = {};
  if (sizeBytes !== undefined) options.sizeBytes = sizeBytes;
  else if (!existsSync(image as string)) throw new UsageError('mkfs of a new file needs --size');
  if (blockSize !== undefined) options.blockSize = blockSize;
  if (typeof values['label'] === 'string') options.label = values['label'];
  if (typeof values['uuid'] === 'string') options.uuid = values['uuid'];
  if (values['force'] === true) options.force = true;
  const report = await shell.format(image as string, options);
  await shell.out(values['json'] === true ? toJson(report) : toLines(report));
};

/** The external journal, where there is one, and whether to open what is in use. */
function journalOption(values: Values): { journal?: string; force?: boolean } {
  const { journal, force } = values;
  return { ...(typeof journal === 'string' && { journal }), ...(force === true && { force }) };
}

const info: Command = (shell, [image], values) =>
  withVolume(shell, image as string, { readOnly: true, ...journalOption(values) }, async (volume) => {
    const about = volume.info();
    await shell.out(values['json'] === true ? toJson(about) : toLines(about));
  });

const RECOVERY_NEEDED = 3;
const ERRORS_LEFT = 4;

const recover: Command = async (shell, [image], values) => {
  const dryRun = values['dry-run'] === true;
  const report = await shell.recover(image as string, { dryRun, ...journalOption(values) });
  const { needed, hasErrors, orphansLeft, ...counts } = report;
  if (values['json'] === true) await shell.out(toJson({ dryRun, ...report }));
  else if (needed) await shell.out(`${dryRun ? 'to do' : 'done'}:\n${toLines(counts)}`);
  else await shell.out('nothing to do\n');
  if (hasErrors) shell.err(`uext4: errors were seen on ${image}: check it with e2fsck`);
  if (orphansLeft.length > 0)
    shell.err(`uext4: damaged orphans were left on ${image}: inode ${orphansLeft.join(', ')}`);
  if (dryRun && needed) return RECOVERY_NEEDED;
  const isSuspect = hasErrors || orphansLeft.length + report.orphansBad + report.orphansUnsupported > 0;
  return isSuspect ? ERRORS_LEFT : 0;
};

const ls: Command = (shell, [image, path], values) =>
  withVolume(shell, image as string, { readOnly: true, ...journalOption(values) }, (volume) =>
    list(shell, volume, path ?? '/', {
      long: values['long'] === true,
      recursive: values['recursive'] === true,
      json: values['json'] === true,
    }),
  );

const COMMANDS: ReadonlyMap<string, Definition> = new Map<string, Definition>([
  [
    'mkfs',
    {
      options: {
        ...JSON_OPTION,
        size: { type: 'string' },
        label: { type: 'string' },
        uuid: { type: 'string' },
        'block-size': { type: 'string' },
        force: { type: 'boolean' },
      },
      args: ['IMAGE'],
      required: 1,
      run: mkfs,
    },
  ],
  ['info', { options: { ...JSON_OPTION, ...JOURNAL_OPTION }, args: ['IMAGE'], required: 1, run: info }],
  [
    'recover',
    {
      options: { ...JSON_OPTION, ...JOURNAL_OPTION, 'dry-run': { type: 'boolean' } },
      args: ['IMAGE'],
      required: 1,
      run: recover,
    },
  ],
  [
    'ls',
    {
      options: {
        ...JSON_OPTION,
        ...JOURNAL_OPTION,
        long: { type: 'boolean', short: 'l' },
        recursive: { type: 'boolean', short: 'R' },
      },
      args: ['IMAGE', 'PATH'],
      required: 1,
      run: ls,
    },
  ],
  [
    'cat',
    {
      options: JOURNAL_OPTION,
      args: ['IMAGE', 'PATH'],
      required: 2,
      run: (shell, [image, path], values) =>
        withVolume(shell, image as string, { readOnly: true, ...journalOption(values) }, (volume) =>
          cat(shell, volume, path as string),
        ),
    },
  ],
  [
    'extents',
    {
      options: { ...JSON_OPTION, ...JOURNAL_OPTION },
      args: ['IMAGE', 'PATH'],
      required: 2,
      run: (shell, [image, path], values) =>
        withVolume(shell, image as string, { readOnly: true, ...journalOption(values) }, (volume) =>
          extents(shell, volume, path as string, values['json'] === true),
        ),
    },
  ],
  [
    'put',
    {
      options: JOURNAL_OPTION,
      args: ['IMAGE', 'FROM', 'TO'],
      required: 3,
      run: (shell, [image, from, to], values) =>
        withVolume(shell, image as string, journalOption(values), (volume) =>
          put(shell, volume, from as string, to as string),
        ),
    },
  ],
  [
    'get',
    {
      options: JOURNAL_OPTION,
      args: ['IMAGE', 'FROM', 'TO'],
      required: 3,
      run: (shell, [image, from, to], values) =>
        withVolume(shell, image as string, { readOnly: true, ...journalOption(values) }, (volume) =>
          get(shell, volume, from as string, to as string),
        ),
    },
  ],
  [
    'mv',
    {
      options: JOURNAL_OPTION,
      args: ['IMAGE', 'FROM', 'TO'],
      required: 3,
      run: (shell, [image, from, to], values) =>
        withVolume(shell, image as string, journalOption(values), (volume) =>
          move(volume, from as string, to as string),
        ),
    },
  ],
  [
    'ln',
    {
      options: { ...JOURNAL_OPTION, symbolic: { type: 'boolean', short: 's' } },
      args: ['IMAGE', 'TARGET', 'TO'],
      required: 3,
      run: (shell, [image, target, to], values) =>
        withVolume(shell, image as string, journalOption(values), (volume) =>
          link(volume, target as string, to as string, values['symbolic'] === true),
        ),
    },
  ],
]);

function toJson(about: object): string {
  return `${JSON.stringify(about, undefined, 2)}\n`;
}

function toLines(about: object): string {
  return Object.entries(about)
    .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(' ') : textOf(value)}\n`)
    .join('');
}

function textOf(value: unknown): string {
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value);
}

function parse(definition: Definition, argv: string[]): { values: Values; positionals: string[] } {
  try {
    const { values, positionals } = parseArgs({
      args: argv,
      options: { ...definition.options, help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
    });
    return { values, positionals };
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function dispatch(shell: Shell, argv: readonly string[], version: () => string): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined) throw new UsageError('which command?');
  if (name === '--help' || name === '-h' || name === 'help') {
    await shell.out(HELP);
    return 0;
  }
  if (name === '--version') {
    await shell.out(`${version()}\n`);
    return 0;
  }
  const definition = COMMANDS.get(name);
  if (definition === undefined) throw new UsageError(`no such command: ${name}`);
  const { values, positionals } = parse(definition, rest);
  if (values['help'] === true) {
    await shell.out(HELP);
    return 0;
  }
  const missing = definition.args.slice(positionals.length, definition.required);
  if (missing.length > 0) throw new UsageError(`${name} needs ${missing.join(' and ')}`);
  if (positionals.length > definition.args.length)
    throw new UsageError(`${name}: one too many: ${positionals[definition.args.length]}`);
  return (await definition.run(shell, positionals, values)) ?? 0;
}

/** Runs the command; returns its exit status. */
export async function run(shell: Shell, argv: readonly string[], version: () => string): Promise<number> {
  try {
    return await dispatch(shell, argv, version);
  } catch (error) {
    if (error instanceof UsageError) {
      shell.err(`uext4: ${error.message}\nTry: uext4 --help`);
      return 2;
    }
    shell.err(`uext4: ${escapeText(error instanceof Error ? error.message : String(error))}`);
    return 1;
  }
}
