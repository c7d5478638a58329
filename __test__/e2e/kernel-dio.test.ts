/** Every recorded case of the kernel's ext4, on our volumes: the same answers, sizes, times, mappings and bytes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { fastFolder } from '../../exercise/fast-folder.js';
import { loadCases, type Case } from '../kernel-dio/case.js';
import { CaseVolume, copyImage, makeVolume, type Kind } from '../kernel-dio/case-volume.js';
import { compare, compareContent, type Differences } from '../kernel-dio/compare.js';
import { DEVIATIONS, deviationOf, type Deviation } from '../kernel-dio/deviations.js';
import { readBack, replay } from '../kernel-dio/replay.js';
import { NoCounterpart } from '../kernel-dio/steps.js';
import { TappedEngine } from '../kernel-dio/tapped-engine.js';
import { e2eSerial, hasTool, MiB } from './support.js';

/** Case → what differs. */
type Report = Map<Case, Differences>;

const kindOf = ({ fsBlock, sector, map, mount }: Kind): string => `${fsBlock}/${sector} ${map} ${mount}`;

async function replayOn(on: CaseVolume, about: Case, path: string, report: Report): Promise<void> {
  try {
    report.set(about, compare(await replay(on, about, path), about));
  } catch (error) {
    const what = error instanceof NoCounterpart ? 'no counterpart' : (error as Error).name;
    report.set(about, [`${what}: ${(error as Error).message}`]);
  }
}

async function checkContent(on: CaseVolume, about: Case, path: string, report: Report): Promise<void> {
  const differences = report.get(about) as Differences;
  if (differences.length > 0) return;
  await readBack(on.volume, about, path).then(
    (parts) => differences.push(...compareContent(parts, about)),
    (error: Error) => differences.push(`${error.name}: ${error.message}`),
  );
}

/** All cases but those that fill a volume, on one. */
async function replayTogether(
  on: CaseVolume,
  cases: readonly Case[],
  report: Report,
): Promise<string | undefined> {
  const paths = new Map(cases.map((about, index) => [about, `/case-${index}`]));
  for (const [about, path] of paths) await replayOn(on, about, path, report);
  const judged = await on.judge();
  // Where it cannot be mounted every case says so.
  await on.mount().catch(() => undefined);
  for (const [about, path] of paths) await checkContent(on, about, path, report);
  return judged;
}

/** A case that fills its volume has it for itself. */
async function replayAlone(
  template: string,
  about: Case,
  tap: TappedEngine,
  report: Report,
): Promise<string | undefined> {
  const image = `${template}.case`;
  await copyImage(template, image);
  const on = new CaseVolume(image, about, tap);
  try {
    return await replayTogether(on, [about], report);
  } finally {
    await on.dispose();
    await rm(image);
  }
}

/** All cases of one kind. Returns what e2fsck said of volumes that it did not like. */
async function replayKind(
  folder: string,
  cases: readonly Case[],
  tap: TappedEngine,
  report: Report,
): Promise<string[]> {
  const complaints: string[] = [];
  const kind = cases[0] as Case;
  const image = join(folder, `${kindOf(kind).replaceAll(/\W/g, '-')}.img`);
  await makeVolume(image, kind, 512 * MiB);
  const on = new CaseVolume(image, kind, tap);
  try {
    complaints.push(
      (await replayTogether(
        on,
        cases.filter(({ group }) => group !== 'enospc'),
        report,
      )) ?? '',
    );
  } finally {
    await on.dispose();
  }
  const small = cases.filter(({ group }) => group === 'enospc');
  if (small.length > 0) await makeVolume(image, kind, (kind.fsBlock === 4096 ? 16 : 8) * MiB);
  for (const about of small) complaints.push((await replayAlone(image, about, tap, report)) ?? '');
  return complaints.filter((text) => text !== '');
}

const used = new Set<Deviation>();
let judged = 0;
const tap = new TappedEngine();
const kinds = new Map<string, Case[]>();
for (const about of loadCases()) {
  const name = kindOf(about);
  kinds.set(name, [...(kinds.get(name) ?? []), about]);
}

for (const [name, cases] of kinds)
  e2eSerial(name, async (t) => {
    if (!(await hasTool('mke2fs', '-V'))) return skip(t, 'needs mke2fs');
    if (cases[0]?.sector !== 512 && process.getuid?.() !== 0) return skip(t, 'needs root for a loop device');
    const folder = await mkdtemp(join(await fastFolder(), 'uext4-kernel-dio-'));
    const report: Report = new Map();
    try {
      t.deepEqual(await replayKind(folder, cases, tap, report), []);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
    const unexplained: string[] = [];
    for (const [about, differences] of report) {
      if (differences.length === 0) continue;
      const row = deviationOf(about, differences);
      if (row === undefined) unexplained.push(`${about.id}: ${differences.join('; ')}`);
      else used.add(row);
    }
    judged += 1;
    t.deepEqual(unexplained, []);
  });

function skip(t: ExecutionContext, why: string): void {
  t.log(`skipped: ${why}`);
  t.pass();
}

e2eSerial('every deviation that is listed is one', (t) => {
  if (judged < kinds.size) {
    t.log('skipped: not all cases were run');
    return t.pass();
  }
  const idle = DEVIATIONS.filter((row) => !used.has(row)).map(({ reason }) => reason);
  return t.deepEqual(idle, []);
});
