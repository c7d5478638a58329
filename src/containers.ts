/** What is done to a container that is not open. */
import type { Engine } from './engine.js';
import { requestOrThrow, type Start } from './request.js';
import { pathText, validatePath, type PathLike } from './validate.js';
import {
  formatJson,
  recoverJson,
  type FormatOptions,
  type FormatReport,
  type RecoverOptions,
  type RecoveryReport,
} from './volume-options.js';

export async function formatContainer(
  engine: Engine,
  path: PathLike,
  options: FormatOptions,
): Promise<FormatReport> {
  const container = pathText(validatePath(path));
  const json = formatJson(options);
  const start: Start = (native, op) => native.formatVolume(op, container, json);
  const { value } = await requestOrThrow(engine, { syscall: 'mkfs', path: container }, start);
  return value as FormatReport;
}

export async function recoverContainer(
  engine: Engine,
  path: PathLike,
  options: RecoverOptions,
): Promise<RecoveryReport> {
  const container = pathText(validatePath(path));
  const json = recoverJson(options);
  const start: Start = (native, op) => native.recoverVolume(op, container, json);
  const { value } = await requestOrThrow(engine, { syscall: 'recover', path: container }, start);
  return value as RecoveryReport;
}

export async function removeMemory(engine: Engine, path: PathLike): Promise<void> {
  const container = pathText(validatePath(path));
  const start: Start = (native, op) => native.removeMemory(op, container);
  await requestOrThrow(engine, { syscall: 'unlink', path: container }, start);
}
