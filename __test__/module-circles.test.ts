/**
 * The modules of a crate import each other downwards. A circle of 23 once stood around `Fs`, most of it for a constant or a
 * plain type: no part could be understood, tested or moved without all the others.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

const CRATES = join(process.cwd(), 'crates');

/** What may stand in a circle: a volume, its inodes, its handles, and what its journal asks of it. */
const CIRCLES: Readonly<Record<string, readonly string[]>> = {
  ext4: ['error_policy', 'fs', 'handle', 'inode', 'journal_host'],
  // A journal starts handles.
  jbd2: ['handle', 'journal'],
};

/** Module → those that it imports. */
type Graph = ReadonlyMap<string, ReadonlySet<string>>;

/** Splits `a::{b, c::{d, e}}` into `a::b`, `a::c::d`, `a::c::e`. */
function pathsOf(tree: string): string[] {
  const open = tree.indexOf('{');
  if (open < 0) return [tree.trim()];
  const inner = tree.slice(open + 1, tree.lastIndexOf('}'));
  const parts: string[] = [];
  let [depth, start] = [0, 0];
  for (let at = 0; at <= inner.length; at += 1) {
    const char = inner[at];
    if (char === '{') depth += 1;
    else if (char === '}') depth -= 1;
    else if ((char === ',' && depth === 0) || char === undefined) {
      parts.push(inner.slice(start, at));
      start = at + 1;
    }
  }
  const prefix = tree.slice(0, open);
  return parts.filter((part) => part.trim() !== '').flatMap((part) => pathsOf(prefix + part.trim()));
}

/** Rust without comments, and without its modules of tests. */
function productionCode(source: string): string {
  return source
    .replace(/^\s*\/\/.*$/gm, '')
    .replace(/#\[cfg\(test\)\]\s*(?:pub(?:\(crate\))? )?mod \w+ \{[\s\S]*?^\}/gm, '');
}

/** Modules that only tests compile, by their declarations: `#[cfg(test)] mod name;`. */
function testModules(sources: ReadonlyMap<string, string>): Set<string> {
  const found = [...sources].flatMap(([file, source]) => {
    const folder = file.replace(/(?:^|\/)(?:mod|lib)\.rs$/, '').replace(/\.rs$/, '');
    const names = source.matchAll(/#\[cfg\(test\)\]\s*(?:pub(?:\(crate\))? )?mod (\w+);/g);
    return [...names].map((match) => join(folder, match[1] as string));
  });
  return new Set(found);
}

const moduleOf = (file: string): string => (file.split('/')[0] as string).replace(/\.rs$/, '');

/** The modules right below the root of a crate, and what each imports or names by `crate::`. */
function graphOf(crate: string): Graph {
  const root = join(CRATES, crate, 'src');
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.rs'),
  );
  const sources = new Map(names.map((name) => [name, readFileSync(join(root, name), 'utf8')]));
  const tests = testModules(sources);
  const modules = new Set(names.map(moduleOf).filter((name) => name !== 'lib' && !tests.has(name)));
  // What lib.rs lends its name to: `use crate::Error` is an import of error.
  const lent = new Map<string, string>();
  for (const match of (sources.get('lib.rs') ?? '').matchAll(/\buse (\w+)::([^;]*);/g)) {
    const [, owner, tree] = match as unknown as [string, string, string];
    for (const path of pathsOf(tree)) lent.set(path.split(/::| as /).at(-1) as string, owner);
  }
  const graph = new Map([...modules].map((name) => [name, new Set<string>()]));
  for (const [file, source] of sources) {
    const name = moduleOf(file);
    const isTest = [...tests].some((own) => file === `${own}.rs` || file.startsWith(`${own}/`));
    if (!modules.has(name) || isTest) continue;
    for (const match of productionCode(source).matchAll(/\bcrate::(\{[^;]*\}|\w+)/g)) {
      for (const path of pathsOf(match[1] as string)) {
        const first = path.split(/::| as /)[0] as string;
        const target = modules.has(first) ? first : lent.get(first);
        if (target !== undefined && target !== name && modules.has(target)) graph.get(name)?.add(target);
      }
    }
  }
  return graph;
}

function reachable(graph: Graph, from: string): Set<string> {
  const seen = new Set<string>();
  const left = [...(graph.get(from) ?? [])];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    left.push(...(graph.get(next) ?? []));
  }
  return seen;
}

/** Modules that reach themselves. */
function inCircles(graph: Graph): string[] {
  return [...graph.keys()].filter((name) => reachable(graph, name).has(name)).toSorted();
}

for (const crate of readdirSync(CRATES)) {
  test(`${crate}: no module imports in a circle, but those that are one thing`, (t) => {
    const graph = graphOf(crate);
    const allowed = CIRCLES[crate] ?? [];
    const found = inCircles(graph).filter((name) => !allowed.includes(name));
    const arrows = found.flatMap((name) =>
      [...(graph.get(name) ?? [])]
        .filter((target) => reachable(graph, target).has(name))
        .map((target) => `${name} → ${target}`),
    );
    t.deepEqual(arrows, []);
  });
}

test('a circle is seen through braces, through lib.rs, and not in comments and tests', (t) => {
  t.deepEqual(pathsOf('{Error, inode::{Inode, flags::X}, fs}'), [
    'Error',
    'inode::Inode',
    'inode::flags::X',
    'fs',
  ]);
  const code = productionCode(
    '// crate::a\nuse crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\nfn d() {}\n',
  );
  t.deepEqual(
    [...code.matchAll(/crate::(\w)/g)].map((match) => match[1]),
    ['b'],
  );
  const graph = new Map([
    ['a', new Set(['b'])],
    ['b', new Set(['c'])],
    ['c', new Set(['b'])],
  ]);
  t.deepEqual(inCircles(graph), ['b', 'c']);
  t.true(graphOf('ext4').get('handle')?.has('fs') && graphOf('ext4').get('fs')?.has('error'));
});
