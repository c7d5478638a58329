/** rename, link and extended attributes over a native layer without a disk: arguments, results, errors. */
import test from 'ava';

import { Engine } from '../src/engine.js';
import { Volume } from '../src/volume.js';
import { FakeNative } from './fake-native.js';

async function makeVolume(): Promise<{ native: FakeNative; volume: Volume }> {
  const native = new FakeNative();
  native.addFile('/file', Buffer.from('content'));
  return { native, volume: await Volume.openOn(new Engine(native), '/image') };
}

test('names and paths may be bytes', async (t) => {
  const { volume } = await makeVolume();
  await volume.rename(Buffer.from('/file'), Buffer.from('/new'));
  await volume.link(new URL('file:///new'), '/second');
  t.deepEqual((await volume.readdir('/')).sort(), ['new', 'second']);
  await volume.setxattr(Buffer.from('/new'), Buffer.from('user.a'), Buffer.from([0, 255]));
  t.deepEqual(await volume.getxattr('/new', Buffer.from('user.a')), Buffer.from([0, 255]));
});

test('extended attributes: set, get, list, remove', async (t) => {
  const { volume } = await makeVolume();
  await volume.setxattr('/file', 'user.text', 'żółw');
  await volume.setxattr('/file', 'user.empty', '');
  await volume.setxattr('/file', 'user.words', new Uint16Array([0x4142, 0x4344]).subarray(1));
  t.is((await volume.getxattr('/file', 'user.text')).toString(), 'żółw');
  t.is((await volume.getxattr('/file', 'user.empty')).length, 0);
  t.is((await volume.getxattr('/file', 'user.words')).toString(), 'DC');
  t.deepEqual(await volume.listxattr('/file'), ['user.text', 'user.empty', 'user.words']);
  t.deepEqual(await volume.listxattr('/file', { encoding: 'hex' }), [
    Buffer.from('user.text').toString('hex'),
    Buffer.from('user.empty').toString('hex'),
    Buffer.from('user.words').toString('hex'),
  ]);
  t.deepEqual((await volume.listxattr('/file', 'buffer'))[0], Buffer.from('user.text'));
  await volume.removexattr('/file', 'user.text');
  t.deepEqual(await volume.listxattr('/file'), ['user.empty', 'user.words']);
  t.deepEqual(await volume.listxattr('/'), []);
});

test('extended attributes: errors of node:fs shape', async (t) => {
  const { native, volume } = await makeVolume();
  const missing = await t.throwsAsync(volume.getxattr('/file', 'user.none'), { code: 'ENODATA' });
  t.like(missing, { errno: -61, syscall: 'getxattr', path: '/file' });
  t.regex(missing?.message ?? '', /^ENODATA: .+, getxattr '\/file'$/);
  await t.throwsAsync(volume.removexattr('/file', 'user.none'), { code: 'ENODATA' });
  await t.throwsAsync(volume.listxattr('/none'), {
    message: "ENOENT: no such file or directory, listxattr '/none'",
  });
  await volume.setxattr('/file', 'user.a', '1', { flag: 'create' });
  await volume.setxattr('/file', 'user.a', '2', { flag: 'replace' });
  await t.throwsAsync(volume.setxattr('/file', 'user.a', '3', { flag: 'create' }), { code: 'EEXIST' });
  await t.throwsAsync(volume.setxattr('/file', 'user.b', '3', { flag: 'replace' }), { code: 'ENODATA' });
  native.script.set('setxattr', [-28, -95, -34, -7]);
  for (const code of ['ENOSPC', 'ENOTSUP', 'ERANGE', 'E2BIG'])
    await t.throwsAsync(volume.setxattr('/file', 'user.a', ''), { code });
});

test('extended attributes: arguments of wrong types', async (t) => {
  const { native, volume } = await makeVolume();
  const calls = native.calls.length;
  const wrong = { code: 'ERR_INVALID_ARG_TYPE' };
  await t.throwsAsync(volume.getxattr(7 as unknown as string, 'user.a'), wrong);
  await t.throwsAsync(volume.getxattr('/file', 7 as unknown as string), wrong);
  await t.throwsAsync(volume.removexattr('/file', undefined as unknown as string), wrong);
  await t.throwsAsync(volume.setxattr('/file', 'user.a', 7 as unknown as string), wrong);
  await t.throwsAsync(volume.setxattr('/file', 'user.a\0b', ''), { code: 'ERR_INVALID_ARG_VALUE' });
  await t.throwsAsync(volume.setxattr('/file', 'user.a', '', { flag: 'wx' as 'create' }), {
    code: 'ERR_INVALID_ARG_VALUE',
  });
  t.is(native.calls.length, calls);
});

test('after close they are refused', async (t) => {
  const { volume } = await makeVolume();
  await volume.close();
  for (const call of [
    volume.rename('/file', '/new'),
    volume.link('/file', '/new'),
    volume.getxattr('/file', 'user.a'),
    volume.setxattr('/file', 'user.a', ''),
    volume.listxattr('/file'),
    volume.removexattr('/file', 'user.a'),
  ])
    await t.throwsAsync(call, { code: 'EBADF', message: 'volume closed' });
});
