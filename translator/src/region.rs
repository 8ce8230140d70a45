//! Finding a region: the guest instructions that are translated together, in address order,
//! joined by their direct branches.
//!
//! Decoding runs straight on from the entry, past conditional branches and calls. It also goes on
//! behind an unconditional end (JMP, RET) at the nearest forward branch target that is still open,
//! so that an if/else and the loop around it become one region. A branch whose target lies in the
//! region is internal, any other leaves it.

use crate::decode::{self, decode};
use crate::engine::GuestMemory;
use crate::flags::Flags;
use std::cell::Cell;

use iced_x86::{FlowControl, Instruction};

/// Most instructions in a region.
pub const MAX_INSTRUCTIONS: usize = 32;
/// How far (in bytes) behind the entry a region may reach.
const MAX_SPAN: u64 = 2048;

/// A guest instruction with what its neighbours need of it.
#[derive(Clone, Copy, Debug)]
pub struct Insn {
    /// The decoded instruction.
    pub ins: Instruction,
    /// Flags that are read after this instruction before they are written again.
    pub live_out: Flags,
    /// Flags that are live before it.
    pub live_in: Flags,
    /// An internal branch goes here: control arrives from more than one place.
    pub join: bool,
    /// For a direct branch inside the region: index of its target.
    pub target: Option<u16>,
    /// For a direct branch or call out of the region: flags live at its target.
    pub live_taken: Flags,
}

/// Instructions of a region in address order.
#[derive(Debug, Default)]
pub struct Region {
    /// Guest address of the entry, which is the first instruction.
    pub entry: u64,
    /// The instructions.
    pub insns: Vec<Insn>,
    open: Vec<u64>,
}

/// How the instruction at an address could be read.
#[derive(Clone, Copy, Debug)]
pub enum Fetch {
    /// Decoded.
    Ok(Instruction),
    /// The bytes are not executable memory.
    Fault,
}

/// Guest code as one translation reads it: what the memory map said of the neighbourhood is kept.
pub struct CodeReader<'a> {
    memory: &'a dyn GuestMemory,
    /// Executable bytes: start and end.
    window: Cell<(u64, u64)>,
}

impl<'a> CodeReader<'a> {
    /// Reads through the memory map.
    pub fn new(memory: &'a dyn GuestMemory) -> Self {
        CodeReader { memory, window: Cell::new((0, 0)) }
    }

    /// How many bytes at `addr` can be fetched; no more than the decoder looks at.
    fn available(&self, addr: u64) -> usize {
        let (start, end) = self.window.get();
        if addr >= start && end.saturating_sub(addr) >= decode::WINDOW as u64 {
            return decode::WINDOW;
        }
        let length = self.memory.executable_from(addr);
        self.window.set((addr, addr + length));
        length.min(decode::WINDOW as u64) as usize
    }
}

/// Decodes the instruction at `addr`. An undefined encoding is `Ok` with `Code::INVALID`.
pub fn fetch(code: &CodeReader, addr: u64) -> Fetch {
    let available = code.available(addr);
    if available == 0 {
        return Fetch::Fault;
    }
    // SAFETY: the memory map says that these bytes are mapped and readable. The guest may change
    // them meanwhile, which is its own race: any bytes decode to something.
    let bytes = unsafe { std::slice::from_raw_parts(addr as *const u8, available) };
    let ins = decode(bytes, addr);
    if ins.is_invalid() && available < decode::LONGEST && ins.len() >= available {
        return Fetch::Fault; // the instruction runs into memory that is not executable
    }
    Fetch::Ok(ins)
}

/// Whether control never goes on to the next instruction.
fn ends_block(ins: &Instruction) -> bool {
    matches!(
        ins.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
            | FlowControl::Interrupt
    ) || ins.is_invalid()
}

/// Whether the region must end behind the instruction because it leaves translated code.
fn leaves_for_good(ins: &Instruction) -> bool {
    use iced_x86::Mnemonic::*;
    matches!(ins.mnemonic(), Syscall | Sysenter | Hlt)
}

/// Address a direct near branch goes to.
pub fn direct_target(ins: &Instruction) -> Option<u64> {
    use iced_x86::OpKind::*;
    matches!(ins.op0_kind(), NearBranch16 | NearBranch32 | NearBranch64)
        .then(|| ins.near_branch_target())
}

impl Region {
    /// Decodes the region at `entry`, at most `max` instructions. Returns false if there is no
    /// executable memory at `entry`.
    pub fn build(&mut self, code: &CodeReader, entry: u64, max: usize) -> bool {
        self.entry = entry;
        self.insns.clear();
        self.open.clear();
        let mut pos = entry;
        while self.insns.len() < max {
            let Fetch::Ok(ins) = fetch(code, pos) else {
                break;
            };
            self.insns.push(Insn {
                ins,
                live_out: Flags::NONE,
                live_in: Flags::NONE,
                join: false,
                target: None,
                live_taken: Flags::NONE,
            });
            if is_jump(&ins)
                && let Some(t) = direct_target(&ins)
                && t > pos
                && t < entry + MAX_SPAN
            {
                self.open.push(t);
            }
            let next = ins.next_ip();
            if leaves_for_good(&ins) || ends_block(&ins) {
                // The nearest forward target that has not been passed.
                match self.open.iter().copied().filter(|&t| t >= next).min() {
                    Some(t) => pos = t,
                    None => break,
                }
            } else {
                pos = next;
            }
        }
        self.resolve_targets();
        !self.insns.is_empty()
    }

    /// Index of the instruction at an address.
    pub fn index_of(&self, addr: u64) -> Option<usize> {
        self.insns.binary_search_by_key(&addr, |i| i.ins.ip()).ok()
    }

    fn resolve_targets(&mut self) {
        for i in 0..self.insns.len() {
            let ins = self.insns[i].ins;
            if !is_jump(&ins) {
                continue;
            }
            if let Some(t) = direct_target(&ins).and_then(|t| self.index_of(t)) {
                self.insns[i].target = Some(t as u16);
                self.insns[t].join = true;
            }
        }
    }

    /// Whether the instruction behind `index` in the list is the one executed next when control
    /// falls through.
    pub fn falls_into_next(&self, index: usize) -> bool {
        let i = &self.insns[index].ins;
        !ends_block(i)
            && !leaves_for_good(i)
            && self.insns.get(index + 1).is_some_and(|n| n.ins.ip() == i.next_ip())
    }

    /// Whether control can go on behind the instruction at all.
    pub fn can_fall_through(&self, index: usize) -> bool {
        !ends_block(&self.insns[index].ins)
    }
}

/// A jump, conditional or not, LOOP and JRCXZ included; not a call.
pub fn is_jump(ins: &Instruction) -> bool {
    matches!(ins.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch)
}
