/** ext4 in user space: volumes, files, and memory for direct I/O. */
import { constants as fsConstants } from 'node:fs';

/** node:fs's constants, O_DIRECT among them. */
export const constants: typeof fsConstants = fsConstants;

export { allocAligned, type AlignedBuffer } from './aligned-memory.js';
export type { EncodingOption } from './encoding.js';
export type { Ext4Error } from './errors.js';
export { FileHandle } from './file-handle.js';
export type { HandleWriteOptions, ReadStreamOptions, WriteStreamOptions } from './file-streams.js';
export type { FallocateMode, FallocateOptions, RangeOptions } from './range-arguments.js';
export type { FileExtent } from './range-ops.js';
export type { ReadOptions, VectorOptions, WriteOptions } from './transfer-arguments.js';
export { BigIntStats, Dirent, Stats } from './stats.js';
export type { RmOptions } from './tree.js';
export type { MkdirOptions } from './mkdir.js';
export type { PathLike, TimeLike } from './validate.js';
export type {
  EngineName,
  DataMode,
  ErrorsPolicy,
  FormatOptions,
  FormatReport,
  OpenOptions,
  RecoverOptions,
  RecoveryReport,
  ShutdownName,
  VolumeInfo,
  VolumeStats,
} from './volume-options.js';
export type { WriteCounts } from './write-counts.js';
export type { FileData, WholeReadOptions, WholeWriteOptions } from './whole-file.js';
export { Volume } from './volume.js';
