/** Hits in the page cache without yields: what they do, and what they leave to the long way. */
import test from 'ava';

import { readHit } from '../src/read-iter/read-iter.js';
import { writeHit } from '../src/write-iter/write-hit.js';
import { ProbeFlag } from '../src/native/boundary.js';
import { isFree, setup } from './policy-setup.js';

const EAGAIN = 11;

test('a hit: the lock as ever, one native call beside the checks', (t) => {
  const { native, inode, io, counts } = setup();
  native.cached = true;
  native.tryModified = 0;
  const one = io({ direct: false, posBytes: 4096 });
  t.is(writeHit(one), 4096);
  t.is(readHit(one), 4096);
  t.deepEqual(native.calls, ['tryBufferedWrite 4096@4096', 'tryBufferedRead 4096@4096']);
  t.is(counts.buffered, 1);
  t.true(isFree(inode));
});

test('what is no hit, or needs more than one, is left to the long way with nothing done', (t) => {
  const { native, fake, inode, io, counts } = setup();
  native.tryModified = 0;
  const buffered = { direct: false, posBytes: 0 };
  t.is(writeHit(io(buffered)), -EAGAIN, 'not cached');
  t.is(readHit(io(buffered)), -EAGAIN);
  native.cached = true;
  for (const more of [{ dsync: true }, { nowait: true }, { atomic: true }, { countBytes: 0 }])
    t.is(writeHit(io({ ...buffered, ...more })), -EAGAIN);
  for (const flag of [ProbeFlag.IMMUTABLE, ProbeFlag.MAY_STRIP]) {
    fake.flags = flag;
    t.is(writeHit(io(buffered)), -EAGAIN);
  }
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  native.tryModified = -EAGAIN;
  t.is(writeHit(io(buffered)), -EAGAIN, 'the times would have to wait');
  fake.flags = 0;
  t.true(inode.lock.tryRead());
  t.is(writeHit(io(buffered)), -EAGAIN, 'somebody reads');
  inode.lock.beginDio();
  inode.lock.unlockRead();
  t.is(writeHit(io(buffered)), -EAGAIN, 'direct I/O is in flight');
  inode.lock.endDio();
  t.true(inode.lock.tryWrite());
  t.is(readHit(io(buffered)), -EAGAIN, 'somebody writes');
  inode.lock.unlockWrite();
  t.false(native.calls.some((call) => call.startsWith('tryBuffered')));
  t.is(counts.buffered, 0);
  t.true(isFree(inode));
});
