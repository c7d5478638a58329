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
  const start = (native: Native, op: Token): void => native.remountVolume(op, mount.handle, readOnly);
  // Asked for once the gate is closed, which whoever opens for writing passes: none can come after the answer.
  return yield* withGateClosed(mount, start, () => (readOnly && mount.writers > 0 ? -EBUSY : 0));
}

export function* shutdown(mount: Mount, mode: number): Task<number> {
  const start = (native: Native, op: Token): void => native.shutdownVolume(op, mount.handle, mode);
  if (mode === ShutdownMode.DEFAULT && !mount.gate.closed) return yield* withGateClosed(mount, start);
  const result = yield begin(mount.engine, start);
  // Whoever waited for a thaw hears of it too.
  mount.gate.open();
  return result;
}

function* withGateClosed(
  mount: Mount,
  start: (native: Native, op: Token) => void,
  check: () => number = () => 0,
): Task<number> {
  if (mount.gate.closed) return -EBUSY;
  yield* mount.gate.close();
  try {
    const refusal = check();
    return refusal < 0 ? refusal : yield begin(mount.engine, start);
  } finally {
    mount.gate.open();
  }
}
