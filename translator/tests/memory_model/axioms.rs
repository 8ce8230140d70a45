//! Candidate executions of a litmus test, and which of them the two memory models allow.
//!
//! An execution is a choice, for each read, of the write it reads from (`rf`), and for each location an order of its
//! writes (`co`). A model forbids it if one of its relations has a cycle. Names are those of the Arm ARM (B2.3,
//! "Definition of the Arm memory model") and of the cat files of herd7, `aarch64.cat` and `x86tso.cat`.

use std::collections::BTreeSet;

/// One access to memory.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub write: bool,
    pub location: usize,
    /// What a write writes.
    pub value: u64,
    /// Arm: Acquire (A) for a read, Release (L) for a write.
    pub strong: bool,
    /// Arm: AcquirePC (Q), of LDAPR.
    pub acquire_pc: bool,
    /// The access belongs to an atomic read-modify-write; x86: it is locked.
    pub rmw: bool,
    /// Arm: it is one instruction (LSE), not a load-exclusive and a store-exclusive.
    pub single: bool,
}

/// What a thread does, in program order.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Access(Access),
    /// DMB ISH, MFENCE.
    Full,
    /// DMB ISHLD.
    Loads,
    /// DMB ISHST.
    Stores,
}

/// What can be seen when all threads are done: the values read, by thread and program order, and the last values of
/// all locations.
pub type Outcome = Vec<u64>;

/// A memory model's order of two accesses of one thread, of which the first comes earlier in program order.
pub type Order = fn(&Execution, usize, usize) -> bool;

/// An access with its place.
struct Event {
    access: Access,
    thread: usize,
    /// Position in the thread's steps.
    at: usize,
}

/// A candidate execution.
pub struct Execution<'a> {
    threads: &'a [Vec<Step>],
    events: Vec<Event>,
    locations: usize,
    /// For each event that is a read: the write it reads from; None: the initial value, 0.
    rf: Vec<Option<usize>>,
    /// For each event that is a write: its rank among those of its location.
    co: Vec<usize>,
}

/// All outcomes that a model allows.
pub fn outcomes(threads: &[Vec<Step>], order: Order) -> BTreeSet<Outcome> {
    let mut events = Vec::new();
    for (thread, steps) in threads.iter().enumerate() {
        for (at, step) in steps.iter().enumerate() {
            if let Step::Access(access) = *step {
                events.push(Event { access, thread, at });
            }
        }
    }
    let locations = events.iter().map(|e| e.access.location + 1).max().unwrap_or(0);
    let count = events.len();
    let mut execution =
        Execution { threads, events, locations, rf: vec![None; count], co: vec![0; count] };
    let mut allowed = BTreeSet::new();
    execution.choose_writes(0, order, &mut allowed);
    allowed
}

impl Execution<'_> {
    fn is_write(&self, e: usize) -> bool {
        self.events[e].access.write
    }

    fn writes(&self, location: usize) -> Vec<usize> {
        let to = |e: &usize| self.is_write(*e) && self.events[*e].access.location == location;
        (0..self.events.len()).filter(to).collect()
    }

    /// Chooses `rf` for the reads from event `e` on, then `co`.
    fn choose_writes(&mut self, e: usize, order: Order, allowed: &mut BTreeSet<Outcome>) {
        if e == self.events.len() {
            return self.choose_orders(0, order, allowed);
        }
        if self.is_write(e) {
            return self.choose_writes(e + 1, order, allowed);
        }
        let sources = self.writes(self.events[e].access.location);
        for source in sources.into_iter().map(Some).chain([None]) {
            self.rf[e] = source;
            self.choose_writes(e + 1, order, allowed);
        }
    }

    /// Chooses `co` for the locations from this one on.
    fn choose_orders(&mut self, location: usize, order: Order, allowed: &mut BTreeSet<Outcome>) {
        if location == self.locations {
            if self.is_allowed(order) {
                allowed.insert(self.outcome());
            }
            return;
        }
        for permutation in permutations(self.writes(location)) {
            for (rank, write) in permutation.into_iter().enumerate() {
                self.co[write] = rank;
            }
            self.choose_orders(location + 1, order, allowed);
        }
    }

    fn outcome(&self) -> Outcome {
        let reads = (0..self.events.len()).filter(|e| !self.is_write(*e));
        let read = reads.map(|e| self.rf[e].map_or(0, |w| self.events[w].access.value));
        let last = (0..self.locations).map(|location| {
            let writes = self.writes(location).into_iter();
            writes.max_by_key(|w| self.co[*w]).map_or(0, |w| self.events[w].access.value)
        });
        read.chain(last).collect()
    }

    fn same_thread(&self, a: usize, b: usize) -> bool {
        self.events[a].thread == self.events[b].thread
    }

    fn same_location(&self, a: usize, b: usize) -> bool {
        self.events[a].access.location == self.events[b].access.location
    }

    fn program_order(&self, a: usize, b: usize) -> bool {
        self.same_thread(a, b) && self.events[a].at < self.events[b].at
    }

    fn coherence(&self, a: usize, b: usize) -> bool {
        self.is_write(a) && self.is_write(b) && self.same_location(a, b) && self.co[a] < self.co[b]
    }

    fn reads_from(&self, write: usize, read: usize) -> bool {
        !self.is_write(read) && self.rf[read] == Some(write)
    }

    /// From a read to the writes that come after the one it reads from.
    fn reads_before(&self, read: usize, write: usize) -> bool {
        !self.is_write(read)
            && self.is_write(write)
            && self.same_location(read, write)
            && self.rf[read].is_none_or(|source| self.co[source] < self.co[write])
    }

    fn communicates(&self, a: usize, b: usize) -> bool {
        self.reads_from(a, b) || self.coherence(a, b) || self.reads_before(a, b)
    }

    fn is_allowed(&self, order: Order) -> bool {
        let internal = |a: usize, b: usize| {
            self.communicates(a, b) || self.program_order(a, b) && self.same_location(a, b)
        };
        let external = |a: usize, b: usize| {
            !self.same_thread(a, b) && self.communicates(a, b)
                || self.program_order(a, b) && order(self, a, b)
        };
        self.is_acyclic(internal) && self.is_atomic() && self.is_acyclic(external)
    }

    /// Nobody writes between the read and the write of an atomic operation.
    fn is_atomic(&self) -> bool {
        (1..self.events.len()).filter(|w| self.is_rmw_pair(w - 1, *w)).all(|w| {
            (0..self.events.len()).all(|other| {
                other == w || !(self.reads_before(w - 1, other) && self.coherence(other, w))
            })
        })
    }

    fn is_rmw_pair(&self, read: usize, write: usize) -> bool {
        let both = self.events[read].access.rmw && self.events[write].access.rmw;
        both && !self.is_write(read) && self.is_write(write) && read + 1 == write
    }

    fn is_acyclic(&self, edge: impl Fn(usize, usize) -> bool) -> bool {
        let n = self.events.len();
        let mut reach: Vec<Vec<bool>> =
            (0..n).map(|a| (0..n).map(|b| edge(a, b)).collect()).collect();
        for middle in 0..n {
            let through = reach[middle].clone();
            for row in reach.iter_mut().filter(|row| row[middle]) {
                row.iter_mut().zip(&through).for_each(|(to, more)| *to |= more);
            }
        }
        (0..n).all(|e| !reach[e][e])
    }

    fn between(&self, a: usize, b: usize) -> &[Step] {
        &self.threads[self.events[a].thread][self.events[a].at + 1..self.events[b].at]
    }
}

fn permutations(items: Vec<usize>) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, first) in items.iter().enumerate() {
        let rest = [&items[..i], &items[i + 1..]].concat();
        all.extend(permutations(rest).into_iter().map(|rest| [vec![*first], rest].concat()));
    }
    all
}

/// `ppo` and `implied` of x86-TSO: all but a read behind a write, unless a fence or a locked access orders them.
pub fn tso(execution: &Execution, a: usize, b: usize) -> bool {
    let (first, second) = (execution.events[a].access, execution.events[b].access);
    let fence = || execution.between(a, b).iter().any(|step| matches!(step, Step::Full));
    let locked = || {
        let step = |step: &Step| matches!(step, Step::Access(access) if access.rmw);
        first.rmw || second.rmw || execution.between(a, b).iter().any(step)
    };
    !first.write || second.write || locked() || fence()
}

/// Barrier-ordered-before (`bob`) and atomic-ordered-before (`aob`). Dependencies are left out, which allows more.
pub fn arm(execution: &Execution, a: usize, b: usize) -> bool {
    let (first, second) = (execution.events[a].access, execution.events[b].access);
    let by_barrier = execution.between(a, b).iter().any(|step| match step {
        Step::Full => true,
        Step::Loads => !first.write,
        Step::Stores => first.write && second.write,
        Step::Access(_) => false,
    });
    // [range([A]; amo; [L])]; po: what lies behind an atomic instruction with both semantics lies behind its write.
    let barrier_like = first.write && first.rmw && first.single && first.strong;
    let acquire = !first.write && (first.strong || first.acquire_pc);
    let release = second.write && second.strong;
    let release_acquire = first.write && first.strong && !second.write && second.strong;
    let atomic = execution.is_rmw_pair(a, b)
        || first.write
            && first.rmw
            && execution.reads_from(a, b)
            && (second.strong || second.acquire_pc);
    by_barrier || barrier_like || acquire || release || release_acquire || atomic
}
