/** The error numbers that the policy decides with (Linux). */
export const EPERM = 1;
export const ENOENT = 2;
export const EIO = 5;
export const ENXIO = 6;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOTBLK = 15;
export const EISDIR = 21;
export const EBUSY = 16;
export const EINVAL = 22;
export const EFBIG = 27;
export const EROFS = 30;
export const EBADMSG = 74;
export const EOPNOTSUPP = 95;
export const EUCLEAN = 117;
