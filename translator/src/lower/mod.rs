//! Lowering: from a region's guest instructions to arm64 code.
//!
//! How guest state lives in host registers inside translated code (see docs/registers.md):
//!
//! | host | holds |
//! |---|---|
//! | x0..x15 | rax rcx rdx rbx rsp rbp rsi rdi r8..r15 |
//! | v0..v15 | xmm0..xmm15 |
//! | NZCV | SF ZF CF OF, in a form that [`FlagState`] names |
//! | x25, x26 | PF and AF: PF is the parity of x25's low byte, AF bit 4 of x25 ^ x26 |
//! | x23 | FS base |
//! | x24 | an entry of the thread's indirect-branch table |
//! | x27 | return-address shadow stack |
//! | x28 | the [`CpuState`](crate::state::CpuState) |
//! | x16..x22, v16..v31 | temporaries inside one guest instruction, but for v28, which is zero |
//! | x29, x30 | scratch of the flag and memory primitives; x30 is the link register of calls, kept in a [`leaf`]; x29 may hold an address ([`far`]) |
//!
//! # Rules for a lowering
//! - A guest memory access comes before any change of guest-visible registers or flags that
//!   re-executing the instruction would not repeat: at a fault the guest state must be that
//!   before the instruction.
//! - Flags are computed only if [`Lower::need`] has them. A flag that the instruction does not
//!   write must survive if it is live; instructions whose table entry does not list a flag in
//!   `writes` must keep it.
//! - Everything that could depend on the address of the code, of the guest or of the translator
//!   goes through the literal pool with a relocation, or through the state register.

pub mod alignment;
pub mod arith;
pub mod atomics;
pub mod bits;
pub mod compare;
pub mod control;
pub mod counting;
pub mod crypto;
pub mod dataflow;
pub mod exits;
pub mod far;
pub mod flagstate;
pub mod known;
pub mod late;
pub mod leaf;
pub mod mmx;
pub mod moves;
pub mod muldiv;
pub mod narrow;
pub mod operands;
pub mod passes;
pub mod post_index;
pub mod resident;
pub mod segments;
pub mod sha256;
pub mod shifts;
pub mod sse_convert;
pub mod sse_float;
pub mod sse_int;
pub mod sse_moves;
pub mod sse_nan;
pub mod sse_shuffle;
pub mod sse_strings;
pub mod stack;
pub mod strings;
pub mod system;
pub mod table;
pub mod traps;
pub mod x87;

use crate::asm::{Asm, Label, R, Reloc, V, Width, needs_movk};
use crate::cache::Entry;
use crate::engine::{Config, MemoryOrder};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::profile::{Block, Profile};
use crate::region::{Insn, Next, Region};
use crate::state::offset;
use crate::tramp::Trampoline;
use compare::EdgeFlags;
use exits::{CallMiss, Edge, Exit, Labelled, PUSH_RETURN, Raise, Site};
pub use flagstate::{Carry, FlagState, Test};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};
use std::collections::BTreeSet;

/// FS base.
pub const FS: R = R(23);
/// Indirect-branch table, or any entry of it.
pub const TABLE: R = R(24);
/// Operand that PF derives from.
pub const PF: R = R(25);
/// Operand that, with `PF`, AF derives from.
pub const AF: R = R(26);
/// Return-address shadow stack pointer.
pub const SHADOW: R = R(27);
/// Pointer to the `CpuState`.
pub const STATE: R = R(28);
/// Zero. v26 and v27 are [`sha256`]'s, v25 is PSHUFB's.
pub const VZERO: V = V(28);
/// Link register.
pub const LR: R = R(30);

/// Temporaries in the order they are handed out. x20..x22 come last: they carry helper arguments.
const TEMPS: [R; 7] = [R(16), R(17), R(18), R(19), R(22), R(21), R(20)];

/// Vector temporaries in the order they are handed out. The last ones are scratch of whole-register operations, which
/// need few others.
const VTEMPS: [V; 12] =
    [V(16), V(17), V(18), V(19), V(20), V(21), V(22), V(23), V(24), V(29), V(30), V(31)];

/// The instruction (form) is not implemented.
#[derive(Clone, Copy, Debug)]
pub struct Unimplemented;

/// Result of lowering an instruction.
pub type Lowered = Result<(), Unimplemented>;

/// A comparison that the branch behind it makes itself, without flags.
#[derive(Clone, Copy, Debug)]
pub enum BitTest {
    /// ZF: whether the register is zero (CBZ, CBNZ).
    Zero(Width, R),
    /// ZF: whether one bit is clear; SF: whether the sign bit is set (TBZ, TBNZ).
    Bit(R, u32),
}

/// Where a guest instruction's code begins and what the host flags mean there.
#[derive(Clone, Copy, Debug)]
pub struct MapEntry {
    /// Offset in the region's code.
    pub host: u32,
    /// Offset of the guest instruction from the region's entry.
    pub guest: u32,
    /// The flags before the instruction.
    pub flags: FlagState,
    /// Those among them that the code before it computed, see [`crate::fault_flags`].
    pub computed: Flags,
    /// What is to be added to RSP before the instruction, see [`stack`].
    pub stack: i16,
    /// Whether control may come in here from outside, as at the start of a region.
    pub enterable: bool,
}

/// The state of lowering a region.
pub struct Lower<'a> {
    /// The code being emitted.
    pub a: &'a mut Asm,
    /// The region being lowered.
    pub region: &'a Region,
    /// How the translator is set up.
    pub config: &'a Config,
    /// Addresses of guest instructions that have been seen to cross the alignment that LDAPUR and STLUR need. None
    /// if there is none of them in the region.
    pub misaligned: Option<&'a BTreeSet<u64>>,
    /// Whether the current instruction is one of those: its accesses are plain ones with barriers.
    by_barriers: bool,
    /// Whether unmasked exceptions of SSE are raised, see [`traps`].
    pub trap_floats: bool,
    /// Counts how often each block is executed.
    pub profile: Option<&'a Profile>,
    /// Whether anything is set up that has to be looked at before each instruction: a profile, or `misaligned`.
    watches: bool,
    /// Whether control comes in from outside only at joins, or nowhere but at the start.
    only_at_joins: bool,
    /// Index of the current instruction in the region.
    pub index: usize,
    /// Flags that the current instruction may write and that are read later.
    pub need: Flags,
    /// Flags that are live behind the current instruction, whoever wrote them.
    pub live_out: Flags,
    /// What the host flags mean now.
    pub flags: FlagState,
    /// Whether one of the following may be set, up to `leaf_stop` and but for `far`. To be set together with it.
    pub carries: bool,
    /// Set by a TEST or CMP whose only reader is the next instruction, a branch on ZF or SF: the
    /// branch tests the register itself.
    pub bit_test: Option<BitTest>,
    /// Set by a TEST or CMP whose flags are, but for what the next instruction, a branch, itself looks at, only read
    /// where it leads: they are computed on that edge.
    pub edge_flags: Option<EdgeFlags>,
    /// Set by a CMP with a constant that has compared with the next number: the branch behind it takes that in.
    with_next: bool,
    /// Set by a MOV between registers that the next instruction makes superfluous: it reads the source in place of
    /// the destination, which it writes.
    pub copied: Option<R>,
    /// The same of a move between vector registers.
    pub vector_copied: Option<V>,
    /// What is kept in temporaries from one SHA256RNDS2 to the next.
    pub sha256: Option<sha256::Kept>,
    /// What is not in the guest's registers yet.
    pub late: late::Late,
    /// An address that is kept from an earlier access.
    pub far: Option<far::Far>,
    /// What is still to be added to RSP, see [`stack`].
    stack: i16,
    /// Index of the branch that ends a loop all of whose turns have been done in one pass, and where that comes, see
    /// [`passes`].
    pass_end: Option<(usize, Label)>,
    /// While a [`leaf`] is lowered for calls: where its return stops.
    leaf_stop: Option<Label>,
    temps_used: usize,
    vtemps_used: usize,
    /// What goes with the code.
    out: &'a mut Emitted,
}

impl<'a> Lower<'a> {
    /// Starts lowering a region into an empty buffer. What goes with the code is put into `emitted`.
    pub fn new(
        a: &'a mut Asm,
        region: &'a Region,
        config: &'a Config,
        emitted: &'a mut Emitted,
    ) -> Self {
        emitted.clear();
        Lower {
            a,
            region,
            config,
            misaligned: None,
            by_barriers: false,
            trap_floats: false,
            profile: None,
            watches: false,
            only_at_joins: region.flags_live_at_fault || region.lacks_head,
            index: 0,
            need: Flags::NONE,
            live_out: Flags::NONE,
            flags: FlagState::CANONICAL,
            carries: false,
            bit_test: None,
            edge_flags: None,
            with_next: false,
            copied: None,
            vector_copied: None,
            sha256: None,
            late: late::Late::default(),
            far: None,
            stack: 0,
            pass_end: None,
            leaf_stop: None,
            temps_used: 0,
            vtemps_used: 0,
            out: emitted,
        }
    }

    /// Lowers the whole region.
    #[inline(always)]
    pub fn run(&mut self) {
        self.watches = self.profile.is_some() || self.misaligned.is_some();
        self.only_at_joins |= self.profile.is_some();
        self.a.word(PUSH_RETURN);
        self.out.entries.push(Entry { at: self.a.pos(), guest: 0 });
        self.instructions();
        self.out.body = self.out.map.len() as u32;
        self.out.hot_end = self.a.pos();
        self.leaf_for_calls();
        self.cold_code();
        self.a.finish();
        self.resolve_sites();
    }

    /// Lowers all instructions.
    fn instructions(&mut self) {
        self.out.labels.clear();
        self.out.labels.resize(self.region.insns.len(), None);
        for target in self.region.joins() {
            let label = &mut self.out.labels[target];
            if label.is_none() {
                *label = Some(self.a.label());
            }
        }
        for (i, insn) in self.region.insns.iter().enumerate() {
            self.index = i;
            self.instruction(i, insn);
        }
        self.end_block();
    }

    fn instruction(&mut self, i: usize, insn: &Insn) {
        self.need = insn.live_out.and(insn.entry.writes);
        if self.carries {
            self.begin_with_stack(&insn.ins);
        }
        let passes = insn.join && self.begin_join(i, insn);
        let enterable = !passes && self.is_enterable(i, insn);
        self.map_from(self.a.pos(), insn.ins.ip(), insn.live_in, enterable);
        if self.watches {
            self.begin_watched(i, insn);
        }
        self.live_out = insn.live_out;
        self.free_temps();
        let late = self.carries && !self.late.is_nothing();
        if late {
            if self.is_left_out(i) {
                return self.fall_through(insn);
            }
            self.begin_recovery(i);
        }
        let lowered = match insn.entry.lower {
            Some(f) if insn.entry.vector => {
                self.check_alignment(&insn.ins);
                self.trapping(&insn.ins, f)
            }
            Some(f) => f(self, &insn.ins),
            None => Err(Unimplemented),
        };
        if lowered.is_err() {
            self.raise_unimplemented();
            return;
        }
        if late {
            self.end_recovery(i);
        }
        if self.far.is_some() {
            self.keep_far(i);
        }
        self.fall_through(insn);
    }

    /// Control comes to an instruction from more than one place. Returns whether several turns of a loop that begins here
    /// come first, see [`counting`].
    #[inline(never)]
    fn begin_join(&mut self, i: usize, insn: &Insn) -> bool {
        if i > 0 && self.region.falls_into_next(i - 1) {
            self.move_stack();
            self.canonical(insn.live_in);
        }
        if let Some(label) = self.out.labels[i] {
            self.a.bind(label);
        }
        self.flags = FlagState::CANONICAL;
        self.far = None;
        self.region.has_loop && self.turns_ahead(i)
    }

    /// Before an instruction of a region with something that is rare, see [`Self::watches`].
    #[cold]
    #[inline(never)]
    fn begin_watched(&mut self, i: usize, insn: &Insn) {
        self.begin_block(i);
        self.by_barriers = self.misaligned.is_some_and(|known| known.contains(&insn.ins.ip()));
    }

    /// Control goes on behind an instruction: into the next one of the region, or out of it.
    #[inline(always)]
    fn fall_through(&mut self, insn: &Insn) {
        if insn.next == Next::Outside {
            self.fall_out(insn);
        }
    }

    #[inline(never)]
    fn fall_out(&mut self, insn: &Insn) {
        if insn.flow == FlowControl::ConditionalBranch {
            self.end_block();
        }
        self.move_stack();
        self.canonical(insn.live_fallen);
        self.jump_out(insn.ins.next_ip(), Flags::NONE);
    }

    /// With a profile: counts, if a block begins here. No temporary is in use between two instructions that are not
    /// lowered together, and those are in one block.
    fn begin_block(&mut self, i: usize) {
        let Some(profile) = self.profile else { return };
        let insns = &self.region.insns;
        if i > 0 && !insns[i].join && insns[i - 1].flow == FlowControl::Next {
            return;
        }
        self.end_block();
        let Some(counter) = profile.counter() else { return };
        let (address, count) = (R(17), R(18));
        self.a.ldr_literal(address, std::ptr::from_ref(counter) as u64, Reloc::None);
        self.a.ldr(count, address, 0);
        self.a.add_imm(Width::X, count, count, 1);
        self.a.str(count, address, 0);
        let start = self.a.pos();
        self.out.blocks.push(Block { index: i, code: start..start, counter });
    }

    /// The code from here on is not counted with the last block that has begun.
    fn end_block(&mut self) {
        let end = self.a.pos();
        if let Some(last) = self.out.blocks.last_mut().filter(|last| last.code.is_empty()) {
            last.code.end = end;
        }
    }

    /// Notes that the code from here on belongs to the current guest instruction.
    pub fn mark(&mut self) {
        let (start, computed) = (self.a.pos(), self.region.insns[self.index].live_in);
        self.map_from(start, self.current().ip(), computed, false);
    }

    fn map_from(&mut self, host: u32, guest: u64, computed: Flags, enterable: bool) {
        let guest = (guest - self.region.entry) as u32;
        let (flags, stack) = (self.flags, self.stack);
        self.out.map.push(MapEntry { host, guest, flags, computed, stack, enterable });
    }

    /// Whether a jump from outside may go to the instruction that begins here: what is live before it is as at the
    /// start of a region. If a fault may be looked at, what was executed before it must be known, too.
    #[inline(always)]
    fn is_enterable(&mut self, index: usize, insn: &Insn) -> bool {
        let canonical = !self.flags.float && self.flags.carry == Carry::Direct;
        let no_matter = insn.live_in.is_empty() || !self.flags.float && !insn.live_in.any(Flags::C);
        debug_assert!(self.carries || self.carries_nothing());
        self.carries = self.carries && !self.carries_nothing();
        !self.carries
            && (canonical || no_matter)
            && (!self.only_at_joins || !self.region.lacks_head && (insn.join || index == 0))
    }

    /// Whether the current instruction stands on its own: earlier ones have left nothing to be done with it.
    fn carries_nothing(&self) -> bool {
        self.bit_test.is_none()
            && self.edge_flags.is_none()
            && !self.with_next
            && self.leaf_stop.is_none()
            && self.copied.is_none()
            && self.vector_copied.is_none()
            && self.sha256.is_none()
            && self.late.is_nothing()
            && self.stack == 0
    }

    /// Notes that the code from here on already belongs to the next instruction (behind a call).
    pub fn mark_next(&mut self) {
        self.map_from(self.a.pos(), self.current().next_ip(), Flags::ALL, false);
    }

    /// The current instruction.
    pub fn current(&self) -> &'a Instruction {
        &self.region.insns[self.index].ins
    }

    /// The label of an internal branch target.
    pub fn label_of(&self, index: u16) -> Label {
        self.out.labels[index as usize].expect("branch targets are joins")
    }

    /// A temporary integer register, free until the end of the instruction.
    pub fn tmp(&mut self) -> R {
        let r = TEMPS[self.temps_used];
        self.temps_used += 1;
        r
    }

    /// A temporary vector register, free until the end of the instruction.
    pub fn vtmp(&mut self) -> V {
        let v = VTEMPS[self.vtemps_used];
        self.vtemps_used += 1;
        v
    }

    /// Gives back all temporaries (between the steps of a long lowering).
    pub fn free_temps(&mut self) {
        self.temps_used = 0;
        self.vtemps_used = 0;
    }

    /// Whether guest accesses must be ordered.
    pub fn ordered(&self) -> bool {
        self.config.order == MemoryOrder::Ordered
    }

    /// Whether the current instruction's accesses are LDAPUR and STLUR, which take no index and few offsets. Vector
    /// registers have none of these.
    pub fn by_acquire(&self) -> bool {
        self.ordered() && !self.by_barriers && !self.region.insns[self.index].entry.vector
    }

    /// Loads a constant that is not an address.
    pub fn constant(&mut self, w: Width, value: u64) -> R {
        let t = self.tmp();
        self.load_constant(w, t, value);
        t
    }

    /// The same into any register: one instruction, from the literal pool if need be.
    pub fn load_constant(&mut self, w: Width, d: R, value: u64) {
        let value = if w == Width::W { value & 0xffff_ffff } else { value };
        if needs_movk(w, value) {
            self.a.ldr_literal(d, value, Reloc::None);
        } else {
            self.a.mov_imm(w, d, value);
        }
    }

    /// Loads a guest address.
    pub fn guest_address(&mut self, d: R, addr: u64) {
        self.a.ldr_literal(d, addr, Reloc::Guest);
    }

    /// Calls a run-time helper. Arguments go in x20, x21, x22 (behind the state pointer); results
    /// come back in x20 and x21. All other temporaries are lost; guest registers may be changed by
    /// the helper through the state, whose `rip` is the current instruction. Flags are spilled and reloaded in canonical
    /// form, so the state's flags are exact for the helper if they are live.
    pub fn call_helper(&mut self, h: Helper) {
        self.far = None;
        let changed = self.flags != FlagState::CANONICAL;
        self.canonical(Flags::ALL);
        // A helper's own accesses are plain ones.
        let barriers = self.ordered() && self.helper_needs_order(h);
        if barriers {
            self.a.dmb_ish();
        }
        let ip = self.current().ip();
        self.a.ldr_literal(R(19), ip, Reloc::Guest);
        self.a.ldr(R(16), STATE, offset::HELPERS + 8 * h as u32);
        self.a.b_trampoline(Trampoline::CallHelper, true);
        // An access that follows may fault, and finds other flags than the instruction began with.
        if changed {
            self.mark();
        }
        if barriers {
            self.a.dmb_ish();
        }
    }

    /// Whether a helper may access the current instruction's memory operand, and does not order that itself.
    fn helper_needs_order(&self, h: Helper) -> bool {
        use Helper::{RepMovs, RepStos, SplitAtomic, TrapBegin, TrapEnd};
        let ins = self.current();
        let masked = matches!(ins.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu);
        let operand = masked || ins.op_kinds().any(|kind| kind == OpKind::Memory);
        operand && !matches!(h, SplitAtomic | RepMovs | RepStos | TrapBegin | TrapEnd)
    }
}

/// What lowering a region gives besides its code, and needs on the way.
#[derive(Debug, Default)]
pub struct Emitted {
    labels: Vec<Option<Label>>,
    /// Exits so far, whose stubs are emitted behind the region's code.
    exits: Vec<Exit>,
    /// Edges so far, which are emitted there, too.
    edges: Vec<Edge>,
    /// Patchable branches that stop at a label.
    labelled: Vec<Labelled>,
    /// Where indirect branches go that miss, by the register that holds their target.
    misses: Vec<(R, Label)>,
    call_misses: Vec<CallMiss>,
    /// The return of a leaf's copy for calls, by its index, and where it stops.
    leaf_return: Option<(usize, Label)>,
    raises: Vec<Raise>,
    nan_fixes: Vec<sse_nan::NanFix>,
    indefinites: Vec<sse_convert::Indefinite>,
    /// Where control goes at a fault, see [`late`].
    pub recoveries: Vec<late::Recovering>,
    /// Patchable branches.
    pub sites: Vec<Site>,
    /// Places where control comes in.
    pub entries: Vec<Entry>,
    /// Guest instruction of each piece of host code, ascending in `host`.
    pub map: Vec<MapEntry>,
    /// So many of them, the first ones, are in guest order: those of the region's own code.
    pub body: u32,
    /// Where the region's own code ends; what is emitted for calls of a leaf, exits and exceptions is behind it.
    pub hot_end: u32,
    /// With a profile: the blocks that are counted.
    pub blocks: Vec<Block>,
}

impl Emitted {
    /// Empties everything and keeps its memory.
    fn clear(&mut self) {
        self.labels.clear();
        self.exits.clear();
        self.edges.clear();
        self.labelled.clear();
        self.misses.clear();
        self.call_misses.clear();
        self.leaf_return = None;
        self.raises.clear();
        self.nan_fixes.clear();
        self.indefinites.clear();
        self.recoveries.clear();
        self.sites.clear();
        self.entries.clear();
        self.map.clear();
        self.blocks.clear();
    }
}
