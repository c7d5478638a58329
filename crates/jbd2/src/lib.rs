//! The journal: handles, transactions, commit, checkpoint, revoke and recovery.
//!
//! Rule numbers (J, T, R, D) are those of the specification. The crate knows block devices and nothing of ext4:
//! what a block means is the [`Host`]'s affair.

mod checkpoint;
mod commit;
mod config;
mod error;
pub mod format;
mod handle;
mod io;
mod journal;
mod log_map;
mod mutant;
pub mod recovery;
mod state;
mod tid;

pub use config::{Config, Features, Host, Image, SealTag, Stats};
pub use error::{Error, Result};
pub use handle::Handle;
pub use journal::Journal;
pub use log_map::{LogExtent, LogMap};
#[cfg(feature = "mutants")]
pub use mutant::activate_mutant;
#[doc(hidden)]
pub use mutant::mutant;
pub use tid::Tid;
