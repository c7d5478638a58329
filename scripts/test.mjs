/**
 * `npm test`: sets up, then runs every check and every test, and counts them.
 * The last line is "N passed, N failed, N skipped". `--only ts` leaves everything out that needs cargo.
 */
import { spawn } from 'node:child_process';

import { hasTool, root, setupOrExit } from './setup.mjs';

const onlyTypeScript = process.argv.includes('--only') && process.argv.includes('ts');

/** A check that passes or fails as a whole. */
function check(_output, status) {
  return status === 0 ? { passed: 1, failed: 0, skipped: [] } : { passed: 0, failed: 1, skipped: [] };
}

/** cargo's own counts, summed over the test binaries. */
function countCargo(output, status) {
  const counts = { passed: 0, failed: 0, skipped: [] };
  for (const [, passed, failed] of output.matchAll(
    /^test result: .*?(\d+) passed; (\d+) failed; \d+ ignored/gm,
  )) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
  }
  for (const [, name] of output.matchAll(/^test (.+?) \.\.\. ignored/gm))
    counts.skipped.push(`cargo: ${name}`);
  // What a test could not do here; the rest of it may have passed.
  for (const [, what] of output.matchAll(/^skipped: (.+)$/gm)) counts.skipped.push(what);
  // It did not compile, or a test binary died.
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

function countTap(output, status) {
  const counts = { passed: 0, failed: 0, skipped: [] };
  for (const [, not, rest] of output.matchAll(/^(not )?ok \d+ -? ?(.*)$/gm)) {
    const directive = / # (SKIP|TODO)\b/i.exec(rest);
    if (directive !== null) counts.skipped.push(`ava: ${rest.slice(0, directive.index)}`);
    else if (not === undefined) counts.passed += 1;
    else counts.failed += 1;
  }
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

function local(tool) {
  return `${root}/node_modules/.bin/${tool}`;
}

const cargoSteps = [
  {
    name: 'cargo fmt',
    tool: ['cargo', ['fmt', '--version']],
    args: ['fmt', '--all', '--check'],
    count: check,
  },
  {
    name: 'cargo clippy',
    tool: ['cargo', ['clippy', '--version']],
    args: ['clippy', '--workspace', '--all-targets', '--', '-D', 'warnings'],
    count: check,
  },
  { name: 'cargo test', tool: ['cargo'], args: ['test', '--workspace', '--no-fail-fast'], count: countCargo },
].map((step) => ({ ...step, command: 'cargo' }));

const typeScriptSteps = [
  { name: 'types', command: local('tsc'), args: ['-p', 'tsconfig.json'], count: check },
  {
    name: 'lint',
    command: local('oxlint'),
    args: ['--type-aware', '--deny-warnings', 'src', '__test__', 'bench', 'exercise', 'scripts', 'examples'],
    count: check,
  },
  {
    name: 'format',
    command: local('prettier'),
    args: ['--check', 'src', '__test__', 'bench', 'exercise', 'scripts', 'examples'],
    count: check,
  },
  { name: 'ava', command: local('ava'), args: ['--tap'], count: countTap },
];

function runStep({ name, command, args, count }) {
  console.log(`\n== ${name}`);
  return new Promise((resolve) => {
    let output = '';
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.setEncoding('utf8');
      from.on('data', (text) => {
        output += text;
        to.write(text);
      });
    }
    child.on('error', (error) => {
      console.error(`${name}: ${error.message}`);
      resolve({ passed: 0, failed: 1, skipped: [] });
    });
    child.on('close', (status) => resolve(count(output, status)));
  });
}

setupOrExit({ native: !onlyTypeScript });

for (const [tool, what] of [
  ['e2fsck', 'the tests that let e2fsck judge a volume are skipped: install e2fsprogs.'],
  ['debugfs', 'the tests that read a volume with debugfs are skipped: install e2fsprogs.'],
  ['mke2fs', 'the tests that take over volumes of mke2fs are skipped: install e2fsprogs.'],
]) {
  if (!hasTool(tool, ['-V'])) console.log(`${tool} is missing: ${what}`);
}
if (process.getuid?.() !== 0) {
  console.log('Not root: the tests that mount a volume with the kernel are skipped.');
}

/** @type {{ passed: number; failed: number; skipped: string[] }} */
const total = { passed: 0, failed: 0, skipped: [] };
const failedSteps = [];
for (const step of onlyTypeScript ? typeScriptSteps : [...cargoSteps, ...typeScriptSteps]) {
  if (step.tool !== undefined && !hasTool(step.tool[0], step.tool[1])) {
    console.log(`\n== ${step.name}: skipped, \`${step.name}\` is missing (https://rustup.rs)`);
    total.skipped.push(step.name);
    continue;
  }
  const counts = await runStep(step);
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped.push(...counts.skipped);
  if (counts.failed > 0) failedSteps.push(step.name);
}

console.log('');
for (const name of total.skipped) console.log(`skipped: ${name}`);
if (failedSteps.length > 0) console.log(`failed: ${failedSteps.join(', ')}`);
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped.length} skipped`);
process.exitCode = total.failed > 0 ? 1 : 0;
