/**
 * Brings a checkout to the point where the package runs: dependencies, the native module, dist.
 * Only what is older than its sources is made again. Uses nothing but Node until the dependencies are there.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** A step that cannot be done; its message is one clear line. */
export class SetupError extends Error {}

/** Whether a tool answers. */
export function hasTool(command, args = ['--version']) {
  const { error, status } = spawnSync(command, args, { cwd: root, stdio: 'ignore' });
  return error === undefined && status === 0;
}

function run(what, command, args) {
  console.log(`${what} …`);
  const { error, status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error !== undefined) throw new SetupError(`${what} failed: ${error.message}`);
  if (status !== 0) throw new SetupError(`${what} failed: ${command} exited with ${status}`);
}

function* filesBelow(path) {
  if (statSync(path).isFile()) {
    yield path;
    return;
  }
  for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name === 'target' || entry.name === 'node_modules') continue;
    yield* filesBelow(join(path, entry.name));
  }
}

function fingerprint(sources) {
  const hash = createHash('sha256').update(`${process.version} ${process.platform} ${process.arch}\0`);
  for (const source of sources) {
    const path = join(root, source);
    if (!existsSync(path)) continue;
    for (const file of filesBelow(path))
      hash.update(`${file.slice(root.length)}\0`).update(readFileSync(file));
  }
  return hash.digest('hex');
}

/** Makes `outputs` unless the stamp says that they are those of these sources. */
function make(what, { sources, isThere, build }) {
  const stamp = join(root, '.build', `${what}.stamp`);
  const wanted = fingerprint(sources);
  if (isThere() && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  build();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

function modified(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0;
}

function install() {
  const installed = modified(join(root, 'node_modules', '.package-lock.json'));
  if (installed > 0 && installed >= modified(join(root, 'package-lock.json'))) return;
  // Not `npm ci`: it insists on entries for the other platforms' optional packages.
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error'];
  run('Installing dependencies', 'npm', ['install', '--no-save', ...quiet]);
}

function nativeFiles() {
  const folder = join(root, 'native');
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.node')) : [];
}

function buildNative() {
  if (!hasTool('cargo')) {
    if (nativeFiles().length > 0) {
      console.log('cargo is missing: the native module that is already here is used as it is.');
      return false;
    }
    throw new SetupError('cargo is missing: install Rust (https://rustup.rs) to build the native module.');
  }
  make('native', {
    sources: ['crates', 'Cargo.toml', 'Cargo.lock', 'package.json'],
    isThere: () => nativeFiles().length > 0,
    build: () => run('Building the native module', 'npm', ['run', '--silent', 'build:native']),
  });
  return true;
}

function buildDist() {
  make('dist', {
    sources: ['src', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'],
    isThere: () => existsSync(join(root, 'dist', 'index.js')),
    build: () => {
      run('Building dist', 'npm', ['run', '--silent', 'build:ts']);
      chmodSync(join(root, 'dist', 'cli', 'main.js'), 0o755);
    },
  });
}

/** Installs and builds what is missing or old. Throws {@link SetupError}. */
export function setup({ native = true } = {}) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(`Node.js ${process.version} is too old: 20.19 or later is needed.`);
  }
  install();
  if (native) buildNative();
  buildDist();
}

/** {@link setup} for a script: one line and exit status 1 when it fails. */
export function setupOrExit(options) {
  try {
    setup(options);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) setupOrExit();
