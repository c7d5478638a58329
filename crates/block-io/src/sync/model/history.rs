//! What each thread of a checked body has done and seen, as hashes: equal histories are equal states.
//!
//! Between two operations on what is shared, a thread's code is a function of what it has observed. So the state of the whole
//! program is known by what each thread has done and observed in its order, and by what each shared object holds: by the
//! happens-before order, not by the schedule that led to it. An object that was written is known by the history of who wrote
//! it; one that was only read is as it was, so readers commute.
//!
//! A scheduler that wants it calls [`begin`], and at each of its choices [`blocked`], [`runnable`], [`fingerprint`] and
//! [`chosen`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

thread_local! {
    static HISTORY: RefCell<History> = RefCell::default();
}

/// For keys that are hashes already.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64")
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map from hashes.
pub type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

#[derive(Default)]
struct History {
    recording: bool,
    threads: Vec<Thread>,
    objects: ByHash<u64>,
    /// Of all objects, in no order.
    all_objects: u64,
    held: Vec<u64>,
}

#[derive(Clone, Copy, Default)]
struct Thread {
    seen: u64,
    /// The lock that it is about to take.
    wants: Option<u64>,
    waiting: Waiting,
}

#[derive(Clone, Copy, Default)]
enum Waiting {
    #[default]
    No,
    /// It is about to open a lock that it may have written under, and to wait, in one step.
    Will {
        variable: u64,
        lock: u64,
        written: bool,
    },
    Does,
    /// It was woken, and has not run since.
    Done,
}

/// The kinds of steps.
#[derive(Clone, Copy)]
enum Step {
    Make = 1,
    Lock,
    Held,
    Release,
    Wait,
    Woken,
    Wake,
    Notify,
    Note,
    Read,
    Write,
}

impl History {
    fn thread(&mut self, thread: usize) -> &mut Thread {
        if self.threads.len() <= thread {
            self.threads.resize(thread + 1, Thread::default());
        }
        &mut self.threads[thread]
    }

    fn me(&mut self) -> &mut Thread {
        self.thread(shuttle::current::me().into())
    }

    fn object(&self, object: u64) -> u64 {
        self.objects.get(&object).copied().unwrap_or(0)
    }

    fn set_object(&mut self, object: u64, holds: u64) {
        let before = self.objects.insert(object, holds).unwrap_or(0);
        self.all_objects ^= mix(object, before) ^ mix(object, holds);
    }

    fn release(&mut self, thread: usize, lock: u64, written: bool) {
        self.held.retain(|held| *held != lock);
        let seen = self.thread(thread).step(Step::Release, lock);
        if written {
            self.set_object(lock, seen);
        }
    }
}

impl Thread {
    fn step(&mut self, step: Step, what: u64) -> u64 {
        self.seen = mix(mix(self.seen, step as u64), what);
        self.seen
    }
}

/// A good 64-bit hash of two words (the finalizer of splitmix64).
pub fn mix(hash: u64, word: u64) -> u64 {
    let mut mixed = (hash.rotate_left(5) ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn with<R: Default>(f: impl FnOnce(&mut History) -> R) -> R {
    HISTORY.with_borrow_mut(|history| if history.recording { f(history) } else { R::default() })
}

/// A new execution begins.
pub fn begin() {
    HISTORY.with_borrow_mut(|history| *history = History { recording: true, ..History::default() });
}

/// The state of the program, but for which threads can run.
pub fn fingerprint() -> u64 {
    with(|history| history.threads.iter().fold(history.all_objects, |hash, thread| mix(hash, thread.seen)))
}

/// The thread that ran last cannot go on.
pub fn blocked(thread: usize) {
    with(|history| {
        let Waiting::Will { variable, lock, written } = history.thread(thread).waiting else { return };
        history.release(thread, lock, written);
        let thread = history.thread(thread);
        thread.step(Step::Wait, variable);
        thread.waiting = Waiting::Does;
        thread.wants = Some(lock);
    });
}

/// The thread does not wait, or no longer.
pub fn runnable(thread: usize) {
    with(|history| {
        let thread = history.thread(thread);
        if matches!(thread.waiting, Waiting::Does) {
            thread.step(Step::Woken, 0);
            thread.waiting = Waiting::Done;
        }
    });
}

/// The thread runs next.
pub fn chosen(thread: usize) {
    with(|history| {
        let thread = history.thread(thread);
        if matches!(thread.waiting, Waiting::Done) {
            thread.step(Step::Wake, 0);
            thread.waiting = Waiting::No;
        }
    });
}

/// The thread would only come to wait for a lock.
pub fn wants_what_is_held(thread: usize) -> bool {
    with(|history| history.thread(thread).wants.is_some_and(|lock| history.held.contains(&lock)))
}

/// The calling thread has come somewhere, or has learnt something that is not in a lock. Returns its history.
pub fn note(what: u64) -> u64 {
    with(|history| history.me().step(Step::Note, what))
}

/// It reads an object that is shared without a lock of this module. Objects are told apart by their numbers.
pub fn read(object: u64) {
    with(|history| {
        let holds = history.object(mix(0, object));
        history.me().step(Step::Read, mix(object, holds));
    });
}

/// It writes such an object, which holds from here on what hashes to `holds`.
pub fn write(object: u64, holds: u64) {
    with(|history| {
        history.me().step(Step::Write, mix(object, holds));
        history.set_object(mix(0, object), holds);
    });
}

/// It makes a lock or a variable. Returns its name: the same in every schedule with this history.
pub(super) fn make() -> u64 {
    with(|history| history.me().step(Step::Make, 0))
}

pub(super) fn will_lock(lock: u64) {
    with(|history| history.me().wants = Some(lock));
}

pub(super) fn lock(lock: u64) {
    with(|history| {
        history.held.push(lock);
        let holds = history.object(lock);
        let me = history.me();
        me.wants = None;
        me.step(Step::Lock, mix(lock, holds));
    });
}

/// It tried to take a lock that is held.
pub(super) fn held(lock: u64) {
    with(|history| {
        history.me().step(Step::Held, lock);
    });
}

/// `written`: it could change what the lock guards.
pub(super) fn release(lock: u64, written: bool) {
    with(|history| history.release(shuttle::current::me().into(), lock, written));
}

pub(super) fn will_wait(variable: u64, lock: u64, written: bool) {
    with(|history| history.me().waiting = Waiting::Will { variable, lock, written });
}

/// Whom it wakes is seen by who can run.
pub(super) fn notify(variable: u64) {
    with(|history| {
        history.me().step(Step::Notify, variable);
    });
}

/// Panics where `what` would have to be in the history.
pub(super) fn refuse(what: &str) {
    with(|_| -> () { panic!("the history does not tell {what}") });
}
