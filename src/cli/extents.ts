/** `extents`: what a file lies on. */
import type { FileExtent, Volume } from '../index.js';
import type { Shell } from './shell.js';

const STATES = ['unwritten', 'delalloc', 'inline', 'last'] as const;

function line(extent: FileExtent): string {
  const numbers = [extent.logical, extent.length, extent.physical].map((bytes) => String(bytes).padStart(16));
  const states = STATES.filter((state) => extent[state]);
  return `${numbers.join(' ')} ${states.join(',')}`.trimEnd();
}

/** One extent a line: position, length and place on the device in bytes, and its state. */
export async function extents(shell: Shell, volume: Volume, path: string, json: boolean): Promise<void> {
  const file = await volume.open(path, 'r');
  try {
    const found = await file.extents();
    if (json) await shell.out(`${JSON.stringify(found, undefined, 2)}\n`);
    else for (const extent of found) await shell.out(`${line(extent)}\n`);
  } finally {
    await file.close();
  }
}
