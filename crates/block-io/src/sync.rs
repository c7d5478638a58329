//! Locks and condition variables of every crate come from here, so that a thread model checker can take their
//! place.

#[cfg(feature = "model")]
pub mod model;

#[cfg(feature = "model")]
pub use model::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "model"))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};
pub use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
