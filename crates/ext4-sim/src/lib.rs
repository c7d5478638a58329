//! Oracles and models for tests: e2fsck, debugfs and the kernel as judges.

pub mod crash;
pub mod crowd;
pub mod memory;
pub mod metadata_guard;
pub mod oracle;
pub mod pattern;
pub mod runner;
