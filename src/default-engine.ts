import { onMemory } from './aligned-memory.js';
import { Engine } from './engine.js';
import { loadNative } from './native/load.js';

let engine: Engine | undefined;

/** The engine of this JavaScript environment; the native module is loaded when it is first needed. */
export function defaultEngine(): Engine {
  if (engine === undefined) {
    const native = loadNative();
    engine = new Engine(native);
    onMemory(native);
  }
  return engine;
}
