/** The one module that imports the `.node` file. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Native } from './boundary.js';

function libcName(): 'gnu' | 'musl' {
  const report = process.report as (NodeJS.ProcessReport & { excludeNetwork?: boolean }) | undefined;
  if (report === undefined) return 'gnu';
  // Without this the report looks up every open socket's host name.
  report.excludeNetwork = true;
  const { header } = report.getReport() as unknown as { header?: { glibcVersionRuntime?: string } };
  return header?.glibcVersionRuntime === undefined ? 'musl' : 'gnu';
}

/** The file that `napi build --platform` makes on this machine, without its folder. */
export function nativeFileName(): string {
  const platform =
    process.platform === 'linux'
      ? `linux-${process.arch}-${libcName()}`
      : `${process.platform}-${process.arch}`;
  return `uext4.${platform}.node`;
}

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string };
      if (name === 'uext4') return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) throw new Error('uext4: cannot find the folder of its own package.json');
    folder = parent;
  }
}

/** Where the native module is expected. */
export function nativePath(): string {
  return join(packageRoot(), 'native', nativeFileName());
}

/**
 * Loads the native module.
 *
 * @throws Error with code `ERR_UEXT4_NATIVE` that names the platform, the C library and the expected file.
 */
export function loadNative(): Native {
  const expected = nativePath();
  try {
    return createRequire(import.meta.url)(expected) as Native;
  } catch (cause) {
    const where = `${process.platform} ${process.arch}${process.platform === 'linux' ? ` (${libcName()} libc)` : ''}`;
    const message = existsSync(expected)
      ? `uext4 could not load its native module on ${where}, Node.js ${process.version}: ${expected}: ${String(cause)}`
      : `uext4 has no native module for ${where}: ${expected} is missing. ` +
        'Reinstall the package on this platform; in a checkout, run `npm run setup` (it needs cargo).';
    throw Object.assign(new Error(message, { cause }), { code: 'ERR_UEXT4_NATIVE' });
  }
}
