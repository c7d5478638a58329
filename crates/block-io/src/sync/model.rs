//! The model checker's locks where it runs, and the usual ones everywhere else: chosen when a lock is made, so that other
//! tests of the same program notice nothing.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use std::{fmt, mem};

thread_local! {
    static CHECKING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a body of the model checker: locks made in it are the checker's.
pub fn checking<R>(body: impl FnOnce() -> R) -> R {
    let before = CHECKING.replace(true);
    let result = body();
    CHECKING.set(before);
    result
}

/// parking_lot's Mutex, or shuttle's.
pub struct Mutex<T>(Lock<T>);

enum Lock<T> {
    Usual(parking_lot::Mutex<T>),
    Checked(shuttle::sync::Mutex<T>),
}

/// Of a [`Mutex`].
pub struct MutexGuard<'a, T>(Guard<'a, T>);

enum Guard<'a, T> {
    Usual(parking_lot::MutexGuard<'a, T>),
    /// `None` while a condition variable has it.
    Checked(Option<shuttle::sync::MutexGuard<'a, T>>, &'a shuttle::sync::Mutex<T>),
}

const POISONED: &str = "a checked thread panicked with the lock";
const HELD: &str = "the guard holds the lock";

impl<T> Mutex<T> {
    /// An open lock around `value`.
    pub fn new(value: T) -> Self {
        Self(match CHECKING.get() {
            true => Lock::Checked(shuttle::sync::Mutex::new(value)),
            false => Lock::Usual(parking_lot::Mutex::new(value)),
        })
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(match &self.0 {
            Lock::Usual(lock) => Guard::Usual(lock.lock()),
            Lock::Checked(lock) => Guard::Checked(Some(lock.lock().expect(POISONED)), lock),
        })
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard(match &self.0 {
            Lock::Usual(lock) => Guard::Usual(lock.try_lock()?),
            Lock::Checked(lock) => Guard::Checked(Some(lock.try_lock().ok()?), lock),
        }))
    }

    /// The value, which nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Lock::Usual(lock) => lock.get_mut(),
            Lock::Checked(lock) => lock.get_mut().expect(POISONED),
        }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        match self.0 {
            Lock::Usual(lock) => lock.into_inner(),
            Lock::Checked(lock) => lock.into_inner().expect(POISONED),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => f.debug_tuple("Mutex").field(&*value).finish(),
            None => f.write_str("Mutex(locked)"),
        }
    }
}

impl<T> MutexGuard<'_, T> {
    /// Runs `f` with the lock open.
    pub fn unlocked<R>(guard: &mut Self, f: impl FnOnce() -> R) -> R {
        match &mut guard.0 {
            Guard::Usual(guard) => parking_lot::MutexGuard::unlocked(guard, f),
            Guard::Checked(guard, lock) => {
                drop(guard.take());
                let result = f();
                *guard = Some(lock.lock().expect(POISONED));
                result
            }
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Guard::Usual(guard) => guard,
            Guard::Checked(guard, _) => guard.as_ref().expect(HELD),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Guard::Usual(guard) => guard,
            Guard::Checked(guard, _) => guard.as_mut().expect(HELD),
        }
    }
}

/// parking_lot's Condvar, or shuttle's.
pub struct Condvar(Variable);

enum Variable {
    Usual(parking_lot::Condvar),
    Checked(shuttle::sync::Condvar),
}

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(match CHECKING.get() {
            true => Variable::Checked(shuttle::sync::Condvar::new()),
            false => Variable::Usual(parking_lot::Condvar::new()),
        })
    }

    /// Opens the lock until somebody notifies.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        match (&self.0, &mut guard.0) {
            (Variable::Usual(variable), Guard::Usual(guard)) => variable.wait(guard),
            (Variable::Checked(variable), Guard::Checked(guard, _)) => {
                let held = mem::take(guard).expect(HELD);
                *guard = Some(variable.wait(held).expect(POISONED));
            }
            _ => panic!("a lock and a condition variable of two worlds"),
        }
    }

    /// The same for `timeout` at most; the checker knows no time.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) {
        match (&self.0, &mut guard.0) {
            (Variable::Usual(variable), Guard::Usual(guard)) => drop(variable.wait_for(guard, timeout)),
            _ => self.wait(guard),
        }
    }

    /// Wakes everybody who waits.
    pub fn notify_all(&self) {
        match &self.0 {
            Variable::Usual(variable) => drop(variable.notify_all()),
            Variable::Checked(variable) => variable.notify_all(),
        }
    }

    /// Wakes one.
    pub fn notify_one(&self) {
        match &self.0 {
            Variable::Usual(variable) => drop(variable.notify_one()),
            Variable::Checked(variable) => variable.notify_one(),
        }
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}
