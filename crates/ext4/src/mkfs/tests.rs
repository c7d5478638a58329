//! Against runs of mke2fs, and against e2fsck.

mod device;
mod oracle;
mod samples;
