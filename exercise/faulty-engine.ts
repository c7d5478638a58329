/** The engine with failures of the device, planned before each mount. */
import { onMemory } from '../src/aligned-memory.js';
import { Engine } from '../src/engine.js';
import type { Native } from '../src/native/boundary.js';
import { loadNative } from '../src/native/load.js';
import type { Random } from './random.js';

/** Which requests since the mount fail, with which errno. */
type Fault = readonly [on: 'read' | 'write' | 'flush', nth: number, errno: number];

/** Of direct requests, and of all others: metadata, journal, write-back. */
export interface Faults {
  readonly queuedFaults?: readonly Fault[];
  readonly blockingFaults?: readonly Fault[];
}

const EIO = 5;

export class FaultyEngine {
  readonly engine: Engine;
  /** What the next mount gets. */
  planned: Faults = {};

  constructor() {
    const native = loadNative();
    const openVolume: Native['openVolume'] = (op, path, optionsJson) =>
      native.openVolume(op, path, JSON.stringify({ ...JSON.parse(optionsJson), ...this.planned }));
    this.engine = new Engine({ ...native, openVolume } satisfies Native);
    onMemory(native);
  }
}

/** Direct requests that fail, one in `every` or so, for as long as a mount may last. */
export function queuedFaults(random: Random, every: number): Faults {
  const faults: Fault[] = [];
  for (const on of ['read', 'write'] as const) {
    let nth = 0;
    for (let left = 200; left > 0; left -= 1) {
      nth += 1 + random.below(2 * every);
      faults.push([on, nth, EIO]);
    }
  }
  return { queuedFaults: faults };
}

/** One or a few failures among the first requests of other kinds. */
export function blockingFaults(random: Random): Faults {
  const faults: Fault[] = [];
  for (let left = 1 + random.below(3); left > 0; left -= 1) {
    const on = random.pick(['read', 'write', 'write', 'write', 'flush'] as const);
    faults.push([on, 1 + random.below(on === 'write' ? 400 : 60), EIO]);
  }
  return { blockingFaults: faults };
}
