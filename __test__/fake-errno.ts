/** How the native layer without a disk fails. */
export const EPERM = 1;
export const ENOENT = 2;
export const ENXIO = 6;
export const EEXIST = 17;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ELOOP = 40;
export const ENOTEMPTY = 39;
export const ENODATA = 61;

export class FakeErrno extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}
