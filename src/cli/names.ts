/** mv and ln, inside one volume. */
import { posix } from 'node:path';

import type { Volume } from '../index.js';
import { isDirectory } from './copy.js';
import { join } from './list.js';

/** The name under which `from` comes to `to`: in it, if that is a directory. */
async function targetOf(volume: Volume, from: string, to: string): Promise<string> {
  const name = posix.basename(from);
  return name !== '' && (await isDirectory(volume, to)) ? join(to, name) : to;
}

/** `mv`: as mv(1), into a directory that exists, else to the name given, in place of what has it. */
export async function move(volume: Volume, from: string, to: string): Promise<void> {
  await volume.rename(from, await targetOf(volume, from, to));
}

/** `ln`: another name for a file, or with `symbolic` a symbolic link that says `target`. */
export async function link(volume: Volume, target: string, to: string, symbolic: boolean): Promise<void> {
  const name = await targetOf(volume, target, to);
  await (symbolic ? volume.symlink(target, name) : volume.link(target, name));
}
