/** Our answers beside the kernel's, as far as they are contract. */
import { createHash } from 'node:crypto';

import { expand, type Answer, type Case, type Extent, type Step } from './case.js';
import { WHOLE_BYTES, type Observed } from './replay.js';
import type { Outcome } from './steps.js';

/** What differs, one line each: the field, ours, the kernel's. */
export type Differences = string[];

function show(value: unknown): string {
  return JSON.stringify(value) ?? 'nothing';
}

function differ(differences: Differences, field: string, ours: unknown, kernels: unknown): void {
  if (show(ours) !== show(kernels)) differences.push(`${field} ${show(ours)}, Linux ${show(kernels)}`);
}

function compareStep(
  differences: Differences,
  name: string,
  ours: Outcome,
  kernels: Answer,
  step: Step,
): void {
  if (step.k === 'statx') {
    // Where the mask bit is missing, the fields say nothing.
    for (const field of ['blksize', 'dioMemAlign', 'dioOffsetAlign'])
      if (field === 'blksize' || kernels['dioAlignValid'] === true)
        differ(differences, `${name}.${field}`, ours.fields?.[field], kernels[field]);
    return;
  }
  differ(differences, name, ours.err ?? ours.ret ?? ours.rets, kernels.err ?? kernels.ret ?? kernels.rets);
  differ(differences, `${name} at`, ours.at, kernels.at);
  if (kernels.offset !== undefined) differ(differences, `${name} offset`, ours.offset, kernels.offset);
  if (kernels.data === undefined || ours.data === undefined || step.k !== 'pread') return;
  const expected = expand(kernels.data, 0, kernels.ret ?? 0);
  if (ours.ret === kernels.ret && !ours.data.equals(expected)) differences.push(`${name} data`);
}

/** Allocated ranges, whatever their kind. */
function allocated(extents: readonly Extent[]): readonly (readonly number[])[] {
  const all: [number, number][] = [];
  for (const [start, length] of extents) {
    const last = all.at(-1);
    if (last !== undefined && last[0] + last[1] === start) last[1] += length;
    else all.push([start, length]);
  }
  return all;
}

// Of several writes each answers with its bytes, or with the name of its error.
const isError = (ret: number | string): boolean => typeof ret === 'string';

/** A refused or failed request leaves what the kernel's policy says; so does a short one. */
function hasFailure(about: Case): boolean {
  return about.result.ops.some(({ err, rets }) => err !== undefined || rets?.some(isError) === true);
}

function compareMapping(differences: Differences, ours: Observed, about: Case): void {
  if (hasFailure(about)) return;
  const { extents, blocks } = about.result;
  const steps = [...about.init, ...about.op];
  const isBuffered = ({ direct }: Step): boolean => direct !== true || about.mount === 'journal';
  const buffered = steps.some((step) => (step.k === 'pwrite' || step.k === 'write') && isBuffered(step));
  const unwritten = steps.some(({ k }) => k === 'fallocate');
  // Buffered writes split and zero unwritten extents as policy has it, and so the tree's blocks; what is allocated is contract.
  if (buffered && unwritten)
    return differ(differences, 'allocated', allocated(ours.extents), allocated(extents));
  differ(differences, 'extents', ours.extents, extents);
  if (blocks !== undefined) differ(differences, 'blocks', ours.blocks, blocks);
}

/** Everything but the contents. */
export function compare(ours: Observed, about: Case): Differences {
  const differences: Differences = [];
  const { result } = about;
  about.op.forEach((step, index) => {
    const [outcome, answer] = [ours.ops[index], result.ops[index]];
    if (outcome === undefined || answer === undefined) differences.push(`op${index} is missing`);
    else compareStep(differences, `op${index}`, outcome, answer, step);
  });
  differ(differences, 'size', ours.size, result.size);
  differ(differences, 'times', ours.times.join(''), [...result.times].sort().join(''));
  differ(differences, 'fsync', ours.fsync, result.fsync);
  if (result.mode !== undefined) differ(differences, 'mode', ours.mode, result.mode);
  if (result.cap !== undefined) differ(differences, 'cap', ours.cap, result.cap);
  compareMapping(differences, ours, about);
  return differences;
}

/** The contents, read back after a new mount. */
export function compareContent(
  parts: readonly { readonly start: number; readonly bytes: Buffer }[],
  about: Case,
): Differences {
  const { content, sha256, size, contentOmitted } = about.result;
  if (contentOmitted === true || content === undefined) return [];
  const differences: Differences = [];
  for (const { start, bytes } of parts) {
    const expected = expand(content, start, bytes.length);
    if (bytes.equals(expected)) continue;
    const at = bytes.findIndex((byte, index) => byte !== expected[index]);
    differences.push(`content from ${start + at}: ${bytes[at]}, Linux ${expected[at]}`);
  }
  const whole = parts[0];
  if (differences.length === 0 && size <= WHOLE_BYTES && whole !== undefined && sha256 !== undefined)
    differ(differences, 'sha256', createHash('sha256').update(whole.bytes).digest('hex'), sha256);
  return differences;
}
