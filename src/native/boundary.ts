/**
 * What crosses N-API: integer handles, numbers, strings and V8-owned buffers.
 *
 * Every asynchronous call takes an operation id chosen here (a small integer) and reports later as a pair
 * (operation, result): a result ≥ 0 is a value, one < 0 a negative errno. What does not fit into a number
 * is fetched with {@link Native.takeResult} right after the completion, before the id is used again.
 */

/** Identifies one asynchronous native call, and afterwards its completion. */
export type Token = number;

/** A volume that the native layer has open. */
export type VolumeHandle = number;

/** A file that the native layer has open. */
export type NativeFile = number;

/** A path inside a volume: text, or bytes where a name is not UTF-8. */
export type NativePath = string | Uint8Array;

/** Bits of {@link Native.probeWrite} and {@link Native.lookupWrite}. */
export const ProbeFlag = {
  /** One allocated run inside i_size covers the block-rounded range (C25.3). */
  OVERWRITE: 1,
  /** That run is not written yet. */
  UNWRITTEN: 2,
  /** setuid, setgid or capabilities may have to go. */
  MAY_STRIP: 4,
  /** file_modified has something to do: times or privileges. */
  NEEDS_MODIFIED: 8,
  /** The mapping is not in memory: ask lookupWrite. */
  UNKNOWN: 16,
  IMMUTABLE: 32,
  APPEND: 64,
  /** Encrypted, verity, data-journalled or inline data (A3). */
  DIO_UNSUPPORTED: 128,
  /** A read-only mount, or an emergency (C23). */
  READ_ONLY: 256,
  /** Of an empty range, which reads ask about: {@link Native.tryFileAccessed} has something to do. */
  ACCESS_DUE: 1024,
} as const;

/** `lockMode` of {@link Native.directWrite}. */
export const LockMode = { SHARED: 0, EXCLUSIVE: 1 } as const;
export type LockMode = (typeof LockMode)[keyof typeof LockMode];

/** `flags` of the four transfers: {@link Native.directWrite} and its like. */
export const TransferFlag = {
  /** Direct writes: durable when it reports: FUA where B8 allows it, a data sync otherwise. */
  DSYNC: 1,
  /** Direct writes: extending, end_io moves the sizes and drops the orphan entry in one transaction (C25.8). */
  EXTENDING: 2,
  /** Neither waits nor allocates: -EAGAIN instead (C5); a buffered write -EOPNOTSUPP (A17). */
  NOWAIT: 4,
  /** Direct writes: all of it or nothing after a crash (C24); never -ENOTBLK, but -EAGAIN. */
  ATOMIC: 8,
} as const;

/** Bits of `mode` of {@link Native.fallocate}: Linux's FALLOC_FL_. */
export const FallocateFlag = {
  KEEP_SIZE: 1,
  PUNCH_HOLE: 2,
  COLLAPSE_RANGE: 8,
  ZERO_RANGE: 16,
  INSERT_RANGE: 32,
} as const;

/** `whence` of {@link Native.seek}: Linux's SEEK_. */
export const SeekWhence = { DATA: 3, HOLE: 4 } as const;

/** The fourth number of each extent of {@link Native.extents}. */
export const ExtentFlag = { UNWRITTEN: 1, DELALLOC: 2, LAST: 4, INLINE: 8 } as const;

/** `flags` of {@link Native.setxattr}, as of setxattr(2). */
export const XattrFlag = { CREATE: 1, REPLACE: 2 } as const;

/** The detail of a failed operation. */
export interface NativeFailure {
  readonly message: string;
  /** Where on the volume: inode, block, structure. */
  readonly place?: string;
}

/** What a volume is, as {@link Native.volumeInfo} and a finished openVolume give it. Sizes in bytes. */
export interface NativeVolumeInfo {
  readonly uuid: string;
  readonly label: string;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly freeBlocks: number;
  readonly inodeCount: number;
  readonly freeInodes: number;
  readonly features: readonly string[];
  readonly readOnly: boolean;
  /** File data is loaded and stored in place, past the page cache: the container is memory. */
  readonly dax: boolean;
  readonly backend: string;
  readonly backendReason: string;
  /** Direct I/O: positions and lengths must be multiples of this. */
  readonly dioOffsetAlign: number;
  /** Direct I/O: memory addresses must be multiples of this. */
  readonly dioMemoryAlign: number;
  /** Largest size of an extent-mapped file (A5). */
  readonly maxFileSize: number;
  /** Atomic writes (C24): from so many bytes to so many; left out or 0: there are none. */
  readonly atomicWriteUnitMin?: number;
  readonly atomicWriteUnitMax?: number;
  /** They go through the journal, because the device has none of its own. */
  readonly atomicWriteJournalled?: boolean;
}

/** What the engine counted since the volume was opened. */
export interface NativeVolumeStats {
  readonly openFiles: number;
  readonly operationsInFlight: number;
  /** By this mount. */
  readonly transactionsReplayed: number;
  readonly directWritesMappedInPlace: number;
  readonly directWritesMappedByJob: number;
  readonly directWritesEndedInPlace: number;
  readonly directWritesRefusedShared: number;
  /** Transactions, and the metadata blocks in them. */
  readonly commits: number;
  readonly blocksLogged: number;
  /** Requests to the device, metadata and journal included; FUA writes are among the writes. */
  readonly deviceReads: number;
  readonly deviceWrites: number;
  readonly deviceFuaWrites: number;
  readonly deviceFlushes: number;
  readonly deviceBytesRead: number;
  readonly deviceBytesWritten: number;
}

/** What a finished recoverVolume found and did; with a dry run: what it would do. */
export interface NativeRecovery {
  /** The volume was not unmounted, or has orphans. */
  readonly needed: boolean;
  /** Errors were seen on the volume: e2fsck should look at it. */
  readonly hasErrors: boolean;
  /** Transactions replayed from the journal, blocks that they wrote, copies that were not for they were revoked. */
  readonly transactions: number;
  readonly blocks: number;
  readonly revoked: number;
  /** Linux's fast commits replayed after them. */
  readonly fastCommits: number;
  /** Inodes that had lost their last name, or a size. */
  readonly orphansDeleted: number;
  readonly orphansTruncated: number;
  /** Records that name no inode. */
  readonly orphansBad: number;
  /** Left for the kernel or e2fsck. */
  readonly orphansUnsupported: number;
  /** Numbers of inodes that were left as they are: they, their maps or bitmaps are damaged. */
  readonly orphansLeft: readonly number[];
}

/** What a finished `open` says about the file. */
export interface NativeOpenFile {
  readonly ino: number;
  readonly generation: number;
  /** The same for all handles of one open inode. */
  readonly inodeKey: number;
  /** Directory entry type: 1 regular, 2 directory, 3 character, 4 block, 5 fifo, 6 socket, 7 symlink. */
  readonly type: number;
  readonly size: number;
  /** The largest size that the inode's map allows (A5). */
  readonly maxSize: number;
  /** Mapped by indirect blocks rather than an extent tree. */
  readonly bitmapFormat: boolean;
  /** Its data is loaded and stored in place (A18). */
  readonly dax: boolean;
}

/** What a finished `stat` or `fstat` says; times in seconds and nanoseconds, blocks of 512 bytes. */
export interface NativeStat {
  readonly ino: number;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly size: number;
  readonly blocks: number;
  readonly atimeSec: number;
  readonly atimeNsec: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly birthtimeSec: number;
  readonly birthtimeNsec: number;
  /** Direct I/O on it, as statx tells it; 0: none. */
  readonly dioOffsetAlign: number;
  readonly dioMemAlign: number;
  readonly atomicWriteUnitMin: number;
  readonly atomicWriteUnitMax: number;
}

/** What a finished `readdir` lists, without "." and "..". A name that is not UTF-8 comes as bytes. */
export interface NativeDirectory {
  readonly names: readonly (string | Uint8Array)[];
  readonly types: Uint8Array;
  readonly inos: readonly number[];
}

/** What shutdownVolume does first. */
export const ShutdownMode = { DEFAULT: 0, LOG_FLUSH: 1, NO_LOG_FLUSH: 2 } as const;

/** The native module. */
export interface Native {
  /** Once per environment. `slots` receives [token0, result0, …]; `onBatch` gets the number of pairs. */
  start(slots: Float64Array, onBatch: (count: number) => void): void;
  /** The doorbell: hands queued device requests to the host. */
  submit(): void;
  /** For the sync driver: submits, waits up to `timeoutMs`, fills the slots, returns the number of pairs. */
  pump(timeoutMs: number): number;
  /** A finished operation's structured result, or a {@link NativeFailure}; forgets it. */
  takeResult(op: Token): unknown;
  /**
   * Memory that stays attached as long as the environment lives: slices of it go to the device without a copy
   * and are judged by their own address. Every other buffer is copied and so aligned by construction.
   */
  registerMemory(memory: Uint8Array): void;
  /** Whether a request under way uses the registered memory around these bytes. */
  memoryInUse(memory: Uint8Array): boolean;

  formatVolume(op: Token, path: string, optionsJson: string): void;
  /** takeResult: {@link NativeRecovery}. */
  recoverVolume(op: Token, path: string, optionsJson: string): void;
  /** Result: the volume's handle; takeResult: {@link NativeVolumeInfo}. */
  openVolume(op: Token, path: string, optionsJson: string): void;
  /** Ends the wait of an openVolume for other hosts: it is ECANCELED then. */
  cancelOpen(op: Token): void;
  /** Gives a container in memory back; EBUSY while it is open. */
  removeMemory(op: Token, path: string): void;
  closeVolume(op: Token, volume: VolumeHandle): void;
  syncVolume(op: Token, volume: VolumeHandle): void;
  /** The volume is clean and takes no change until it is thawed. */
  freezeVolume(op: Token, volume: VolumeHandle): void;
  thawVolume(op: Token, volume: VolumeHandle): void;
  remountVolume(op: Token, volume: VolumeHandle, readOnly: boolean): void;
  /** `mode` as in Linux's EXT4_IOC_SHUTDOWN: {@link ShutdownMode}. */
  shutdownVolume(op: Token, volume: VolumeHandle, mode: number): void;
  volumeInfo(volume: VolumeHandle): NativeVolumeInfo;
  volumeStats(volume: VolumeHandle): NativeVolumeStats;

  /** `flags` are POSIX O_* without O_TRUNC. Result: the file's handle; takeResult: {@link NativeOpenFile}. */
  open(op: Token, volume: VolumeHandle, path: NativePath, flags: number, mode: number): void;
  /** Evicts the inode at its last close. */
  closeFile(op: Token, file: NativeFile): void;
  stat(op: Token, volume: VolumeHandle, path: NativePath, follow: boolean): void;
  fstat(op: Token, file: NativeFile): void;
  readdir(op: Token, volume: VolumeHandle, path: NativePath): void;
  mkdir(op: Token, volume: VolumeHandle, path: NativePath, mode: number): void;
  rmdir(op: Token, volume: VolumeHandle, path: NativePath): void;
  unlink(op: Token, volume: VolumeHandle, path: NativePath): void;
  rename(op: Token, volume: VolumeHandle, oldPath: NativePath, newPath: NativePath): void;
  link(op: Token, volume: VolumeHandle, existingPath: NativePath, newPath: NativePath): void;
  symlink(op: Token, volume: VolumeHandle, target: NativePath, path: NativePath): void;
  /** takeResult: the target, as bytes where it is not UTF-8. */
  readlink(op: Token, volume: VolumeHandle, path: NativePath): void;
  chmod(op: Token, volume: VolumeHandle, path: NativePath, mode: number): void;
  fchmod(op: Token, file: NativeFile, mode: number): void;
  /** -1: as it is, here and below. */
  chown(op: Token, volume: VolumeHandle, path: NativePath, uid: number, gid: number, follow: boolean): void;
  fchown(op: Token, file: NativeFile, uid: number, gid: number): void;
  utimes(
    op: Token,
    volume: VolumeHandle,
    path: NativePath,
    atimeSec: number,
    atimeNsec: number,
    mtimeSec: number,
    mtimeNsec: number,
    follow: boolean,
  ): void;
  futimes(
    op: Token,
    file: NativeFile,
    atimeSec: number,
    atimeNsec: number,
    mtimeSec: number,
    mtimeNsec: number,
  ): void;
  /** takeResult: the value, as bytes where it is not UTF-8. Symbolic links are followed, here and below. */
  getxattr(op: Token, volume: VolumeHandle, path: NativePath, name: NativePath): void;
  /** `flags`: {@link XattrFlag}, or 0. */
  setxattr(
    op: Token,
    volume: VolumeHandle,
    path: NativePath,
    name: NativePath,
    value: Uint8Array,
    flags: number,
  ): void;
  /** takeResult: the names, each with a zero byte behind it; as bytes where one is not UTF-8. */
  listxattr(op: Token, volume: VolumeHandle, path: NativePath): void;
  removexattr(op: Token, volume: VolumeHandle, path: NativePath, name: NativePath): void;

  /** Writes [i_size, i_disksize] into `out`. */
  inodeSizes(file: NativeFile, out: Float64Array): void;
  /** One look at the mapping without waiting: {@link ProbeFlag} bits, or a negative errno (-EIO after shutdown). */
  probeWrite(file: NativeFile, pos: number, len: number): number;
  /**
   * The times of {@link Native.fileModified} without waiting: 0, or a negative errno, -EAGAIN where it would
   * have to wait or privileges may have to go.
   */
  tryFileModified(file: NativeFile): number;
  /** Moves the time of access where a read is to (A19: relatime), without waiting: 0, or a negative errno. */
  tryFileAccessed(file: NativeFile): number;
  /** The same bits as the result; may read the disk. */
  lookupWrite(op: Token, file: NativeFile, pos: number, len: number): void;
  /** Strips privileges and updates times, journalled (A4.9). */
  fileModified(op: Token, file: NativeFile): void;
  orphanAdd(op: Token, file: NativeFile): void;
  /** Does nothing when the inode is no orphan. */
  orphanDelete(op: Token, file: NativeFile): void;
  /** Result: bytes written, -EAGAIN when `SHARED` was wrong, -ENOTBLK when cached pages refused to go. */
  directWrite(
    op: Token,
    file: NativeFile,
    lockMode: LockMode,
    flags: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void;
  directRead(
    op: Token,
    file: NativeFile,
    flags: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void;
  bufferedWrite(
    op: Token,
    file: NativeFile,
    flags: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void;
  /** With NOWAIT: what is in memory from `pos` on, fewer bytes than there are where that ends. */
  bufferedRead(
    op: Token,
    file: NativeFile,
    flags: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void;
  /** Stores in place, allocating and raising the sizes. Result: bytes written, fewer where space ran out. */
  daxWrite(
    op: Token,
    file: NativeFile,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void;
  daxRead(
    op: Token,
    file: NativeFile,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void;
  /** {@link Native.daxWrite} at once where only data changes; else -EAGAIN with nothing written, or another errno. */
  tryDaxWrite(file: NativeFile, buffer: Uint8Array, offset: number, length: number, pos: number): number;
  /** {@link Native.daxRead} at once; -EAGAIN: the map is not in memory. */
  tryDaxRead(file: NativeFile, buffer: Uint8Array, offset: number, length: number, pos: number): number;
  /**
   * {@link Native.bufferedRead} at once: what it would report, or a negative errno. -EAGAIN: not all of it is cached, the
   * time of access is due to move, or somebody would have to be waited for.
   */
  tryBufferedRead(
    file: NativeFile,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): number;
  /**
   * {@link Native.bufferedWrite} at once and of all the bytes: their number, or a negative errno, with nothing written.
   * -EAGAIN: the disk, space or memory would have to be waited for.
   */
  tryBufferedWrite(
    file: NativeFile,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): number;
  writeAndWait(op: Token, file: NativeFile, pos: number, len: number): void;
  invalidate(op: Token, file: NativeFile, pos: number, len: number): void;
  /** The caller holds the inode lock exclusive and has drained direct I/O. */
  truncate(op: Token, file: NativeFile, size: number): void;
  /** C25.9: frees what lies beyond i_size, then drops the orphan entry. */
  truncateToSize(op: Token, file: NativeFile): void;
  /** `mode`: bits of {@link FallocateFlag}. The caller holds the inode lock exclusive and has drained direct I/O. */
  fallocate(op: Token, file: NativeFile, mode: number, pos: number, len: number): void;
  /** Result: the next data or hole ({@link SeekWhence}) at `pos` or behind it. The caller holds the inode lock. */
  seek(op: Token, file: NativeFile, pos: number, whence: number): void;
  /**
   * What the range's blocks lie on. Result: how many extents, not all of them where they are many; takeResult: four numbers
   * each: position, byte on the device, length, {@link ExtentFlag} bits. The caller holds the inode lock.
   */
  extents(op: Token, file: NativeFile, pos: number, len: number): void;
  sync(op: Token, file: NativeFile, datasync: boolean): void;
}
