//! How control leaves a region: direct branches with their stubs, indirect branches, exceptions.
//!
//! Every branch that can leave the region, or go backwards inside it, is a *site*: an instruction
//! that is patched at run time. A direct exit first goes to its *stub*, which calls the
//! dispatcher with a record that says where the guest goes; linking replaces the site by a branch
//! to the target's translation. To stop a thread for a signal all sites of its region are set to
//! their stop branch, which leads to the dispatcher.
//!
//! A call links with BL or BLR and comes in by the region's *call entry*, with the guest's return address in [`BACK`]
//! and the host's in x30. As a rule that is the word in front of the entry, which pushes both on the shadow stack; see
//! [`super::leaf`] for the others. Whoever does not come in by a call entry has pushed them before.

use super::compare::EdgeFlags;
use super::late::Late;
use super::{Emitted, FlagState, LR, Lower, SHADOW, STATE, TABLE, Test};
use crate::asm::{Asm, Label, R, Reloc, Width};
use crate::cache::{CALL, Entry};
use crate::flags::Flags;
use crate::relocation::Relocation;
use crate::state::{BRANCH_TABLE_BITS, BRANCH_TABLE_SHIFT, BranchTableEntry};
use crate::tramp::Trampoline;

/// A direct exit on whose way nothing is to be done: the branch at its site is linked to the target.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    target: u64,
    /// Offset of the branch that goes to the stub.
    site: u32,
    /// Whether that is a call's.
    call: bool,
}

/// An edge's code behind the region's own: a direct exit, or an internal edge whose flags need fixing.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    label: Label,
    target: u64,
    /// For an internal edge: the target.
    internal: Option<Label>,
    /// What must be made canonical on the way.
    flags: FlagState,
    live: Flags,
    /// What is computed on the way.
    edge_flags: Option<EdgeFlags>,
}

/// A patchable branch.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Offset of the instruction.
    pub at: u32,
    /// The word that runs as long as it is not linked; 0 if that leads to the dispatcher as well.
    pub run: u32,
    /// How it looks when the thread is to be stopped.
    pub stop: Stop,
}

/// How a site looks when it is to lead to the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The same branch, to an offset in the code.
    Same(u32),
    /// An unconditional branch there in place of an indirect one.
    Direct(u32),
    /// A call of its trampoline, as a stub has it.
    Dispatcher,
}

/// A patchable branch that stops at a label.
#[derive(Clone, Copy, Debug)]
pub struct Labelled {
    at: u32,
    label: Label,
    /// Whether it is an indirect one.
    indirect: bool,
}

/// Code that raises an exception, behind the region's own.
#[derive(Clone, Copy, Debug)]
pub struct Raise {
    label: Label,
    index: usize,
    vector: u32,
    flags: FlagState,
    late: Late,
}

/// `exit_arg` of an exception exit for an instruction that is not implemented.
pub const UNIMPLEMENTED: u32 = 0x100 | 6;

/// An indirect call that finds no call entry.
#[derive(Clone, Copy, Debug)]
pub struct CallMiss {
    label: Label,
    target: R,
    back: Label,
}

/// Where a call has the guest's return address.
pub const BACK: R = R(20);
/// STP BACK, x30, \[SHADOW, #-16\]!: as a rule, what is in front of a region's entry, where calls come in.
pub const PUSH_RETURN: u32 = 0xa9bf_0000 | LR.n() << 10 | SHADOW.n() << 5 | BACK.n();

/// Layout of the record behind an exit stub's BL: the guest target, then in 32 bits the distance
/// from the record back to the site (0: none).
pub const RECORD_SITE: u64 = 8;
/// The distance from a record back to the stub's BL.
pub const RECORD_STUB: u64 = 4;

impl Lower<'_> {
    /// Where a branch, which is emitted next, leaves the region for a guest address. It can be stopped.
    fn exit_to(&mut self, target: u64, live: Flags) -> Label {
        if self.edge_flags.is_some() || self.needs_fix(live) {
            return self.exit_by_edge(target, live);
        }
        self.out.exits.push(Exit { target, site: self.a.pos(), call: false });
        Label::LATER
    }

    #[inline(never)]
    fn exit_by_edge(&mut self, target: u64, live: Flags) -> Label {
        let label = self.edge_to(target, live);
        self.site(Some(label));
        label
    }

    /// Makes an edge to a guest address out of the region.
    pub fn edge_to(&mut self, target: u64, live: Flags) -> Label {
        self.add_edge(target, None, live, self.edge_flags)
    }

    fn add_edge(
        &mut self,
        target: u64,
        internal: Option<Label>,
        live: Flags,
        edge_flags: Option<EdgeFlags>,
    ) -> Label {
        let (label, flags) = (self.a.label(), self.flags);
        self.out.edges.push(Edge { label, target, internal, flags, live, edge_flags });
        label
    }

    /// Leaves the region for a guest address; flags are brought to canonical form on the way.
    pub fn jump_out(&mut self, target: u64, live: Flags) {
        self.canonical(live);
        let exit = self.exit_to(target, Flags::NONE);
        self.a.b(exit);
    }

    /// Branches on a test to a guest address, inside or outside of the region; `live` are the
    /// flags that are live there.
    pub fn branch(&mut self, test: Test, target: u64, internal: Option<u16>, live: Flags) {
        let Some(t) = internal else {
            return self.branch_out(test, target, live);
        };
        let stop = (t as usize <= self.index).then(|| self.edge_to(target, live));
        let label = if self.needs_fix(live) { self.edge(t, live) } else { self.label_of(t) };
        self.each_branch(test, label, stop);
    }

    fn needs_fix(&self, live: Flags) -> bool {
        self.flags.float && !live.is_empty()
            || self.flags.carry == super::Carry::Inverted && live.any(Flags::C)
    }

    /// An internal edge on which flags are fixed.
    fn edge(&mut self, to: u16, live: Flags) -> Label {
        let internal = self.label_of(to);
        self.add_edge(0, Some(internal), live, None)
    }

    fn branch_out(&mut self, test: Test, target: u64, live: Flags) {
        // A test of two branches has two sites: each gets its own stub, so that both are linked.
        match test {
            Test::Or(a, b) => {
                self.branch_out(Test::One(a), target, live);
                self.branch_out(Test::One(b), target, live);
            }
            Test::And(a, b) => {
                let no = self.a.label();
                self.a.b_cond(a.invert(), no);
                self.branch_out(Test::One(b), target, live);
                self.a.bind(no);
            }
            Test::Parity(p) => {
                let odd = self.odd_parity();
                let exit = self.exit_to(target, live);
                self.parity_branch(p, odd, exit, None);
            }
            Test::Known(false) => {}
            Test::One(condition) => {
                let exit = self.exit_to(target, live);
                self.a.b_cond(condition, exit);
            }
            Test::Known(true) => {
                let exit = self.exit_to(target, live);
                self.a.b(exit);
            }
        }
    }

    /// Emits the branches of a test, each a site if there is a way to stop.
    fn each_branch(&mut self, test: Test, label: Label, stop: Option<Label>) {
        match test {
            Test::Or(a, b) => {
                self.each_branch(Test::One(a), label, stop);
                self.each_branch(Test::One(b), label, stop);
            }
            Test::And(a, b) => {
                let no = self.a.label();
                self.a.b_cond(a.invert(), no);
                self.each_branch(Test::One(b), label, stop);
                self.a.bind(no);
            }
            Test::Parity(p) => {
                let odd = self.odd_parity();
                self.parity_branch(p, odd, label, stop);
            }
            Test::Known(false) => {}
            Test::One(c) => {
                self.site(stop);
                self.a.b_cond(c, label);
            }
            Test::Known(true) => {
                self.site(stop);
                self.a.b(label);
            }
        }
    }

    fn parity_branch(&mut self, parity: bool, odd: R, label: Label, stop: Option<Label>) {
        self.site(stop);
        if parity { self.a.tbz(odd, 0, label) } else { self.a.tbnz(odd, 0, label) }
    }

    /// Notes that the next instruction is a branch that can be stopped.
    fn site(&mut self, stop: Option<Label>) {
        if let Some(label) = stop {
            self.out.labelled.push(Labelled { at: self.a.pos(), label, indirect: false });
        }
    }

    /// Notes that the next instruction is an indirect branch that goes to this label to stop.
    pub(super) fn indirect_site(&mut self, stop: Label) {
        self.out.labelled.push(Labelled { at: self.a.pos(), label: stop, indirect: true });
    }

    /// Branches to a label if the test holds. May clobber a temporary.
    pub fn branch_if(&mut self, test: Test, label: Label) {
        self.each_branch(test, label, None);
    }

    /// Branches (backwards or forwards, in or out) if a register is zero or not. NZCV is untouched
    /// and must not need fixing.
    pub fn branch_zero(&mut self, zero: bool, w: Width, r: R, target: u64, internal: Option<u16>) {
        let label = self.plain_edge(target, internal);
        if zero { self.a.cbz(w, r, label) } else { self.a.cbnz(w, r, label) }
    }

    /// The same on one bit of a register.
    pub fn branch_bit(&mut self, set: bool, r: R, bit: u32, target: u64, internal: Option<u16>) {
        let label = self.plain_edge(target, internal);
        if set { self.a.tbnz(r, bit, label) } else { self.a.tbz(r, bit, label) }
    }

    /// The label for a branch, emitted next, whose flags need no fixing.
    fn plain_edge(&mut self, target: u64, internal: Option<u16>) -> Label {
        let (label, stop) = match internal {
            Some(t) => {
                let stop = (t as usize <= self.index).then(|| self.edge_to(target, Flags::NONE));
                (self.label_of(t), stop)
            }
            None => (self.exit_to(target, Flags::NONE), None),
        };
        self.site(stop);
        label
    }

    /// Branches back inside the current instruction while a register is not zero. A thread that is
    /// to be stopped leaves here, to begin the instruction anew; flags are canonical.
    pub fn repeat(&mut self, w: Width, r: R, again: Label) {
        let ip = self.current().ip();
        let stop = self.edge_to(ip, Flags::NONE);
        self.site(Some(stop));
        self.a.cbnz(w, r, again);
    }

    /// Branches back to where the current instruction begins, if the test holds. A thread that is to be stopped leaves
    /// here; no flag is live.
    pub fn repeat_if(&mut self, test: Test, again: Label) {
        let ip = self.current().ip();
        let stop = self.edge_to(ip, Flags::NONE);
        self.each_branch(test, again, Some(stop));
    }

    /// The same, but a thread that is to be stopped goes to a label.
    pub fn repeat_or_leave(&mut self, test: Test, again: Label, stop: Label) {
        self.each_branch(test, again, Some(stop));
    }

    /// The return point of a call: control comes in here from the callee's return.
    pub fn return_point(&mut self, back: Label, target: u64) {
        self.flags = FlagState::CANONICAL;
        let guest = (target - self.region.entry) as u32;
        self.out.entries.push(Entry { at: self.a.pos(), guest });
        self.far = None;
        self.a.bind(back);
    }

    /// A direct call's branch-and-link to the callee.
    pub fn call_out(&mut self, target: u64) {
        self.out.exits.push(Exit { target, site: self.a.pos(), call: true });
        self.a.bl(Label::LATER);
    }

    /// Goes to the guest address in a register through the indirect-branch table. Clobbers x17 and x18.
    pub fn branch_indirect(&mut self, target: R) {
        let miss = self.miss(target);
        self.find_table_entry(target);
        let slot = self.look_up(target, 0, miss);
        self.a.br(slot);
    }

    /// The same as a call, which returns to `back`.
    pub fn call_indirect(&mut self, target: R, back: Label) {
        let miss = self.a.label();
        self.out.call_misses.push(CallMiss { label: miss, target, back });
        self.find_table_entry(target);
        let slot = self.look_up(target, size_of::<BranchTableEntry>() as i32, miss);
        self.a.blr(slot);
    }

    /// Lets TABLE point to the entries for a guest address: the table is aligned to its size, see `table_entry`.
    fn find_table_entry(&mut self, target: R) {
        self.a.bfi(Width::X, TABLE, target, BRANCH_TABLE_SHIFT, BRANCH_TABLE_BITS);
    }

    /// Where to go according to the table's entry for `target`. Goes to `miss` if it is another's, or to stop at what is
    /// emitted next.
    fn look_up(&mut self, target: R, entry: i32, miss: Label) -> R {
        let (slot, key) = (R(17), R(18));
        self.a.ldp(key, slot, TABLE, entry);
        self.a.sub(Width::X, key, key, target);
        self.a.cbnz(Width::X, key, miss);
        self.indirect_site(miss);
        slot
    }

    /// Returns to the guest address in x16: to the shadow stack's host address if it belongs to it.
    pub fn branch_return(&mut self) {
        let (target, key, host) = (R(16), R(17), LR);
        let miss = self.miss(target);
        // LDP key, host, [SHADOW], #16
        self.a.word(0xa8c1_0000 | host.n() << 10 | SHADOW.n() << 5 | key.n());
        self.a.sub(Width::X, key, key, target);
        self.a.cbnz(Width::X, key, miss);
        self.indirect_site(miss);
        self.a.ret(host);
    }

    /// The region's shared stub for indirect branches that miss, whose target is in a register.
    fn miss(&mut self, target: R) -> Label {
        if let Some((_, label)) = self.out.misses.iter().find(|(register, _)| *register == target) {
            return *label;
        }
        let label = self.a.label();
        self.out.misses.push((target, label));
        label
    }

    /// A label behind the region's code that raises a processor exception at the current instruction.
    pub fn cold_raise(&mut self, vector: u8) -> Label {
        let label = self.a.label();
        self.out.raises.push(Raise {
            label,
            index: self.index,
            vector: u32::from(vector),
            flags: self.flags,
            late: self.late,
        });
        label
    }

    /// Raises a processor exception here. `rip` is what the guest's handler sees.
    pub fn raise(&mut self, vector: u8, rip: u64) {
        self.canonical(Flags::ALL);
        self.raise_code(u32::from(vector), rip);
    }

    /// Leaves for an instruction that is not implemented.
    pub fn raise_unimplemented(&mut self) {
        self.canonical(Flags::ALL);
        let ip = self.current().ip();
        self.raise_code(UNIMPLEMENTED, ip);
    }

    fn raise_code(&mut self, vector: u32, rip: u64) {
        self.mark();
        let here = self.a.here();
        self.a.adr(R(30), here);
        self.guest_address(R(16), rip);
        self.a.mov_imm(Width::W, R(17), u64::from(vector));
        self.a.b_trampoline(Trampoline::Exception, false);
    }

    /// Leaves for a system call; `rip` is the address behind the instruction.
    pub fn leave_for_syscall(&mut self, rip: u64) {
        self.canonical(Flags::ALL);
        self.guest_address(R(16), rip);
        self.a.b_trampoline(Trampoline::Syscall, false);
    }

    /// Calls that miss: there is no call entry for the target, but perhaps another one.
    fn emit_call_misses(&mut self) {
        for i in 0..self.out.call_misses.len() {
            let CallMiss { label, target, back } = self.out.call_misses[i];
            let miss = self.miss(target);
            self.a.bind(label);
            self.a.adr(LR, back);
            self.a.word(PUSH_RETURN);
            let slot = self.look_up(target, 0, miss);
            self.a.br(slot);
        }
    }

    /// Emits everything that stands behind the region's own code.
    #[inline(always)]
    pub fn cold_code(&mut self) {
        self.emit_call_misses();
        if let Some((index, stop)) = self.out.leaf_return {
            self.emit_leaf_stop(index, stop);
        }
        for i in 0..self.out.misses.len() {
            let (target, label) = self.out.misses[i];
            self.a.bind(label);
            if target != R(16) {
                self.a.mov(Width::X, R(16), target);
            }
            self.a.b_trampoline(Trampoline::Indirect, false);
        }
        for r in std::mem::take(&mut self.out.raises) {
            self.index = r.index;
            self.flags = r.flags;
            self.a.bind(r.label);
            self.mark();
            self.put_late(r.late);
            let ip = self.current().ip();
            self.raise(r.vector as u8, ip);
        }
        // Within reach of TBZ: what follows may be long.
        self.emit_exits();
        let rare = &*self.out;
        if !(rare.nan_fixes.is_empty() && rare.indefinites.is_empty() && rare.recoveries.is_empty())
        {
            self.emit_nan_fixes();
            self.emit_indefinites();
            self.emit_recoveries();
            self.emit_exits();
        }
    }

    /// Emits the exits and edges that there are.
    fn emit_exits(&mut self) {
        let Emitted { exits, sites, .. } = &mut *self.out;
        for Exit { target, site, call } in exits.drain(..) {
            let (stub, run) = (self.a.pos(), self.a.lead(site));
            sites.push(Site { at: site, run, stop: Stop::Same(stub) });
            if call {
                self.a.word(PUSH_RETURN);
            }
            call_dispatcher(self.a, sites, target, Some(site));
        }
        for i in 0..self.out.edges.len() {
            let edge = self.out.edges[i];
            self.emit_edge(&edge);
        }
        self.out.edges.clear();
    }

    fn emit_edge(&mut self, edge: &Edge) {
        self.free_temps();
        self.a.bind(edge.label);
        self.flags = edge.flags;
        if let Some(edge) = edge.edge_flags {
            self.flags_on_edge(edge);
            self.canonical(edge.need);
        }
        self.canonical(edge.live);
        match edge.internal {
            Some(label) => self.a.b(label),
            None => call_dispatcher(self.a, &mut self.out.sites, edge.target, None),
        }
    }

    /// When all labels are bound: the sites that stop at one.
    #[inline(always)]
    pub fn resolve_sites(&mut self) {
        for &Labelled { at, label, indirect } in &self.out.labelled {
            let to = self.a.position_of(label).expect("stop labels are bound");
            let stop = if indirect { Stop::Direct(to) } else { Stop::Same(to) };
            self.out.sites.push(Site { at, run: self.a.code()[at as usize / 4], stop });
        }
    }
}

/// The call of the dispatcher with a record behind it (see [`RECORD_SITE`]).
fn call_dispatcher(a: &mut Asm, sites: &mut Vec<Site>, target: u64, site: Option<u32>) {
    let call = a.pos();
    sites.push(Site { at: call, run: 0, stop: Stop::Dispatcher });
    a.relocations.push(Relocation::new(call, Reloc::Exit));
    let site = site.map_or(0, |site| call + RECORD_STUB as u32 - site);
    a.words(&[CALL, target as u32, (target >> 32) as u32, site]);
}

/// Where the entry for a guest address is in the branch table that begins at `table`.
pub fn table_entry(table: u64, guest: u64) -> u64 {
    table | (guest & ((1 << BRANCH_TABLE_BITS) - 1)) << BRANCH_TABLE_SHIFT
}

/// The state register, for lowering files that address the state directly.
pub const fn state() -> R {
    STATE
}
