/**
 * What the native module exports. The meaning of every call is in src/native/boundary.ts.
 * Made by `npm run build:native` from crates/ext4-napi/boundary.d.ts: change it there.
 */
export declare function start(slots: Float64Array, onBatch: (count: number) => void): void;
export declare function submit(): void;
export declare function pump(timeoutMs: number): number;
export declare function takeResult(op: number): unknown;
export declare function registerMemory(memory: Uint8Array): void;
export declare function memoryInUse(memory: Uint8Array): boolean;
export declare function formatVolume(op: number, path: string, optionsJson: string): void;
export declare function openVolume(op: number, path: string, optionsJson: string): void;
export declare function cancelOpen(op: number): void;
export declare function recoverVolume(op: number, path: string, optionsJson: string): void;
export declare function removeMemory(op: number, path: string): void;
export declare function closeVolume(op: number, volume: number): void;
export declare function syncVolume(op: number, volume: number): void;
export declare function freezeVolume(op: number, volume: number): void;
export declare function thawVolume(op: number, volume: number): void;
export declare function remountVolume(op: number, volume: number, readOnly: boolean): void;
export declare function shutdownVolume(op: number, volume: number, mode: number): void;
export declare function volumeInfo(volume: number): object;
export declare function volumeStats(volume: number): object;
export declare function open(op: number, volume: number, path: string | Uint8Array, flags: number, mode: number): void;
export declare function closeFile(op: number, file: number): void;
export declare function stat(op: number, volume: number, path: string | Uint8Array, follow: boolean): void;
export declare function fstat(op: number, file: number): void;
export declare function readdir(op: number, volume: number, path: string | Uint8Array): void;
export declare function mkdir(op: number, volume: number, path: string | Uint8Array, mode: number): void;
export declare function rmdir(op: number, volume: number, path: string | Uint8Array): void;
export declare function unlink(op: number, volume: number, path: string | Uint8Array): void;
export declare function rename(op: number, volume: number, oldPath: string | Uint8Array, newPath: string | Uint8Array): void;
export declare function link(op: number, volume: number, existingPath: string | Uint8Array, newPath: string | Uint8Array): void;
export declare function symlink(op: number, volume: number, target: string | Uint8Array, path: string | Uint8Array): void;
export declare function readlink(op: number, volume: number, path: string | Uint8Array): void;
export declare function chmod(op: number, volume: number, path: string | Uint8Array, mode: number): void;
export declare function fchmod(op: number, file: number, mode: number): void;
export declare function chown(
  op: number,
  volume: number,
  path: string | Uint8Array,
  uid: number,
  gid: number,
  follow: boolean,
): void;
export declare function fchown(op: number, file: number, uid: number, gid: number): void;
export declare function utimes(op: number, volume: number, path: string | Uint8Array, atimeSec: number, atimeNsec: number, mtimeSec: number, mtimeNsec: number, follow: boolean): void;
export declare function futimes(op: number, file: number, atimeSec: number, atimeNsec: number, mtimeSec: number, mtimeNsec: number): void;
export declare function getxattr(op: number, volume: number, path: string | Uint8Array, name: string | Uint8Array): void;
export declare function setxattr(op: number, volume: number, path: string | Uint8Array, name: string | Uint8Array, value: Uint8Array, flags: number): void;
export declare function listxattr(op: number, volume: number, path: string | Uint8Array): void;
export declare function removexattr(op: number, volume: number, path: string | Uint8Array, name: string | Uint8Array): void;
export declare function inodeSizes(file: number, out: Float64Array): void;
export declare function probeWrite(file: number, pos: number, len: number): number;
export declare function tryFileModified(file: number): number;
export declare function tryFileAccessed(file: number): number;
export declare function lookupWrite(op: number, file: number, pos: number, len: number): void;
export declare function fileModified(op: number, file: number): void;
export declare function orphanAdd(op: number, file: number): void;
export declare function orphanDelete(op: number, file: number): void;
export declare function directWrite(op: number, file: number, lockMode: number, flags: number, buffer: Uint8Array, offset: number, length: number, pos: number): void;
export declare function directRead(op: number, file: number, flags: number, buffer: Uint8Array, offset: number, length: number, pos: number): void;
export declare function bufferedWrite(op: number, file: number, flags: number, buffer: Uint8Array, offset: number, length: number, pos: number): void;
export declare function bufferedRead(op: number, file: number, flags: number, buffer: Uint8Array, offset: number, length: number, pos: number): void;
export declare function tryBufferedRead(file: number, buffer: Uint8Array, offset: number, length: number, pos: number): number;
export declare function tryBufferedWrite(file: number, buffer: Uint8Array, offset: number, length: number, pos: number): number;
export declare function daxWrite(op: number, file: number, buffer: Uint8Array, offset: number, length: number, pos: number): void;
export declare function daxRead(op: number, file: number, buffer: Uint8Array, offset: number, length: number, pos: number): void;
export declare function tryDaxWrite(file: number, buffer: Uint8Array, offset: number, length: number, pos: number): number;
export declare function tryDaxRead(file: number, buffer: Uint8Array, offset: number, length: number, pos: number): number;
export declare function writeAndWait(op: number, file: number, pos: number, len: number): void;
export declare function invalidate(op: number, file: number, pos: number, len: number): void;
export declare function truncate(op: number, file: number, size: number): void;
export declare function truncateToSize(op: number, file: number): void;
export declare function fallocate(op: number, file: number, mode: number, pos: number, len: number): void;
export declare function seek(op: number, file: number, pos: number, whence: number): void;
export declare function extents(op: number, file: number, pos: number, len: number): void;
export declare function sync(op: number, file: number, datasync: boolean): void;
