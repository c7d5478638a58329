/**
 * A native layer without a disk: files and directories in memory, completions when the test wants them.
 * Every call is logged; results may be scripted by the name of the call.
 */
import type { Native, NativeRecovery, NativeVolumeStats, Token } from '../src/native/boundary.js';
import { ProbeFlag, XattrFlag } from '../src/native/boundary.js';
import {
  S_IFMT,
  S_IFDIR,
  S_IFREG,
  S_IFLNK,
  EPERM,
  ENOENT,
  EAGAIN,
  EEXIST,
  ENOTDIR,
  EISDIR,
  EINVAL,
  ELOOP,
  ENOTEMPTY,
  ENODATA,
  NO_RECOVERY,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  FAKE_INFO,
  FakeErrno,
  type FakeInode,
  flagText,
  text,
  direntType,
  fakeStat,
} from './fake-inode.js';
import { fakeExtents, fakeFallocate, fakeSeek } from './fake-ranges.js';

export type { FakeInode } from './fake-inode.js';

export class FakeNative implements Native {
  readonly calls: string[] = [];
  /** Scripted results, first in first out, by the name of the call. */
  readonly script = new Map<string, number[]>();
  /** Completions wait for `release` while this is set. */
  hold = false;
  /** What tryFileModified answers: that it would have to wait. */
  tryModified = -EAGAIN;
  /** Whether tryBufferedRead and tryBufferedWrite are hits. */
  cached = false;
  /** What probeWrite answers instead of looking. */
  probe: number | undefined;
  readonly root: FakeInode;
  info = FAKE_INFO;
  recovery: NativeRecovery = NO_RECOVERY;
  readonly memories: Uint8Array[] = [];
  openFiles = 0;
  submits = 0;
  #slots: Float64Array = new Float64Array(2);
  #onBatch: (count: number) => void = () => {};
  #done: [Token, number][] = [];
  #scheduled = false;
  readonly #results = new Map<Token, unknown>();
  readonly #files = new Map<number, FakeInode>();
  #nextIno = 11;
  #nextFile = 1;

  constructor() {
    this.root = this.#inode(S_IFDIR | 0o755);
  }

  start(slots: Float64Array, onBatch: (count: number) => void): void {
    this.#slots = slots;
    this.#onBatch = onBatch;
  }
  submit(): void {
    this.submits += 1;
  }
  pump(): number {
    if (this.#done.length === 0) throw new Error('pump would wait for ever');
    return this.#fill();
  }
  takeResult(op: Token): unknown {
    const result = this.#results.get(op);
    this.#results.delete(op);
    return result;
  }
  readonly memoryInUse = (): boolean => false;
  registerMemory(memory: Uint8Array): void {
    this.memories.push(memory);
  }

  /** Delivers everything that is queued, as one batch. */
  release(): void {
    this.#onBatch(this.#fill());
  }
  get queued(): number {
    return this.#done.length;
  }

  formatVolume(op: Token, path: string, optionsJson: string): void {
    this.#run(op, 'formatVolume', () => [0, { path, ...(JSON.parse(optionsJson) as object) }]);
  }
  recoverVolume(op: Token): void {
    this.#run(op, 'recoverVolume', () => [0, this.recovery]);
  }
  cancelOpen(): void {}
  openVolume(op: Token): void {
    this.#run(op, 'openVolume', () => [7, this.info]);
  }
  readonly removeMemory = (op: Token): void => this.#run(op, 'removeMemory', () => [0]);
  readonly closeVolume = (op: Token): void => this.#run(op, 'closeVolume', () => [0]);
  readonly syncVolume = (op: Token): void => this.#run(op, 'syncVolume', () => [0]);
  readonly freezeVolume = (op: Token): void => this.#run(op, 'freezeVolume', () => [0]);
  readonly thawVolume = (op: Token): void => this.#run(op, 'thawVolume', () => [0]);
  readonly remountVolume = (op: Token): void => this.#run(op, 'remountVolume', () => [0]);
  readonly shutdownVolume = (op: Token): void => this.#run(op, 'shutdownVolume', () => [0]);
  volumeInfo(): typeof FAKE_INFO {
    return this.info;
  }
  volumeStats(): NativeVolumeStats {
    // It counts nothing.
    return {} as NativeVolumeStats;
  }

  open(op: Token, _volume: number, path: string | Uint8Array, flags: number, mode: number): void {
    this.#run(op, 'open', () => {
      let inode = this.#find(text(path), (flags & O_NOFOLLOW) === 0, true);
      if (inode !== undefined && (flags & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL))
        throw new FakeErrno(EEXIST);
      if (inode === undefined) {
        if ((flags & O_CREAT) === 0) throw new FakeErrno(ENOENT);
        inode = this.#create(text(path), S_IFREG | mode);
      }
      if ((inode.mode & S_IFMT) === S_IFLNK) throw new FakeErrno(ELOOP);
      if ((inode.mode & S_IFMT) === S_IFDIR && (flags & 3) !== 0) throw new FakeErrno(EISDIR);
      return [
        this.openInode(inode),
        {
          ino: inode.ino,
          generation: 1,
          inodeKey: inode.ino,
          type: direntType(inode),
          size: inode.size,
          maxSize: inode.maxSize,
          bitmapFormat: inode.bitmapFormat,
          dax: false,
        },
      ];
    });
  }
  openInode(inode: FakeInode): number {
    const file = this.#nextFile;
    this.#nextFile += 1;
    this.#files.set(file, inode);
    this.openFiles += 1;
    return file;
  }
  closeFile(op: Token, file: number): void {
    this.#run(op, 'closeFile', () => {
      this.#files.delete(file);
      this.openFiles -= 1;
      return [0];
    });
  }
  stat(op: Token, _volume: number, path: string | Uint8Array, follow: boolean): void {
    this.#run(op, 'stat', () => [0, fakeStat(this.#must(text(path), follow))]);
  }
  fstat(op: Token, file: number): void {
    this.#run(op, 'fstat', () => [0, fakeStat(this.#file(file))]);
  }
  readdir(op: Token, _volume: number, path: string | Uint8Array): void {
    this.#run(op, 'readdir', () => {
      const inode = this.#must(text(path), true);
      if ((inode.mode & S_IFMT) !== S_IFDIR) throw new FakeErrno(ENOTDIR);
      const entries = [...inode.entries];
      return [
        0,
        {
          names: entries.map(([name]) => name),
          types: Uint8Array.from(entries, ([, child]) => direntType(child)),
          inos: entries.map(([, child]) => child.ino),
        },
      ];
    });
  }
  mkdir(op: Token, _volume: number, path: string | Uint8Array, mode: number): void {
    this.#run(op, 'mkdir', () => {
      this.#create(text(path), S_IFDIR | mode);
      return [0];
    });
  }
  rmdir(op: Token, _volume: number, path: string | Uint8Array): void {
    this.#run(op, 'rmdir', () => {
      const inode = this.#must(text(path), false);
      if ((inode.mode & S_IFMT) !== S_IFDIR) throw new FakeErrno(ENOTDIR);
      if (inode.entries.size > 0) throw new FakeErrno(ENOTEMPTY);
      this.#remove(text(path));
      return [0];
    });
  }
  unlink(op: Token, _volume: number, path: string | Uint8Array): void {
    this.#run(op, 'unlink', () => {
      const inode = this.#must(text(path), false);
      if ((inode.mode & S_IFMT) === S_IFDIR) throw new FakeErrno(EISDIR);
      this.#remove(text(path));
      return [0];
    });
  }
  rename(op: Token, _volume: number, oldPath: string | Uint8Array, newPath: string | Uint8Array): void {
    this.#run(op, 'rename', () => {
      const [from, to] = [text(oldPath), text(newPath)];
      const inode = this.#must(from, false);
      const target = this.#find(to, false, true);
      if (target === inode) return [0];
      const isDirectory = (inode.mode & S_IFMT) === S_IFDIR;
      if (isDirectory && `${to}/`.startsWith(`${from}/`)) throw new FakeErrno(EINVAL);
      if (target !== undefined) {
        const ontoDirectory = (target.mode & S_IFMT) === S_IFDIR;
        if (isDirectory !== ontoDirectory) throw new FakeErrno(isDirectory ? ENOTDIR : EISDIR);
        if (target.entries.size > 0) throw new FakeErrno(ENOTEMPTY);
      }
      this.#remove(from);
      this.#enter(to, inode);
      return [0];
    });
  }
  link(op: Token, _volume: number, existingPath: string | Uint8Array, newPath: string | Uint8Array): void {
    this.#run(op, 'link', () => {
      const inode = this.#must(text(existingPath), false);
      if (this.#find(text(newPath), false, true) !== undefined) throw new FakeErrno(EEXIST);
      if ((inode.mode & S_IFMT) === S_IFDIR) throw new FakeErrno(EPERM);
      this.#enter(text(newPath), inode);
      inode.nlink += 1;
      return [0];
    });
  }
  getxattr(op: Token, _volume: number, path: string | Uint8Array, name: string | Uint8Array): void {
    this.#run(op, 'getxattr', () => {
      const value = this.#must(text(path), true).xattrs.get(text(name));
      if (value === undefined) throw new FakeErrno(ENODATA);
      return [value.length, value];
    });
  }
  setxattr(
    op: Token,
    _volume: number,
    path: string | Uint8Array,
    name: string | Uint8Array,
    value: Uint8Array,
    flags: number,
  ): void {
    this.#run(op, 'setxattr', () => {
      const { xattrs } = this.#must(text(path), true);
      if (flags === XattrFlag.CREATE && xattrs.has(text(name))) throw new FakeErrno(EEXIST);
      if (flags === XattrFlag.REPLACE && !xattrs.has(text(name))) throw new FakeErrno(ENODATA);
      xattrs.set(text(name), value.slice());
      return [0];
    });
  }
  listxattr(op: Token, _volume: number, path: string | Uint8Array): void {
    this.#run(op, 'listxattr', () => {
      const names = [...this.#must(text(path), true).xattrs.keys()];
      return [names.length, names.map((name) => `${name}\0`).join('')];
    });
  }
  removexattr(op: Token, _volume: number, path: string | Uint8Array, name: string | Uint8Array): void {
    this.#run(op, 'removexattr', () => {
      if (!this.#must(text(path), true).xattrs.delete(text(name))) throw new FakeErrno(ENODATA);
      return [0];
    });
  }
  symlink(op: Token, _volume: number, target: string | Uint8Array, path: string | Uint8Array): void {
    this.#run(op, 'symlink', () => {
      this.#create(text(path), S_IFLNK | 0o777).target = text(target);
      return [0];
    });
  }
  readlink(op: Token, _volume: number, path: string | Uint8Array): void {
    this.#run(op, 'readlink', () => {
      const inode = this.#must(text(path), false);
      if ((inode.mode & S_IFMT) !== S_IFLNK) throw new FakeErrno(EINVAL);
      return [0, inode.target];
    });
  }
  chmod(op: Token, _volume: number, path: string | Uint8Array, mode: number): void {
    this.#run(op, 'chmod', () => {
      const inode = this.#must(text(path), true);
      inode.mode = (inode.mode & S_IFMT) | mode;
      return [0];
    });
  }
  fchmod(op: Token, file: number, mode: number): void {
    this.#run(op, 'fchmod', () => {
      const inode = this.#file(file);
      inode.mode = (inode.mode & S_IFMT) | mode;
      return [0];
    });
  }
  chown(
    op: Token,
    _volume: number,
    path: string | Uint8Array,
    _u: number,
    _g: number,
    follow: boolean,
  ): void {
    this.#run(op, 'chown', () => {
      this.#must(text(path), follow);
      return [0];
    });
  }
  readonly fchown = (op: Token): void => this.#run(op, 'fchown', () => [0]);
  utimes(
    op: Token,
    _volume: number,
    path: string | Uint8Array,
    atimeSec: number,
    atimeNsec: number,
    mtimeSec: number,
    mtimeNsec: number,
    follow: boolean,
  ): void {
    this.#run(op, 'utimes', () => {
      this.#must(text(path), follow).times = { atimeSec, atimeNsec, mtimeSec, mtimeNsec };
      return [0];
    });
  }
  futimes(
    op: Token,
    file: number,
    atimeSec: number,
    atimeNsec: number,
    mtimeSec: number,
    mtimeNsec: number,
  ): void {
    this.#run(op, 'futimes', () => {
      this.#file(file).times = { atimeSec, atimeNsec, mtimeSec, mtimeNsec };
      return [0];
    });
  }

  inodeSizes(file: number, out: Float64Array): void {
    const inode = this.#file(file);
    out[0] = inode.size;
    out[1] = inode.diskSize;
  }
  probeWrite(file: number, pos: number, len: number): number {
    const inode = this.#file(file);
    return this.probe ?? inode.flags | (pos + len <= inode.size && len > 0 ? ProbeFlag.OVERWRITE : 0);
  }
  lookupWrite(op: Token, file: number, pos: number, len: number): void {
    const inode = this.#file(file);
    this.#run(op, 'lookupWrite', () => [pos + len <= inode.size ? ProbeFlag.OVERWRITE : 0]);
  }
  tryFileModified(): number {
    if (this.tryModified === 0) this.calls.push('tryFileModified');
    return this.tryModified;
  }
  tryFileAccessed = (): number => Math.min(0, this.calls.push('tryFileAccessed'));
  fileModified(op: Token): void {
    this.#run(op, 'fileModified', () => [0]);
  }
  orphanAdd(op: Token): void {
    this.#run(op, 'orphanAdd', () => [0]);
  }
  orphanDelete = (op: Token): void => this.#run(op, 'orphanDelete', () => [0]);
  directWrite(
    op: Token,
    file: number,
    lockMode: number,
    flags: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    pos: number,
  ): void {
    const call = `directWrite ${lockMode === 0 ? 'shared' : 'exclusive'} flags=${flags} ${length}@${pos}`;
    this.#run(op, call, () => [this.#write(file, buffer, offset, length, pos)]);
  }
  directRead(...[op, file, flags, buffer, offset, length, pos]: Parameters<Native['directRead']>): void {
    this.#run(op, `directRead${flagText(flags)} ${length}@${pos}`, () => [
      this.#read(file, buffer, offset, length, pos),
    ]);
  }
  daxWrite(...[op, file, buffer, offset, length, pos]: Parameters<Native['daxWrite']>): void {
    this.#run(op, `daxWrite ${length}@${pos}`, () => [this.#write(file, buffer, offset, length, pos)]);
  }
  daxRead(...[op, file, buffer, offset, length, pos]: Parameters<Native['daxRead']>): void {
    this.#run(op, `daxRead ${length}@${pos}`, () => [this.#read(file, buffer, offset, length, pos)]);
  }
  tryDaxWrite(...[file, buffer, offset, length, pos]: Parameters<Native['tryDaxWrite']>): number {
    return this.#hit(`Write ${length}@${pos}`, 'Dax')
      ? this.#write(file, buffer, offset, length, pos)
      : -EAGAIN;
  }
  tryDaxRead(...[file, buffer, offset, length, pos]: Parameters<Native['tryDaxRead']>): number {
    return this.#hit(`Read ${length}@${pos}`, 'Dax')
      ? this.#read(file, buffer, offset, length, pos)
      : -EAGAIN;
  }
  tryBufferedRead(...[file, buffer, offset, length, pos]: Parameters<Native['tryBufferedRead']>): number {
    return this.#hit(`Read ${length}@${pos}`) ? this.#read(file, buffer, offset, length, pos) : -EAGAIN;
  }
  tryBufferedWrite(...[file, buffer, offset, length, pos]: Parameters<Native['tryBufferedWrite']>): number {
    return this.#hit(`Write ${length}@${pos}`) ? this.#write(file, buffer, offset, length, pos) : -EAGAIN;
  }
  #hit(call: string, path = 'Buffered'): boolean {
    return this.cached && this.calls.push(`try${path}${call}`) > 0;
  }
  bufferedWrite(
    ...[op, file, flags, buffer, offset, length, pos]: Parameters<Native['bufferedWrite']>
  ): void {
    this.#run(op, `bufferedWrite${flagText(flags)} ${length}@${pos}`, () => [
      this.#write(file, buffer, offset, length, pos),
    ]);
  }
  bufferedRead(...[op, file, flags, buffer, offset, length, pos]: Parameters<Native['bufferedRead']>): void {
    this.#run(op, `bufferedRead${flagText(flags)} ${length}@${pos}`, () => [
      this.#read(file, buffer, offset, length, pos),
    ]);
  }
  writeAndWait(op: Token, _file: number, pos: number, len: number): void {
    this.#run(op, `writeAndWait ${len}@${pos}`, () => [0]);
  }
  invalidate(op: Token, _file: number, pos: number, len: number): void {
    this.#run(op, `invalidate ${len}@${pos}`, () => [0]);
  }
  truncate(op: Token, file: number, size: number): void {
    this.#run(op, `truncate ${size}`, () => {
      const inode = this.#file(file);
      inode.data = Uint8Array.from({ length: size }, (_, index) => inode.data[index] ?? 0);
      inode.size = size;
      inode.diskSize = size;
      return [0];
    });
  }
  truncateToSize(op: Token): void {
    this.#run(op, 'truncateToSize', () => [0]);
  }
  fallocate(op: Token, file: number, mode: number, pos: number, len: number): void {
    this.#run(op, `fallocate ${mode} ${len}@${pos}`, () => {
      fakeFallocate(this.#file(file), mode, pos, len);
      return [0];
    });
  }
  seek(op: Token, file: number, pos: number, whence: number): void {
    this.#run(op, `seek ${whence} @${pos}`, () => [fakeSeek(this.#file(file), pos, whence)]);
  }
  extents(op: Token, file: number, pos: number, len: number): void {
    this.#run(op, `extents ${len}@${pos}`, () => fakeExtents(this.#file(file), pos));
  }
  sync(op: Token, _file: number, datasync: boolean): void {
    this.#run(op, datasync ? 'datasync' : 'sync', () => [0]);
  }

  /** A regular file at `path`, made without a call. */
  addFile(path: string, data: Uint8Array): FakeInode {
    const inode = this.#create(path, S_IFREG | 0o644);
    inode.data = data.slice();
    inode.size = data.length;
    inode.diskSize = data.length;
    return inode;
  }

  /** Ends an operation that a test answers itself. */
  answer(op: Token, result: number, detail?: unknown): void {
    this.#run(op, 'answer', () => [result, detail]);
  }

  #run(op: Token, call: string, work: () => [number, unknown?]): void {
    this.calls.push(call);
    this.#results.delete(op);
    const name = call.split(' ', 1)[0] as string;
    const scripted = this.script.get(name)?.shift();
    let result: number;
    if (scripted !== undefined) {
      result = scripted;
      if (scripted < 0) this.#results.set(op, { message: 'scripted', place: `${name} in a test` });
    } else {
      try {
        const [value, detail] = work();
        result = value;
        if (detail !== undefined) this.#results.set(op, detail);
      } catch (error) {
        if (!(error instanceof FakeErrno)) throw error;
        result = -error.errno;
      }
    }
    this.#done.push([op, result]);
    if (this.hold || this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (!this.hold && this.#done.length > 0) this.release();
    });
  }

  #fill(): number {
    const batch = this.#done.splice(0, this.#slots.length / 2);
    for (const [index, [op, result]] of batch.entries()) {
      this.#slots[2 * index] = op;
      this.#slots[2 * index + 1] = result;
    }
    return batch.length;
  }

  #inode(mode: number): FakeInode {
    const ino = this.#nextIno;
    this.#nextIno += 1;
    return {
      ino,
      mode,
      data: new Uint8Array(0),
      size: 0,
      diskSize: 0,
      flags: 0,
      entries: new Map(),
      xattrs: new Map(),
      target: '',
      nlink: 1,
      maxSize: this.info.maxFileSize,
      bitmapFormat: false,
      times: { atimeSec: 1, atimeNsec: 2, mtimeSec: 1_700_000_000, mtimeNsec: 123_456_789 },
    };
  }

  #file(file: number): FakeInode {
    const inode = this.#files.get(file);
    if (inode === undefined) throw new Error(`no file ${file}`);
    return inode;
  }

  #find(path: string, follow: boolean, missingIsFine: boolean): FakeInode | undefined {
    let inode = this.root;
    let parent = '';
    const parts = path.split('/').filter((part) => part !== '' && part !== '.');
    for (const [index, part] of parts.entries()) {
      if ((inode.mode & S_IFMT) !== S_IFDIR) throw new FakeErrno(ENOTDIR);
      const child = inode.entries.get(part);
      if (child === undefined) {
        if (missingIsFine && index === parts.length - 1) return undefined;
        throw new FakeErrno(ENOENT);
      }
      const followed = (child.mode & S_IFMT) === S_IFLNK && (follow || index < parts.length - 1);
      inode = followed
        ? this.#must(child.target.startsWith('/') ? child.target : `${parent}/${child.target}`, true)
        : child;
      parent += `/${part}`;
    }
    return inode;
  }

  #must(path: string, follow: boolean): FakeInode {
    const inode = this.#find(path, follow, false);
    if (inode === undefined) throw new FakeErrno(ENOENT);
    return inode;
  }

  #create(path: string, mode: number): FakeInode {
    if (this.#find(path, false, true) !== undefined) throw new FakeErrno(EEXIST);
    const inode = this.#inode(mode);
    this.#enter(path, inode);
    return inode;
  }

  #enter(path: string, inode: FakeInode): void {
    const cut = path.replace(/\/+$/, '');
    const parent = this.#must(cut.slice(0, cut.lastIndexOf('/')) || '/', true);
    parent.entries.set(cut.slice(cut.lastIndexOf('/') + 1), inode);
  }

  #remove(path: string): void {
    const cut = path.replace(/\/+$/, '');
    this.#must(cut.slice(0, cut.lastIndexOf('/')) || '/', true).entries.delete(
      cut.slice(cut.lastIndexOf('/') + 1),
    );
  }

  #write(file: number, buffer: Uint8Array, offset: number, length: number, pos: number): number {
    const inode = this.#file(file);
    if (pos + length > inode.data.length) {
      const grown = new Uint8Array(pos + length);
      grown.set(inode.data);
      inode.data = grown;
    }
    inode.data.set(buffer.subarray(offset, offset + length), pos);
    inode.size = Math.max(inode.size, pos + length);
    inode.diskSize = Math.max(inode.diskSize, pos + length);
    return length;
  }

  #read(file: number, buffer: Uint8Array, offset: number, length: number, pos: number): number {
    const inode = this.#file(file);
    if ((inode.mode & S_IFMT) === S_IFDIR) return -EISDIR;
    const count = Math.max(0, Math.min(length, inode.size - pos));
    buffer.set(inode.data.subarray(pos, pos + count), offset);
    return count;
  }
}
