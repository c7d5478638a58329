/** The options of Volume.format and Volume.open, checked and put into the form the engine reads. */
import { invalidType, invalidValue } from './errors.js';
import {
  ShutdownMode,
  type NativeRecovery,
  type NativeVolumeInfo,
  type NativeVolumeStats,
} from './native/boundary.js';
import { pathText, validateInteger, validatePath, type PathLike } from './validate.js';
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
  /** Over a file system or partition table that is there already; else EEXIST names it. */
  force?: boolean;
}

/** What `Volume.format` made. */
export type FormatReport = Readonly<Record<string, unknown>>;

/** Options of `Volume.recover`. */
export interface RecoverOptions {
  /** Write nothing: only say what there is to do. */
  dryRun?: boolean;
  /** Container of the journal, for a volume that has it on a device of its own. */
  journal?: PathLike;
  /** Also what the host's kernel has in use: mounted, or through a loop device. */
  force?: boolean;
}

/** What `Volume.recover` found and did. */
export type RecoveryReport = NativeRecovery;

/** What does the device's I/O. */
export type EngineName = 'auto' | 'io_uring' | 'threads';

/** Options of `Volume.open`. */
export interface OpenOptions {
  /** Ends an opening that waits for other hosts (multi-mount protection, up to 11 s by default, 722 s at most): AbortError. */
  signal?: AbortSignal;
  /** Nothing is written; a dirty journal is replayed in memory. Several read-only openings may share a volume. */
  readOnly?: boolean;
  /**
   * Also what the host's kernel has in use: mounted, or through a loop device. Two writers destroy a volume. Default false:
   * EBUSY. And intervals of multi-mount protection that no tool writes, which are EUCLEAN else, count as 300 s.
   */
  force?: boolean;
  /** Every file is opened with O_DIRECT. */
  direct?: boolean;
  /** Default 'auto'. The environment variable UEXT4_ENGINE overrides it. */
  engine?: EngineName;
  /** Container of the journal, for a volume that has it on a device of its own. */
  journal?: PathLike;
  /** A change is committed at the latest after so many milliseconds: 1 … 3,600,000; default 5000. */
  commitIntervalMs?: number;
  /**
   * `false`: no flush and no FUA. Only for devices whose completed writes survive a power cut; on any other one, a power
   * cut may destroy the volume. Default true.
   */
  barrier?: boolean;
  /** After an error of the volume: go on, become read-only, or shut down. Default: what the volume says. */
  errors?: ErrorsPolicy;
  /** With `readOnly`: the journal is not looked at; what is only in it is missing. */
  noload?: boolean;
  /**
   * File data is loaded and stored in place, past the page cache: for a container on tmpfs, or on a file system of the
   * host that does DAX. Its space is allocated when it is opened. A container in memory (`memory:NAME`) always does.
   */
  dax?: boolean;
  /** No file may grow past so many bytes: EFBIG, and a write across it is cut short. In RLIMIT_FSIZE's place. */
  maxFileSize?: number;
  /**
   * File data before the metadata that leads to it commits: on the device; in the journal with it; or wherever it is.
   * Default: what the volume says, else 'ordered'.
   */
  data?: DataMode;
  /**
   * Default true: buffered data goes to unwritten blocks, which are converted after it. `false`: to written ones, and
   * with data 'ordered' the commit waits for it.
   */
  dioreadNolock?: boolean;
  /** Memory for buffered file data, in bytes; default 64 MiB. */
  pageCacheBytes?: number;
  /** Percent of it that may be dirty before a write waits for write-back, which half of it starts; default 70. */
  dirtyRatio?: number;
  /** Age at which dirty data is written back by itself, in milliseconds; default 30,000. */
  writeBackAgeMs?: number;
}

/** `data=` of mount(8). */
export type DataMode = 'ordered' | 'journal' | 'writeback';

/** `errors=` of mount(8). */
export type ErrorsPolicy = 'continue' | 'remount-ro' | 'panic';

/** What `volume.shutdown` does first: everything (the volume is clean then), a commit, nothing. */
export type ShutdownName = 'default' | 'logflush' | 'nologflush';

/** What `volume.info()` says. Sizes in bytes. */
export type VolumeInfo = NativeVolumeInfo;

/** What `volume.stats()` says: what became of the writes, and what the engine counts. */
export interface VolumeStats extends NativeVolumeStats {
  readonly writes: Readonly<WriteCounts>;
}

const DATA_MODES: readonly string[] = ['ordered', 'journal', 'writeback'] satisfies DataMode[];
const ERRORS: readonly string[] = ['continue', 'remount-ro', 'panic'] satisfies ErrorsPolicy[];
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

function validateSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw invalidType('options.signal', 'be an instance of AbortSignal', signal);
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
  validateBoolean(options.force, 'options.force');
  return JSON.stringify({ sizeBytes, label, uuid, blockSize, force: options.force });
}

/** @throws ERR_INVALID_ARG_TYPE */
export function recoverJson(options: RecoverOptions): string {
  validateObject(options);
  validateBoolean(options.dryRun, 'options.dryRun');
  validateBoolean(options.force, 'options.force');
  const { dryRun, force, journal } = options;
  return JSON.stringify({ dryRun: dryRun === true, force, journal: journalPath(journal) });
}

/** @throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE */
export function openJson(options: OpenOptions): string {
  validateObject(options);
  validateBoolean(options.readOnly, 'options.readOnly');
  validateBoolean(options.direct, 'options.direct');
  validateBoolean(options.force, 'options.force');
  validateSignal(options.signal);
  validateBoolean(options.barrier, 'options.barrier');
  validateBoolean(options.noload, 'options.noload');
  validateBoolean(options.dax, 'options.dax');
  validateName(options.engine, 'options.engine', ENGINES);
  validateName(options.errors, 'options.errors', ERRORS);
  const { readOnly, engine, commitIntervalMs, barrier, errors, noload, dax } = options;
  if (commitIntervalMs !== undefined)
    validateInteger(commitIntervalMs, 'options.commitIntervalMs', 1, 3_600_000);
  if (options.maxFileSize !== undefined) validateInteger(options.maxFileSize, 'options.maxFileSize', 0);
  validateName(options.data, 'options.data', DATA_MODES);
  validateBoolean(options.dioreadNolock, 'options.dioreadNolock');
  const { data, dioreadNolock, pageCacheBytes, dirtyRatio, writeBackAgeMs } = options;
  if (pageCacheBytes !== undefined) validateInteger(pageCacheBytes, 'options.pageCacheBytes', 0);
  if (dirtyRatio !== undefined) validateInteger(dirtyRatio, 'options.dirtyRatio', 0, 100);
  if (writeBackAgeMs !== undefined) validateInteger(writeBackAgeMs, 'options.writeBackAgeMs', 0);
  return JSON.stringify({
    readOnly: readOnly === true,
    engine: engine ?? 'auto',
    journal: journalPath(options.journal),
    commitIntervalMs,
    barrier,
    errors,
    noload,
    dax,
    force: options.force,
    data,
    dioreadNolock,
    pageCacheBytes,
    dirtyRatio,
    writeBackAgeMs,
  });
}

function journalPath(path: unknown): string | undefined {
  return path === undefined ? undefined : pathText(validatePath(path, 'options.journal'));
}

function validateName(value: unknown, name: string, names: readonly string[]): void {
  validateString(value, name);
  if (value !== undefined && !names.includes(value))
    throw invalidValue(name, value, `must be one of: ${names.map((one) => `'${one}'`).join(', ')}`);
}

const SHUTDOWN_MODES: ReadonlyMap<string, number> = new Map([
  ['default', ShutdownMode.DEFAULT],
  ['logflush', ShutdownMode.LOG_FLUSH],
  ['nologflush', ShutdownMode.NO_LOG_FLUSH],
] satisfies [ShutdownName, number][]);

/** @throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE */
export function shutdownMode(name: ShutdownName): number {
  validateName(name, 'mode', [...SHUTDOWN_MODES.keys()]);
  return SHUTDOWN_MODES.get(name) ?? ShutdownMode.DEFAULT;
}

/** @throws ERR_INVALID_ARG_TYPE */
export function remountReadOnly(options: { readOnly: boolean }): boolean {
  validateObject(options);
  const { readOnly } = options as { readOnly: unknown };
  if (typeof readOnly !== 'boolean') throw invalidType('options.readOnly', 'be of type boolean', readOnly);
  return readOnly;
}
