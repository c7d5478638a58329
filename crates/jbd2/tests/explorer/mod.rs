//! Every schedule of a few threads with few preemptions, without those that lead nowhere new.
//!
//! A preemption takes the turn from a thread that could go on; to go on elsewhere when a thread blocks costs none. The search
//! is depth first over all choices. It leaves a schedule when that comes to a state that it has left before with as many
//! preemptions to spare: what could follow has been seen. A state is known by its happens-before order
//! ([`history`]), not by the schedule, so the states that are reached are those of the full search (Musuvathi and Qadeer,
//! "Partial-order reduction for context-bounded state exploration"), but for two hashes of 64 bits that are equal by chance.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use block_io::sync::model::{checking, history};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::thread::JoinHandle;

pub mod device;
pub mod workloads;

thread_local! {
    static LEFT: Cell<bool> = const { Cell::new(false) };
}

/// The rest of this schedule has been seen: what it still does need not be judged.
pub fn is_left() -> bool {
    LEFT.get()
}

/// A thread, as its history and those of its parent know it.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<(T, u64)> {
    let parent = history::note(0);
    shuttle::thread::spawn(move || {
        history::note(parent);
        let result = body();
        (result, history::note(1))
    })
}

pub fn join<T>(thread: JoinHandle<(T, u64)>) -> T {
    let (result, seen) = thread.join().unwrap();
    history::note(seen);
    result
}

/// What a scheduler is asked.
struct Question {
    /// Who can go on, first whose turn it is.
    options: Vec<TaskId>,
    /// Whose turn it is, if it can go on.
    goes_on: Option<TaskId>,
}

impl Question {
    fn new(runnable: &[&Task], current: Option<TaskId>, yielding: bool) -> Self {
        let mut options: Vec<_> = runnable.iter().map(|task| task.id()).collect();
        if let Some(current) = current.filter(|task| !options.contains(task)) {
            history::blocked(current.into());
        }
        options.iter().for_each(|task| history::runnable((*task).into()));
        // One who wants a lock that is held would only come to wait for it. Where there are only such, that is a deadlock,
        // and they shall find it.
        let stuck = |task: &TaskId| history::wants_what_is_held((*task).into());
        if !options.iter().all(stuck) {
            options.retain(|task| !stuck(task));
        }
        let goes_on = current.filter(|task| !yielding && options.contains(task));
        if let Some(at) = options.iter().position(|task| Some(*task) == goes_on) {
            options[..=at].rotate_right(1);
        }
        Self { options, goes_on }
    }

    /// The state by name: what the threads have seen, which of them can go on, and from whom a turn would be taken.
    fn state(&self) -> u64 {
        let can_run = self.options.iter().fold(0, |can_run, task| can_run | 1 << usize::from(*task));
        let turn = self.goes_on.map_or(u64::MAX, |task| usize::from(task) as u64);
        history::mix(history::mix(history::fingerprint(), can_run), turn)
    }
}

fn chosen(task: TaskId) -> TaskId {
    history::chosen(task.into());
    task
}

/// One decision: who could go on, and who did.
struct Choice {
    options: Vec<TaskId>,
    chosen: usize,
}

/// The search; for the runner, one schedule after the other.
#[derive(Default)]
pub struct Search {
    preemptions: u8,
    /// Leave what has been seen.
    reduced: bool,
    /// By state: one more than the most preemptions that were to spare there.
    pub seen: history::ByHash<u8>,
    pub schedules: usize,
    path: Vec<Choice>,
    /// In this schedule: choices made, preemptions used.
    depth: usize,
    used: u8,
}

impl Search {
    pub fn new(preemptions: u8, reduced: bool) -> Self {
        Self { preemptions, reduced, ..Self::default() }
    }

    /// Where the path ends: what can be chosen there. `None`: it has been seen.
    fn choice(&mut self, question: Question) -> Option<Choice> {
        let to_spare = self.preemptions - self.used;
        let state = question.state();
        let mut options = question.options;
        if to_spare == 0 && question.goes_on.is_some() {
            options.truncate(1);
        }
        // Where there is nothing to choose, the next choice will be looked up.
        if options.len() > 1 {
            let seen = self.seen.entry(state).or_default();
            if self.reduced && *seen > to_spare {
                return None;
            }
            *seen = (to_spare + 1).max(*seen);
        }
        Some(Choice { options, chosen: 0 })
    }
}

impl Scheduler for Search {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.schedules > 0 {
            while self.path.last().is_some_and(|choice| choice.chosen + 1 == choice.options.len()) {
                self.path.pop();
            }
            self.path.last_mut()?.chosen += 1;
        }
        self.schedules += 1;
        (self.depth, self.used) = (0, 0);
        LEFT.set(false);
        history::begin();
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yielding: bool) -> Option<TaskId> {
        let question = Question::new(runnable, current, yielding);
        let (goes_on, first) = (question.goes_on, question.options.first().copied());
        if !is_left() && self.depth == self.path.len() {
            match self.choice(question) {
                Some(choice) => self.path.push(choice),
                // It runs to its end: to unwind the threads' stacks takes longer.
                None => LEFT.set(true),
            }
        }
        if is_left() {
            return first.map(chosen);
        }
        let choice = &self.path[self.depth];
        let task = choice.options[choice.chosen];
        self.used += u8::from(goes_on.is_some_and(|current| current != task));
        self.depth += 1;
        Some(chosen(task))
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

/// Lets another scheduler choose, and checks that equal states have equal futures: what follows a state when a thread runs
/// there is always the same state.
pub struct Futures<S> {
    pub inner: S,
    pub known: HashMap<(u64, usize), u64>,
    last: Option<(u64, usize)>,
    begun: usize,
}

impl<S> Futures<S> {
    pub fn new(inner: S, known: HashMap<(u64, usize), u64>) -> Self {
        Self { inner, known, last: None, begun: 0 }
    }
}

impl<S: Scheduler> Scheduler for Futures<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.last = None;
        self.begun += 1;
        let schedule = self.inner.new_execution();
        LEFT.set(false);
        history::begin();
        schedule
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yielding: bool) -> Option<TaskId> {
        let state = Question::new(runnable, current, yielding).state();
        if let Some(last) = self.last {
            let known = *self.known.entry(last).or_insert(state);
            assert_eq!(known, state, "two futures of a state, in schedule {}", self.begun);
        }
        let task = self.inner.next_task(runnable, current, yielding)?;
        self.last = Some((state, task.into()));
        Some(chosen(task))
    }

    fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
}

/// A scheduler that can be asked after the runner is done with it.
struct Shared<S>(Arc<Mutex<S>>);

impl<S: Scheduler> Scheduler for Shared<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.0.lock().unwrap().new_execution()
    }
    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yielding: bool) -> Option<TaskId> {
        self.0.lock().unwrap().next_task(runnable, current, yielding)
    }
    fn next_u64(&mut self) -> u64 {
        self.0.lock().unwrap().next_u64()
    }
}

/// Runs a body under a scheduler, schedule after schedule, until one goes wrong. Returns the scheduler, and whether all went
/// well.
pub fn run<S: Scheduler + Send + 'static>(scheduler: S, body: fn()) -> (S, bool) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let scheduler = Arc::new(Mutex::new(scheduler));
    let shared = Shared(scheduler.clone());
    // What a schedule that goes wrong leaves behind ends with its thread.
    let runner = std::thread::spawn(move || shuttle::Runner::new(shared, config).run(move || checking(body)));
    let went_well = runner.join().is_ok();
    let scheduler = Arc::try_unwrap(scheduler).ok().expect("the runner has gone");
    (scheduler.into_inner().unwrap_or_else(PoisonError::into_inner), went_well)
}
