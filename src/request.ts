/** One native call as a task or a promise, with its structured result. */
import { begin, type Engine, type Operation, type Task } from './engine.js';
import { errnoError } from './errors.js';
import type { Native, Token } from './native/boundary.js';
import type { WriteGate } from './write-gate.js';

export type Start = (native: Native, token: Token) => void;

/** What an operation on a path says when it fails. */
export interface About {
  readonly syscall: string;
  readonly path?: string;
  readonly dest?: string;
}

export interface Outcome {
  readonly result: number;
  /** The structured result, where the operation has one. */
  readonly value: unknown;
}

/** Starts one native call, waits, and fetches its structured result. */
export function* request(engine: Engine, start: Start): Task<Outcome> {
  const token = begin(engine, start);
  const result = yield token;
  return { result, value: result >= 0 ? engine.native.takeResult(token) : undefined };
}

/** The same as a promise, which waits at the gate of frozen volumes where one is given. */
export async function requestOrThrow(
  engine: Engine,
  about: About,
  start: Start,
  gate?: WriteGate,
): Promise<Outcome> {
  const operation: Operation = { failure: undefined };
  const task = request(engine, start);
  const outcome = await engine.run(gate === undefined ? task : gate.within(task), operation);
  if (outcome.result < 0) throw errnoError(outcome.result, about.syscall, { ...about, ...operation });
  return outcome;
}
