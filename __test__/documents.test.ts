/** The documents name what is there: files, identifiers, tests, and all of the API. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { HELP } from '../src/cli/run.js';
import { FileHandle, Volume } from '../src/index.js';

const FOLDERS = ['src', 'crates', '__test__', 'exercise', 'bench', 'scripts', 'examples', 'docs'];
const DOCUMENTS = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'docs/durability.md'];
const CODE = /\.(rs|ts|mjs|py)$/;

const files = FOLDERS.flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
);
files.push(...readdirSync('.'));
const code = new Map(
  files.filter((file) => CODE.test(file)).map((file) => [file, readFileSync(file, 'utf8')] as const),
);
const words = new Set([...code.values()].flatMap((text) => text.match(/\w+/g) ?? []));

/** Files may be named from their crate on, and without `src`. */
function exists(path: string): boolean {
  const plain = path.replace(/\/$/, '');
  return files.some((file) =>
    [file, file.replace('/src/', '/')].some((one) => `/${one}`.endsWith(`/${plain}`)),
  );
}

function quoted(document: string): string[] {
  const text = readFileSync(document, 'utf8').replaceAll(/```[\s\S]*?```/g, '');
  return [...text.matchAll(/`([^`\s*{}]+)`/g)].map((match) => match[1] as string);
}

for (const document of DOCUMENTS) {
  test(`${document} names files and identifiers that there are`, (t) => {
    for (const name of quoted(document)) {
      if (/\.(rs|ts|mjs|md|jsonl|json)$|^[\w-]+\/$/.test(name)) t.true(exists(name), name);
      else if (/^#?[a-z]\w*(?:(::|\.)\w+)*(?:\(\))?$/i.test(name))
        for (const word of name.match(/\w+/g) ?? []) t.true(word.length < 3 || words.has(word), name);
    }
  });
}

test('every sentence on durability names a test that is there', (t) => {
  const text = readFileSync('docs/durability.md', 'utf8');
  const rows = text.match(/^\| (?!what was done|---).*$/gm) ?? [];
  t.true(rows.length > 10);
  for (const row of rows) t.regex(row, /`\w+`[^|]*\|$/, row);
  const tests = [...code].filter(([file]) => file.includes('/tests/')).map(([, source]) => source);
  let checked = 0;
  for (const named of [...rows, ...(text.match(/\((`[\s\S]*?)\)/g) ?? [])]) {
    for (const [, name] of named.matchAll(/`([a-z][a-z0-9]*(?:_[a-z0-9]+){2,})`/g)) {
      t.true(
        tests.some((source) => source.includes(`fn ${name}(`)),
        name,
      );
      checked += 1;
    }
  }
  t.true(checked > 15);
});

test('the README has the help of the command', (t) => {
  const usage = HELP.split('\n\n')[1]?.replace('Usage:\n', '').replaceAll(/^ {2}/gm, '') ?? '';
  t.true(usage.split('\n').length > 10);
  t.true(readFileSync('README.md', 'utf8').includes(usage));
});

test('the README has every call and every option of Volume.open', (t) => {
  const readme = readFileSync('README.md', 'utf8');
  const internal = new Set(['constructor', 'isDirect', 'directAlignBytes', 'transfer', 'openOn']);
  const calls = [Volume.prototype, FileHandle.prototype].flatMap((prototype) =>
    Object.getOwnPropertyNames(prototype),
  );
  for (const call of [...calls, ...Object.getOwnPropertyNames(Volume)]) {
    if (internal.has(call) || ['length', 'name', 'prototype'].includes(call)) continue;
    t.regex(readme, new RegExp(`[\`.]${call}[\`(]`), call);
  }
  const options = /export interface OpenOptions \{([\s\S]*?)\n\}/.exec(
    code.get('src/volume-options.ts') ?? '',
  );
  const names = [...(options?.[1] ?? '').matchAll(/^ {2}(\w+)\?:/gm)].map((match) => match[1] as string);
  t.true(names.length > 10);
  for (const name of names) t.regex(readme, new RegExp(`\\b${name}\\b`), name);
});
