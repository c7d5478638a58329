/** Imports point down only: public API → file handle → read-iter, write-iter → native; one module loads the `.node` file. */
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

import test from 'ava';

/** Module (or folder) of src → its layer; a module imports from its own layer and those below. */
const LAYERS: readonly (readonly string[])[] = [
  ['native/boundary', 'native/errno', 'native/load'],
  ['turns'],
  ['engine'],
  ['inode-lock', 'write-gate', 'open-inode', 'kiocb', 'sizes', 'write-counts', 'direct-waiter'],
  ['write-iter', 'read-iter', 'range-ops'],
  [
    'errors',
    'encoding',
    'validate',
    'stats',
    'aligned-memory',
    'iov',
    'mount',
    'inode-tasks',
    'default-engine',
    'volume-options',
    'transfer-arguments',
    'request',
    'quiesce',
    'mkdir',
    'range-arguments',
    'containers',
    'file-streams',
    'whole-file',
  ],
  ['file-handle'],
  ['tree', 'volume'],
  ['index'],
  ['cli', 'main-job'],
];

const SRC = join(process.cwd(), 'src');
const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));

function layerOf(file: string): number {
  const name = file.replace(/\.[jt]s$/, '');
  return LAYERS.findIndex((names) => names.some((part) => name === part || name.startsWith(`${part}/`)));
}

function importsOf(file: string): string[] {
  const source = readFileSync(join(SRC, file), 'utf8');
  return [...source.matchAll(/(?:from|import\()\s*'([^']+)'/g)].map((match) => match[1] as string);
}

test('every module has a layer and imports from none above', (t) => {
  t.true(files.length > 20);
  for (const file of files) {
    const layer = layerOf(file);
    t.true(layer >= 0, `${file} has no layer`);
    for (const imported of importsOf(file)) {
      if (!imported.startsWith('.')) continue;
      const target = normalize(join(dirname(file), imported));
      t.true(layerOf(target) >= 0 && layerOf(target) <= layer, `${file} imports ${target}`);
    }
  }
});

test('only native/load loads a native module, and only default-engine asks for it', (t) => {
  const loaders = files.filter((file) =>
    /createRequire|\.node['"`]|process\.dlopen/.test(readFileSync(join(SRC, file), 'utf8')),
  );
  t.deepEqual(loaders, ['native/load.ts']);
  const askers = files.filter((file) => importsOf(file).some((name) => name.endsWith('native/load.js')));
  t.deepEqual(askers, ['default-engine.ts']);
});

test('the policy imports nothing of Node', (t) => {
  for (const file of files.filter((name) => /^(write-iter|read-iter|range-ops)\b/.test(name))) {
    t.deepEqual(
      importsOf(file).filter((name) => !name.startsWith('.')),
      [],
      file,
    );
  }
});

test('files stay below 600 lines', (t) => {
  for (const file of files) t.true(readFileSync(join(SRC, file), 'utf8').split('\n').length <= 600, file);
});
