//! Which filters each thread of the process has. They are kept where other threads reach them, because one may give
//! its own to all (SECCOMP_FILTER_FLAG_TSYNC).

use std::ops::Deref;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::filter::Filter;

/// SECCOMP_MODE_DISABLED.
pub const DISABLED: u32 = 0;
/// SECCOMP_MODE_STRICT.
pub const STRICT: u32 = 1;
/// SECCOMP_MODE_FILTER.
pub const FILTER: u32 = 2;

/// What seccomp(2) keeps for a thread.
#[derive(Debug, Default)]
pub struct Thread {
    mode: AtomicU32,
    pid: AtomicI32,
    tid: AtomicI32,
    filter: Mutex<Option<Arc<Filter>>>,
    /// The descriptor that takes the filters over execve(2), while there is one.
    pub(super) handed_over: AtomicI32,
}

/// The threads that share this memory, those of a vfork(2) child among them.
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Thread {
    /// Whether system calls of this thread have to be looked at.
    pub fn is_on(&self) -> bool {
        self.mode() != DISABLED
    }

    /// The mode, as prctl(PR_GET_SECCOMP) gives it.
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }

    /// The filters, but in strict mode.
    pub fn filter(&self) -> Option<Arc<Filter>> {
        lock(&self.filter).clone()
    }

    /// Says which thread of the host this is.
    pub fn identify(&self, pid: i32, tid: i32) {
        self.pid.store(pid, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
    }

    pub(super) fn set(&self, filter: Arc<Filter>) {
        *lock(&self.filter) = Some(filter);
        self.mode.store(FILTER, Ordering::Relaxed);
    }

    pub(super) fn set_strict(&self) {
        self.mode.store(STRICT, Ordering::Relaxed);
    }

    /// Whether it may take `filter` for its own: it has none, or one of those that `filter` begins with.
    fn may_take(&self, filter: Option<&Arc<Filter>>) -> bool {
        match (self.mode(), &*lock(&self.filter), filter) {
            (STRICT, ..) => false,
            (_, None, _) => true,
            (_, Some(own), Some(filter)) => own.is_ancestor_of(filter),
            (_, Some(_), None) => false,
        }
    }
}

/// A thread among the others, for as long as this lives.
#[derive(Debug)]
pub struct Membership(Arc<Thread>);

impl Default for Membership {
    /// A thread without filters.
    fn default() -> Self {
        Self::enter(Thread::default(), &mut lock(&THREADS))
    }
}

impl Membership {
    fn enter(thread: Thread, threads: &mut Vec<Arc<Thread>>) -> Self {
        let thread = Arc::new(thread);
        threads.push(thread.clone());
        Self(thread)
    }

    /// A thread that this one is about to make.
    pub fn child(&self) -> Self {
        // Whoever synchronises the parent now does so with the child, before it is there or after.
        let mut threads = lock(&THREADS);
        let child = Thread {
            mode: self.mode().into(),
            pid: self.pid.load(Ordering::Relaxed).into(),
            filter: self.filter().into(),
            ..Thread::default()
        };
        Self::enter(child, &mut threads)
    }

    /// The thread itself, whatever becomes of this.
    pub(crate) fn same(&self) -> Arc<Thread> {
        self.0.clone()
    }

    /// The thread is about to end.
    pub fn leave(&self) {
        lock(&THREADS).retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}

impl Deref for Membership {
    type Target = Thread;

    fn deref(&self) -> &Thread {
        &self.0
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The threads, while none can begin, end or change its filters.
pub struct All(MutexGuard<'static, Vec<Arc<Thread>>>);

/// Holds the threads as they are.
pub fn hold() -> All {
    All(lock(&THREADS))
}

impl All {
    /// The other threads of a thread's process.
    fn siblings<'a>(&'a self, thread: &'a Membership) -> impl Iterator<Item = &'a Arc<Thread>> {
        let pid = |thread: &Thread| thread.pid.load(Ordering::Relaxed);
        let other =
            move |other: &&Arc<Thread>| !Arc::ptr_eq(other, &thread.0) && pid(other) == pid(thread);
        self.0.iter().filter(other)
    }

    /// Whether a thread is the only one of its process.
    pub fn is_alone(&self, thread: &Membership) -> bool {
        self.siblings(thread).next().is_none()
    }

    /// Whether there is but one thread in this memory, whatever its process.
    pub fn is_only(&self) -> bool {
        self.0.len() == 1
    }

    /// A thread that cannot take this one's filters for its own, by its id.
    pub fn unlike(&self, thread: &Membership) -> Option<i32> {
        let filter = thread.filter();
        let other = self.siblings(thread).find(|other| !other.may_take(filter.as_ref()))?;
        Some(other.tid.load(Ordering::Relaxed))
    }

    /// Gives the filter to a thread, and with `all` to its siblings.
    pub fn set(&self, thread: &Membership, filter: &Arc<Filter>, all: bool) {
        thread.set(filter.clone());
        if all {
            self.siblings(thread).for_each(|other| other.set(filter.clone()));
        }
    }

    /// In a forked child: there is but this thread.
    pub fn in_child(mut self, thread: &Membership) {
        self.0.retain(|other| Arc::ptr_eq(other, &thread.0));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bpf::code::RET_K;
    use super::super::bpf::{Instruction, Program};
    use super::*;

    fn filter(before: Option<Arc<Filter>>) -> Arc<Filter> {
        let program = Program::new(vec![Instruction::new(RET_K, 0x7fff_0000)]).unwrap();
        Arc::new(Filter::new(program, 0, before).unwrap())
    }

    #[test]
    fn threads_take_what_begins_with_their_own() {
        // A process number that no other test has.
        let first = Membership::default();
        first.identify(-7, -7);
        assert!(hold().is_alone(&first));
        let one = filter(None);
        hold().set(&first, &one, false);
        let second = first.child();
        second.identify(-7, -8);
        assert!(!hold().is_alone(&first));
        assert_eq!(second.mode(), FILTER);
        let two = filter(Some(one.clone()));
        hold().set(&first, &two, false);
        assert_eq!(hold().unlike(&first), None);
        assert_eq!(hold().unlike(&second), Some(-7));
        hold().set(&first, &two, true);
        assert!(Arc::ptr_eq(&second.filter().unwrap(), &two));
        hold().set(&second, &filter(Some(two)), false);
        assert_eq!(hold().unlike(&first), Some(-8));
        drop(second);
        assert_eq!(hold().unlike(&first), None);
        let third = first.child();
        third.identify(-7, -9);
        third.set_strict();
        assert_eq!(hold().unlike(&first), Some(-9));
    }
}
