/** rename, link and extended attributes over the real native module, judged by e2fsck. */
import test from 'ava';

import { Volume } from '../../src/index.js';
import { assertClean, freshVolume } from './volumes.js';

test('rename and link', async (t) => {
  const path = await freshVolume(t);
  let volume = await Volume.open(path);
  await volume.mkdir('/a/b', { recursive: true });
  await volume.mkdir('/empty');
  await volume.writeFile('/a/file', 'one');
  await volume.writeFile('/two', 'two');
  await volume.rename('/a/file', '/two');
  t.is(await volume.readFile('/two', 'utf8'), 'one');
  await volume.link('/two', Buffer.from('/a/three'));
  t.is((await volume.stat('/a/three')).nlink, 2);
  await volume.rename('/a/b', '/empty');
  await volume.rename('/a', '/empty/a');
  t.is((await volume.stat('/')).nlink, 4);
  t.deepEqual(await volume.readdir('/empty'), ['a']);
  const error = await t.throwsAsync(volume.rename('/empty', '/empty/a/x'), { code: 'EINVAL' });
  t.like(error, { syscall: 'rename', path: '/empty', dest: '/empty/a/x' });
  await t.throwsAsync(volume.rename('/empty/..', '/x'), { code: 'EBUSY' });
  await t.throwsAsync(volume.rename('', '/x'), { code: 'ENOENT' });
  await t.throwsAsync(volume.rename('/two', ''), { code: 'ENOENT' });
  await t.throwsAsync(volume.link('/empty', '/x'), { code: 'EPERM' });
  await t.throwsAsync(volume.link('/two', '/empty/a/three'), { code: 'EEXIST' });
  await t.throwsAsync(volume.link('/two', '/x'.repeat(300)), { code: 'ENOENT' });
  await volume.close();
  assertClean(t, path);
  volume = await Volume.open(path, { readOnly: true });
  t.is(await volume.readFile('/empty/a/three', 'utf8'), 'one');
  await t.throwsAsync(volume.rename('/two', '/x'), { code: 'EROFS' });
  await t.throwsAsync(volume.link('/two', '/x'), { code: 'EROFS' });
  await volume.close();
});

test('an open file that is replaced lives until its last handle is closed', async (t) => {
  const path = await freshVolume(t);
  const volume = await Volume.open(path);
  await volume.writeFile('/new', 'new');
  const file = await volume.open('/old', 'w+');
  await file.write('old');
  await volume.rename('/new', '/old');
  const data = Buffer.alloc(3);
  await file.read(data, 0, 3, 0);
  t.is(data.toString(), 'old');
  t.is((await file.stat()).nlink, 0);
  t.is(await volume.readFile('/old', 'utf8'), 'new');
  const { freeInodes } = volume.info();
  await file.close();
  t.is(volume.info().freeInodes, freeInodes + 1);
  await volume.close();
  assertClean(t, path);
});

test('extended attributes', async (t) => {
  const path = await freshVolume(t);
  let volume = await Volume.open(path);
  await volume.writeFile('/file', '');
  await volume.mkdir('/dir');
  await volume.setxattr('/file', 'user.text', 'żółw');
  await volume.setxattr('/file', 'security.s', Buffer.from([0, 1, 254, 255]));
  await volume.setxattr('/dir', Buffer.from('trusted.t'), '', { flag: 'create' });
  await t.throwsAsync(volume.setxattr('/file', 'user.text', '', { flag: 'create' }), { code: 'EEXIST' });
  await t.throwsAsync(volume.setxattr('/file', 'user.other', '', { flag: 'replace' }), { code: 'ENODATA' });
  await t.throwsAsync(volume.setxattr('/file', 'user.big', 'x'.repeat(500)), { code: 'ENOSPC' });
  await t.throwsAsync(volume.setxattr('/file', 'system.posix_acl_access', ''), { code: 'ENOTSUP' });
  await t.throwsAsync(volume.setxattr('/file', 'nonsense', ''), { code: 'ENOTSUP' });
  await t.throwsAsync(volume.setxattr('/file', '', ''), { code: 'ERANGE' });
  await t.throwsAsync(volume.setxattr('/file', 'user.huge', Buffer.alloc(70_000)), { code: 'E2BIG' });
  await t.throwsAsync(volume.getxattr('/none', 'user.text'), { code: 'ENOENT' });
  await volume.close();
  assertClean(t, path);
  volume = await Volume.open(path);
  t.deepEqual(await volume.listxattr('/file'), ['user.text', 'security.s']);
  t.is((await volume.getxattr('/file', 'user.text')).toString(), 'żółw');
  t.deepEqual(await volume.getxattr('/file', 'security.s'), Buffer.from([0, 1, 254, 255]));
  t.is((await volume.getxattr('/dir', 'trusted.t')).length, 0);
  await volume.removexattr('/file', 'user.text');
  await t.throwsAsync(volume.getxattr('/file', 'user.text'), { code: 'ENODATA' });
  t.deepEqual(await volume.listxattr('/file'), ['security.s']);
  await volume.close();
  assertClean(t, path);
});
