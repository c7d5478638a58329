/** A mounted volume comes to rest: freeze and thaw, remount, shutdown (T26, T28). Each returns 0 or a negative errno. */
import { begin, type Task } from './engine.js';
import type { Mount } from './mount.js';
import { ShutdownMode, type Native, type Token } from './native/boundary.js';
import { EBUSY } from './native/errno.js';

/** Closes the gate, waits for the changes that are under way, and has the volume written out. */
export function* freeze(mount: Mount): Task<number> {
  if (mount.gate.closed) return -EBUSY;
  yield* mount.gate.close();
  const result = yield begin(mount.engine, (native, op) => native.freezeVolume(op, mount.handle));
  if (result < 0) mount.gate.open();
  return result;
}

export function* thaw(mount: Mount): Task<number> {
  const result = yield begin(mount.engine, (native, op) => native.thawVolume(op, mount.handle));
  if (result >= 0) mount.gate.open();
  return result;
}

export function* remount(mount: Mount, readOnly: boolean): Task<number> {
  if (readOnly && mount.writers > 0) return -EBUSY;
  return yield* withGateClosed(mount, (native, op) => native.remountVolume(op, mount.handle, readOnly));
}

export function* shutdown(mount: Mount, mode: number): Task<number> {
  const start = (native: Native, op: Token): void => native.shutdownVolume(op, mount.handle, mode);
  if (mode === ShutdownMode.DEFAULT && !mount.gate.closed) return yield* withGateClosed(mount, start);
  const result = yield begin(mount.engine, start);
  // Whoever waited for a thaw hears of it too.
  mount.gate.open();
  return result;
}

function* withGateClosed(mount: Mount, start: (native: Native, op: Token) => void): Task<number> {
  if (mount.gate.closed) return -EBUSY;
  yield* mount.gate.close();
  try {
    return yield begin(mount.engine, start);
  } finally {
    mount.gate.open();
  }
}
