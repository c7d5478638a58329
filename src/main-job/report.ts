/** What the job prints about what it did. */
import type { VolumeInfo, VolumeStats } from '../index.js';
import type { Verdict } from './judges.js';
import type { LoadReports } from './load.js';
import { bytesText, countsText, latencyText } from './text.js';
import type { Tree } from './tree.js';

const NAME_WIDTH = 12;
const MAX_SKIPPED = 10;

/** What a load is called, and what one of its operations is. */
const DESCRIPTIONS: ReadonlyMap<string, readonly [string, string]> = new Map([
  ['overwrites', ['overwrites', '4 KiB at queue depth 32']],
  ['appends-buffered', ['appends', 'a buffered record with fsync']],
  ['appends-direct', ['appends', '4 KiB direct with fsync']],
]);

function line(name: string, text: string): void {
  console.log(`${name.padEnd(NAME_WIDTH)} ${text.replaceAll('\n', `\n${' '.repeat(NAME_WIDTH + 1)}`)}`);
}

export function reportVolume(path: string, info: VolumeInfo): void {
  line(
    'volume',
    `${path}, ${bytesText(info.blockCount * info.blockSize)}, ${info.blockSize} B blocks, UUID ${info.uuid}`,
  );
  line('features', info.features.join(' '));
  line('backend', `${info.backend} (${info.backendReason})`);
  line('direct I/O', `positions and lengths in ${info.dioOffsetAlign} B, memory in ${info.dioMemoryAlign} B`);
}

export function reportCopy(tree: Tree, bytes: number, seconds: number): void {
  const count = (type: string): number => tree.entries.filter((entry) => entry.type === type).length;
  const what = `${count('file')} files, ${count('directory')} directories, ${count('symlink')} symbolic links`;
  const speed = `${bytesText(bytes / Math.max(seconds, 0.001))}/s`;
  line('copied', `${what}, ${bytesText(bytes)} in ${seconds.toFixed(1)} s, ${speed}`);
  for (const path of tree.skipped.slice(0, MAX_SKIPPED))
    line('skipped', `${path}: neither file, directory nor symbolic link`);
  if (tree.skipped.length > MAX_SKIPPED) line('skipped', `and ${tree.skipped.length - MAX_SKIPPED} more`);
}

export function reportLoad(reports: LoadReports): void {
  for (const [name, { operations, bytes, seconds, latency }] of reports) {
    const [what, how] = DESCRIPTIONS.get(name) ?? [name, ''];
    const rate = `${Math.round(operations / seconds)} IOPS`;
    line(what, `${operations} × ${how}, ${bytesText(bytes)}, ${rate}, ${latencyText(latency)}`);
  }
}

export function reportWrites({ writes }: VolumeStats): void {
  line('writes', `${writes.shared} shared, ${writes.exclusive} exclusive, ${writes.buffered} buffered`);
  line('exclusive', `because: ${countsText(writes.exclusiveBecause)}; upgraded: ${writes.upgraded}`);
  line('fell back', `because: ${countsText(writes.fellBackBecause)}`);
}

export function reportVerdict(name: string, { verdict, detail }: Verdict): void {
  line(name, `${verdict}: ${detail}`);
}
