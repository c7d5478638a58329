/** The load on top of the copied tree: overwrites and appends, and the tree of what they leave. */
import type { Volume } from '../index.js';
import { appends } from './appends.js';
import { overwrites, type LoadReport } from './overwrites.js';
import { withProgress } from './progress.js';
import type { Tree, TreeEntry } from './tree.js';

const APPENDS = 200;
export const LOAD_ROOT = '/load';

/** What the load did, by the name of its file. */
export type LoadReports = ReadonlyMap<string, LoadReport>;

/** Runs the load. `sizeBytes`: of the file that is overwritten. */
export async function runLoad(
  volume: Volume,
  size: { readonly sizeBytes: number; readonly forSeconds: number },
  signal: AbortSignal,
): Promise<LoadReports> {
  const reports = new Map<string, LoadReport>();
  await volume.mkdir(LOAD_ROOT);
  const about = { title: 'Random 4 KiB overwrites', total: size.forSeconds, unit: 's' };
  const overwritten = await withProgress(about, (progress) =>
    overwrites({ volume, path: `${LOAD_ROOT}/overwrites`, ...size }, progress, signal),
  );
  reports.set('overwrites', overwritten);
  for (const kind of ['buffered', 'direct'] as const) {
    const name = `appends-${kind}`;
    const title = `Appends with fsync, ${kind}`;
    const appended = await withProgress({ title, total: APPENDS, unit: 'appends' }, (progress) =>
      appends({ volume, path: `${LOAD_ROOT}/${name}`, kind, count: APPENDS }, progress, signal),
    );
    reports.set(name, appended);
  }
  return reports;
}

/** The load's files as a tree to compare with. */
export async function loadTree(volume: Volume, reports: LoadReports): Promise<Tree> {
  const entries: TreeEntry[] = [];
  const about = async (path: string, at: string): Promise<Omit<TreeEntry, 'type'>> => {
    const { mode, atimeNs, mtimeNs } = await volume.stat(at, { bigint: true });
    return { path, mode: Number(mode) & 0o7777, atimeNs, mtimeNs };
  };
  entries.push({ type: 'directory', ...(await about('', LOAD_ROOT)) });
  for (const [name, { sha256 }] of reports) {
    const at = `${LOAD_ROOT}/${name}`;
    const { size } = await volume.stat(at);
    entries.push({ type: 'file', ...(await about(name, at)), sizeBytes: size, sha256 });
  }
  return { root: LOAD_ROOT, entries, skipped: [] };
}
