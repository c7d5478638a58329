//! Inode allocation.
