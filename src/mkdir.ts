/** mkdir, and what node:fs makes of it with `recursive`. */
import { begin, type Task } from './engine.js';
import { invalidType } from './errors.js';
import type { Mount } from './mount.js';
import type { NativeStat } from './native/boundary.js';
import { request } from './request.js';
import { isDirectoryType, typeOfMode } from './stats.js';
import { parseMode } from './validate.js';

const ENOENT = -2;
const EEXIST = -17;
const ENOTDIR = -20;

/** Options of `mkdir`. */
export interface MkdirOptions {
  /** Missing parents too; what exists is no error. */
  recursive?: boolean;
  /** Default 0o777. */
  mode?: number | string;
}

export function mkdirArguments(options: number | string | MkdirOptions | null | undefined): {
  mode: number;
  recursive: boolean;
} {
  const settings: MkdirOptions =
    typeof options === 'object' && options !== null ? options : { mode: options as number };
  const mode = parseMode(settings.mode, 'mode', 0o777);
  const { recursive } = settings as { recursive?: unknown };
  if (recursive !== undefined && typeof recursive !== 'boolean')
    throw invalidType('options.recursive', 'be of type boolean', recursive);
  return { mode, recursive: recursive ?? false };
}

export function* mkdirOne(mount: Mount, path: string | Uint8Array, mode: number): Task<number> {
  return yield begin(mount.engine, (native, op) => native.mkdir(op, mount.handle, path, mode));
}

/** Makes missing parents too; `made.first` becomes the topmost directory that was made. */
export function* mkdirAll(mount: Mount, path: string, mode: number, made: { first?: string }): Task<number> {
  // From the deepest that exists downwards; `missing` ends with the topmost.
  const missing: string[] = [];
  let next = path;
  for (;;) {
    const result = yield* mkdirOne(mount, next, mode);
    if (result === ENOENT && next.includes('/', 1)) {
      missing.push(next);
      next = next.slice(0, next.lastIndexOf('/'));
      continue;
    }
    if (result === EEXIST) {
      const found = yield* typeAt(mount, next);
      if (!isDirectoryType(found)) {
        if (missing.length > 0) return ENOTDIR;
        return found < 0 ? found : EEXIST;
      }
    } else if (result < 0) {
      return result;
    } else {
      made.first ??= next;
    }
    const below = missing.pop();
    if (below === undefined) return 0;
    next = below;
  }
}

/** The type of what a path leads to, or why it leads nowhere. */
function* typeAt(mount: Mount, path: string): Task<number> {
  const { result, value } = yield* request(mount.engine, (native, op) =>
    native.stat(op, mount.handle, path, true),
  );
  return result < 0 ? result : typeOfMode((value as NativeStat).mode);
}
