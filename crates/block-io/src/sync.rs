//! Locks and condition variables of every crate come from here, so that a thread model checker can take their
//! place.

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
