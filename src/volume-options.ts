/** The options of Volume.format and Volume.open, checked and put into the form the engine reads. */
import { invalidType, invalidValue } from './errors.js';
import type { NativeRecovery, NativeVolumeInfo, NativeVolumeStats } from './native/boundary.js';
import { validateInteger } from './validate.js';
import type { WriteCounts } from './write-counts.js';

/** Options of `Volume.format`. */
export interface FormatOptions {
  /** Size of the volume in bytes, rounded down to whole blocks; left out: that of the existing file or device. */
  sizeBytes?: number;
  /** Up to 16 bytes of UTF-8. */
  label?: string;
  /** In the usual 8-4-4-4-12 form; left out: random. */
  uuid?: string;
  /** Bytes: 1024, 2048, 4096, … 65536; left out: 4096 from 512 MiB on, 1024 below. */
  blockSize?: number;
}

/** What `Volume.format` made. */
export type FormatReport = Readonly<Record<string, unknown>>;

/** Options of `Volume.recover`. */
export interface RecoverOptions {
  /** Write nothing: only say what there is to do. */
  dryRun?: boolean;
}

/** What `Volume.recover` found and did. */
export type RecoveryReport = NativeRecovery;

/** What does the device's I/O. */
export type EngineName = 'auto' | 'io_uring' | 'threads';

/** Options of `Volume.open`. */
export interface OpenOptions {
  /** Nothing is written; a dirty journal is replayed in memory. Several read-only openings may share a volume. */
  readOnly?: boolean;
  /** Every file is opened with O_DIRECT. */
  direct?: boolean;
  /** Default 'auto'. The environment variable UEXT4_ENGINE overrides it. */
  engine?: EngineName;
  /** No file may grow past so many bytes: EFBIG, and a write across it is cut short. In RLIMIT_FSIZE's place. */
  maxFileSize?: number;
}

/** What `volume.info()` says. Sizes in bytes. */
export type VolumeInfo = NativeVolumeInfo;

/** What `volume.stats()` says: what became of the writes, and what the engine counts. */
export interface VolumeStats extends NativeVolumeStats {
  readonly writes: Readonly<WriteCounts>;
}

const ENGINES: readonly string[] = ['auto', 'io_uring', 'threads'] satisfies EngineName[];
const MAX_LABEL_BYTES = 16;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function validateObject(options: unknown): asserts options is Record<string, unknown> {
  if (typeof options !== 'object' || options === null)
    throw invalidType('options', 'be of type object', options);
}

function validateBoolean(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== 'boolean') throw invalidType(name, 'be of type boolean', value);
}

function validateString(value: unknown, name: string): asserts value is string | undefined {
  if (value !== undefined && typeof value !== 'string') throw invalidType(name, 'be of type string', value);
}

/** @throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE */
export function formatJson(options: FormatOptions): string {
  validateObject(options);
  const { sizeBytes, label, uuid, blockSize } = options;
  if (sizeBytes !== undefined) validateInteger(sizeBytes, 'options.sizeBytes', 0);
  validateString(label, 'options.label');
  if (label !== undefined && (Buffer.byteLength(label) > MAX_LABEL_BYTES || label.includes('\0'))) {
    throw invalidValue('options.label', label, `must be at most ${MAX_LABEL_BYTES} bytes without null bytes`);
  }
  validateString(uuid, 'options.uuid');
  if (uuid !== undefined && !UUID.test(uuid)) throw invalidValue('options.uuid', uuid, 'must be a UUID');
  if (blockSize !== undefined) {
    validateInteger(blockSize, 'options.blockSize', 1024, 65536);
    if (!Number.isInteger(Math.log2(blockSize)))
      throw invalidValue('options.blockSize', blockSize, 'must be a power of two');
  }
  return JSON.stringify({ sizeBytes, label, uuid, blockSize });
}

/** @throws ERR_INVALID_ARG_TYPE */
export function recoverJson(options: RecoverOptions): string {
  validateObject(options);
  validateBoolean(options.dryRun, 'options.dryRun');
  return JSON.stringify({ dryRun: options.dryRun === true });
}

/** @throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE */
export function openJson(options: OpenOptions): string {
  validateObject(options);
  validateBoolean(options.readOnly, 'options.readOnly');
  validateBoolean(options.direct, 'options.direct');
  validateString(options.engine, 'options.engine');
  if (options.maxFileSize !== undefined) validateInteger(options.maxFileSize, 'options.maxFileSize', 0);
  const engine = options.engine ?? 'auto';
  if (!ENGINES.includes(engine)) {
    throw invalidValue(
      'options.engine',
      engine,
      `must be one of: ${ENGINES.map((name) => `'${name}'`).join(', ')}`,
    );
  }
  return JSON.stringify({ readOnly: options.readOnly === true, engine });
}
