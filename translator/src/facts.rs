//! What later code needs of each instruction: liveness of the status flags over the whole region,
//! and which neighbours are lowered as one.

use crate::effects::{self, Effect};
use crate::fault_flags::observable;
use crate::flags::Flags;
use crate::lower::table;
use crate::region::{CodeReader, Insn, Looked, Next, Region, direct_target, fetch, goes_on, skim};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic};
use std::cell::Cell;

/// How many instructions behind an exit are looked at for a definition of the flags.
const LOOK_AHEAD: usize = 24;

/// What is known of code outside the region.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// Where code can be read.
    pub code: &'a CodeReader<'a>,
    /// Whether flags are live at a return. No compiler passes a result in flags, so they are not,
    /// until code is seen that reads flags behind a call (see [`reads_flags_behind_call`]).
    pub flags_live_at_return: bool,
    /// Whether the guest can see the flags at a fault: then what may fault reads them, but for
    /// those that [`crate::fault_flags`] derives.
    pub flags_live_at_fault: bool,
    /// What earlier regions have found; none if nothing is to rest on this one.
    pub found: Option<Found<'a>>,
}

/// The flags that are live at exits of regions, as far as code has been looked at there: many lead to the same places.
/// It holds as long as no translation is thrown away: until then the code is watched.
pub struct FoundFlags {
    /// By address; the newest of those that share a place.
    places: Vec<Place>,
    generation: u32,
}

/// An address, and what has been found there: see [`Found`].
type Place = [u64; 2];

/// What has been found, while a region is made: at a place the flags that are live, how many bytes of code this rests
/// on (16 bits from the 16th on), and when it was found (the upper 32 bits).
#[derive(Clone, Copy)]
pub struct Found<'a> {
    places: &'a [Cell<Place>],
    generation: u32,
}

/// What a look at the code ahead tells.
#[derive(Clone, Copy)]
struct Ahead {
    /// Flags that may be read before they are written.
    live: Flags,
    /// None is read before the code has written all, or calls, or returns.
    no_reader: bool,
}

impl Ahead {
    /// Whether anything may rest on the code: nothing does on what leaves all flags live, and may read them behind a call.
    fn says_something(self) -> bool {
        self.live != Flags::ALL || self.no_reader
    }

    /// In 16 bits.
    fn packed(self) -> u64 {
        u64::from(self.live.0) | u64::from(self.no_reader) << 8
    }

    fn unpacked(bits: u64) -> Self {
        Ahead { live: Flags(bits as u8), no_reader: bits >> 8 & 1 != 0 }
    }
}

impl Default for FoundFlags {
    fn default() -> Self {
        // Zeros from the allocator: pages are there once they are used.
        FoundFlags { places: vec![[0; 2]; Self::PLACES], generation: 1 }
    }
}

impl FoundFlags {
    const PLACES: usize = 1 << 15;

    /// What has been found no longer holds.
    pub fn forget(&mut self) {
        self.generation = self.generation.wrapping_add(1).max(1);
    }

    /// To look things up, and to add to them.
    pub fn places(&mut self) -> Found<'_> {
        let places = Cell::from_mut(&mut self.places[..]).as_slice_of_cells();
        Found { places, generation: self.generation }
    }
}

impl Found<'_> {
    fn place(&self, addr: u64) -> &Cell<Place> {
        &self.places[(addr ^ addr >> 15) as usize % FoundFlags::PLACES]
    }

    fn get(&self, addr: u64) -> Option<(Ahead, Looked)> {
        let [start, found] = self.place(addr).get();
        let looked = Looked { start, end: start + (found >> 16 & 0xffff) };
        let holds = start == addr && found >> 32 == u64::from(self.generation);
        holds.then_some((Ahead::unpacked(found), looked))
    }

    fn put(&self, ahead: Ahead, Looked { start, end }: Looked) {
        let found = u64::from(self.generation) << 32 | (end - start) << 16 | ahead.packed();
        self.place(start).set([start, found]);
    }
}

/// Computes `live_in`, `live_out` and `live_taken` of every instruction, and notes in `looked_at` what code
/// behind the exits that rests on: when that changes, the region must be translated anew.
pub fn flag_liveness(region: &mut Region, outside: Outside) {
    if outside.flags_live_at_fault {
        for (i, flags) in observable(region).into_iter().enumerate() {
            region.insns[i].reads = region.insns[i].reads.or(flags);
        }
    }
    region.looked_at.clear();
    region.each_block_end(|insn, looked_at| {
        let (taken, fallen) = live_outside(insn, outside, looked_at);
        (insn.live_taken, insn.live_fallen) = (taken, fallen);
        // Until the backward pass has been here this is what leaves the region.
        insn.live_out = taken.or(fallen);
    });
    loop {
        let mut changed = false;
        let mut live_next = Flags::NONE;
        let insns = &mut region.insns[..];
        for i in (0..insns.len()).rev() {
            let taken = insns[i].target.map(|t| insns[usize::from(t)].live_in);
            let insn = &mut insns[i];
            let mut live = insn.live_out;
            if insn.next == Next::Inside {
                live = live.or(live_next);
            }
            if let Some(taken) = taken {
                live = live.or(taken);
            }
            live_next = live.without(insn.kills).or(insn.reads);
            insn.live_out = live;
            changed |= insn.join && insn.live_in != live_next;
            insn.live_in = live_next;
        }
        // Only a backward branch makes another round necessary.
        if !changed || !region.has_loop {
            return;
        }
    }
}

/// Flags that code outside the region may read when control leaves it at this instruction:
/// where its branch goes, and where it falls through to.
fn live_outside(insn: &Insn, outside: Outside, looked_at: &mut Vec<Looked>) -> (Flags, Flags) {
    let ins = &insn.ins;
    let fallen = match insn.next {
        Next::Outside => live_at(outside, ins.next_ip(), looked_at),
        Next::Inside | Next::Never => Flags::NONE,
    };
    let taken = match insn.flow {
        FlowControl::Next | FlowControl::XbeginXabortXend => Flags::NONE,
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            if insn.target.is_some() =>
        {
            Flags::NONE
        }
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call => {
            // SYSCALL counts as a call, too: r11 takes the flags.
            direct_target(ins).map_or(Flags::ALL, |t| live_at(outside, t, looked_at))
        }
        FlowControl::Return if !outside.flags_live_at_return => Flags::NONE,
        _ => Flags::ALL,
    };
    (taken, fallen)
}

/// Flags that may be read at `addr` before they are written, from a short look at the code there.
fn live_at(outside: Outside, addr: u64, looked_at: &mut Vec<Looked>) -> Flags {
    look_ahead(outside, addr, looked_at).live
}

/// A short look at the code at `addr`, if nobody has looked before.
fn look_ahead(outside: Outside, addr: u64, looked_at: &mut Vec<Looked>) -> Ahead {
    if let Some((ahead, looked)) = outside.found.and_then(|found| found.get(addr)) {
        looked_at.extend(ahead.says_something().then_some(looked));
        return ahead;
    }
    let mut unknown = Flags::ALL;
    let mut live = Flags::NONE;
    let mut no_reader = false;
    let mut pos = addr;
    let mut start = addr;
    for _ in 0..LOOK_AHEAD {
        let effect = match effects::known(outside.code, pos) {
            Some(effect) if !outside.flags_live_at_fault => effect,
            _ => match Effect::look_up(outside.code, pos, outside.flags_live_at_fault) {
                Some(effect) => effect,
                None => break,
            },
        };
        live = live.or(effect.reads.and(unknown));
        if effect.may_fault {
            break;
        }
        pos += effect.length;
        unknown = unknown.without(effect.kills.or(live));
        if unknown.is_empty() {
            no_reader = true;
            break;
        }
        match effect.flow {
            FlowControl::Next => {}
            FlowControl::UnconditionalBranch => match effect.target {
                Some(target) => {
                    looked_at.push(Looked { start, end: pos });
                    (start, pos) = (target, target);
                }
                None => break,
            },
            FlowControl::Return if !outside.flags_live_at_return => {
                unknown = Flags::NONE;
                no_reader = true;
                break;
            }
            flow => {
                no_reader = flow == FlowControl::Call;
                break;
            }
        }
    }
    no_reader &= live.is_empty();
    let ahead = Ahead { live: live.or(unknown), no_reader };
    let looked = Looked { start, end: pos };
    if ahead.says_something() && pos > start {
        looked_at.push(looked);
    }
    // Code in several pieces is too rare to be kept.
    if let Some(found) = outside.found
        && start == addr
    {
        found.put(ahead, looked);
    }
    ahead
}

/// Index of the first call behind which flags are read that were not set there: if that call is made and returns, a
/// callee's flags must be exact at its return.
pub fn reads_flags_behind_call(region: &Region, outside: Outside) -> Option<usize> {
    let form = |insn: &Insn| (insn.ins.code(), insn.next == Next::Inside);
    let reader = |i: usize, insn: &Insn| match insn.next {
        Next::Inside => reads_first(region.insns[i + 1..].iter().map(form), Flags::ALL),
        Next::Outside => {
            let next = insn.ins.next_ip();
            let ahead = look_ahead(outside, next, &mut Vec::new());
            !ahead.no_reader && reads_flags_behind(outside.code, next)
        }
        Next::Never => false,
    };
    let mut calls = region.calls.iter().map(|&i| usize::from(i));
    calls.find(|&i| {
        // Not a system call: the flags behind that are the guest's own.
        let call = region.insns.get(i).filter(|insn| !insn.leaves_for_good());
        call.is_some_and(|insn| reader(i, insn))
    })
}

/// The same for the code at an address behind a call that is interpreted.
pub fn reads_flags_behind(code: &CodeReader, mut addr: u64) -> bool {
    use FlowControl::*;
    let mut unknown = Flags::ALL;
    // As `reads_first` does.
    while let Some(effect) = effects::known(code, addr) {
        if effect.flow == Call || effect.reads.any(unknown) {
            return effect.flow != Call;
        }
        unknown = unknown.without(effect.kills);
        if unknown.is_empty()
            || matches!(effect.flow, UnconditionalBranch | IndirectBranch | Return)
        {
            return false;
        }
        addr += effect.length;
    }
    let mut at = Some(addr);
    let rest = std::iter::from_fn(|| {
        let addr = at?;
        let (form, length) = match skim(code, addr) {
            Some(skimmed) => (skimmed.code, skimmed.length),
            None => {
                let mut ins = Instruction::default();
                fetch(code, addr, &mut ins).then_some((ins.code(), ins.len()))?
            }
        };
        at = goes_on(form).then_some(addr + length as u64);
        Some((form, at.is_some()))
    });
    reads_first(rest, unknown)
}

/// Whether straight-line code reads a flag before writing it: its instructions, and whether it goes on behind them.
/// Some have perhaps been written already: only those that are `unknown` count.
fn reads_first(instructions: impl IntoIterator<Item = (Code, bool)>, mut unknown: Flags) -> bool {
    for (code, goes_on) in instructions {
        // Behind a call that does not come back stands HLT or UD2: that is no reader. A division is
        // one for the sake of its fault alone: whoever can look at that has flags exact over returns.
        let flow = code.flow_control();
        let ends =
            matches!(flow, FlowControl::Call | FlowControl::Exception | FlowControl::Interrupt)
                || matches!(code.mnemonic(), Mnemonic::Hlt | Mnemonic::Div | Mnemonic::Idiv);
        let entry = table::entry_of(code);
        if entry.lower.is_none() || ends {
            return false;
        }
        if entry.reads.any(unknown) {
            return true;
        }
        unknown = unknown.without(entry.writes);
        if unknown.is_empty() || !goes_on {
            return false;
        }
    }
    false
}

/// Whether the instruction only sets its destination register to zero (XOR r, r or SUB r, r).
pub fn is_zero_idiom(ins: &Instruction) -> bool {
    use iced_x86::{Mnemonic, OpKind};
    matches!(ins.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
        && ins.op0_kind() == OpKind::Register
        && ins.op1_kind() == OpKind::Register
        && ins.op0_register() == ins.op1_register()
}
