/** One file over the fake native layer, and writes of it. */
import { Engine } from '../src/engine.js';
import type { Kiocb } from '../src/kiocb.js';
import { OpenInode } from '../src/open-inode.js';
import type { Turns } from '../src/turns.js';
import { newWriteCounts, type WriteCounts } from '../src/write-counts.js';
import { writeIter } from '../src/write-iter/write-iter.js';
import { directKiocb } from './direct-kiocb.js';
import { FakeNative, type FakeInode } from './fake-native.js';

export interface Setup {
  native: FakeNative;
  engine: Engine;
  inode: OpenInode;
  fake: FakeInode;
  counts: WriteCounts;
  io: (changes?: Partial<Kiocb>) => Kiocb;
  write: (changes?: Partial<Kiocb>) => Promise<number>;
}

/** A file of two 4 KiB blocks. */
export function setup(sizeBytes = 8192, turns?: Turns): Setup {
  const native = new FakeNative();
  const engine = new Engine(native, turns);
  const fake = native.addFile('/file', new Uint8Array(sizeBytes));
  const file = native.openInode(fake);
  const limits = {
    blockBytes: 4096,
    offsetAlignBytes: 512,
    memoryAlignBytes: 4,
    maxFileBytes: 2 ** 40,
    atomicMinBytes: 4096,
    atomicMaxBytes: 65536,
    atomicJournalled: false,
  };
  const inode = new OpenInode(fake.ino, engine, limits);
  const counts = newWriteCounts();
  const buffer = new Uint8Array(65536).fill(7);
  const io = (changes: Partial<Kiocb> = {}): Kiocb =>
    directKiocb({ engine, inode, file, limits, counts, buffer }, { countBytes: 4096, ...changes });
  const write = (changes?: Partial<Kiocb>): Promise<number> => {
    const one = io(changes);
    return engine.run(writeIter(one), one);
  };
  return { native, engine, inode, fake, counts, io, write };
}

/** Nobody holds the lock, and nothing is in flight. */
export function isFree(inode: OpenInode): boolean {
  if (!inode.lock.tryWrite()) return false;
  inode.lock.unlockWrite();
  return inode.lock.inFlight === 0;
}
