//! The model checker's locks where it runs, and the usual ones everywhere else: chosen when a lock is made, so that other
//! tests of the same program notice nothing.

pub mod history;

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
    /// With its name in the history.
    Checked(shuttle::sync::Mutex<T>, u64),
}

/// Of a [`Mutex`].
pub struct MutexGuard<'a, T>(Guard<'a, T>);

enum Guard<'a, T> {
    Usual(parking_lot::MutexGuard<'a, T>),
    Checked(Checked<'a, T>),
}

struct Checked<'a, T> {
    /// `None` while a condition variable has it.
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
    lock: &'a shuttle::sync::Mutex<T>,
    name: u64,
    /// The holder could change the value.
    written: bool,
}

impl<'a, T> Checked<'a, T> {
    fn new(guard: shuttle::sync::MutexGuard<'a, T>, lock: &'a shuttle::sync::Mutex<T>, name: u64) -> Self {
        history::lock(name);
        Self { guard: Some(guard), lock, name, written: false }
    }

    fn lock(lock: &'a shuttle::sync::Mutex<T>, name: u64) -> Self {
        history::will_lock(name);
        Self::new(unpoisoned(lock.lock()), lock, name)
    }

    /// Another thread may run before the lock is open, and the history says then that it is held.
    fn open(&mut self) {
        if let Some(guard) = self.guard.take() {
            drop(guard);
            history::release(self.name, self.written);
        }
    }
}

impl<T> Drop for Checked<'_, T> {
    fn drop(&mut self) {
        self.open();
    }
}

const HELD: &str = "the guard holds the lock";

/// parking_lot knows no poison: what unwinds after a panic can take the lock.
fn unpoisoned<T>(result: std::sync::LockResult<T>) -> T {
    result.unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<T> Mutex<T> {
    /// An open lock around `value`.
    pub fn new(value: T) -> Self {
        Self(match CHECKING.get() {
            true => Lock::Checked(shuttle::sync::Mutex::new(value), history::make()),
            false => Lock::Usual(parking_lot::Mutex::new(value)),
        })
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(match &self.0 {
            Lock::Usual(lock) => Guard::Usual(lock.lock()),
            Lock::Checked(lock, name) => Guard::Checked(Checked::lock(lock, *name)),
        })
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard(match &self.0 {
            Lock::Usual(lock) => Guard::Usual(lock.try_lock()?),
            Lock::Checked(lock, name) => match lock.try_lock() {
                Ok(guard) => Guard::Checked(Checked::new(guard, lock, *name)),
                Err(_) => {
                    history::held(*name);
                    return None;
                }
            },
        }))
    }

    /// The value, which nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Lock::Usual(lock) => lock.get_mut(),
            Lock::Checked(lock, _) => unpoisoned(lock.get_mut()),
        }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        match self.0 {
            Lock::Usual(lock) => lock.into_inner(),
            Lock::Checked(lock, _) => unpoisoned(lock.into_inner()),
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
            Guard::Checked(checked) => {
                checked.open();
                let result = f();
                *checked = Checked::lock(checked.lock, checked.name);
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
            Guard::Checked(checked) => checked.guard.as_ref().expect(HELD),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Guard::Usual(guard) => guard,
            Guard::Checked(checked) => {
                checked.written = true;
                checked.guard.as_mut().expect(HELD)
            }
        }
    }
}

/// parking_lot's Condvar, or shuttle's.
pub struct Condvar(Variable);

enum Variable {
    Usual(parking_lot::Condvar),
    Checked(shuttle::sync::Condvar, u64),
}

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(match CHECKING.get() {
            true => Variable::Checked(shuttle::sync::Condvar::new(), history::make()),
            false => Variable::Usual(parking_lot::Condvar::new()),
        })
    }

    /// Opens the lock until somebody notifies.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        match (&self.0, &mut guard.0) {
            (Variable::Usual(variable), Guard::Usual(guard)) => variable.wait(guard),
            (Variable::Checked(variable, name), Guard::Checked(checked)) => {
                history::will_wait(*name, checked.name, mem::take(&mut checked.written));
                let held = checked.guard.take().expect(HELD);
                checked.guard = Some(unpoisoned(variable.wait(held)));
                history::lock(checked.name);
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
            Variable::Checked(variable, name) => {
                variable.notify_all();
                history::notify(*name);
            }
        }
    }

    /// Wakes one.
    pub fn notify_one(&self) {
        match &self.0 {
            Variable::Usual(variable) => drop(variable.notify_one()),
            Variable::Checked(variable, _) => {
                history::refuse("whom notify_one wakes");
                variable.notify_one();
            }
        }
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}
