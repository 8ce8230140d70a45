//! What an instruction does to the flags, and how it goes on: all that a look at the code ahead wants to know of it.
//!
//! Most code is made of few opcodes. What one of those does is kept, so that of the next such instruction only the
//! length is to be found out.

use crate::decode::{self, Skimmed};
use crate::fault_flags::may_fault;
use crate::flags::Flags;
use crate::lower::table;
use crate::region::{CodeReader, direct_target, fetch, skim, window};
use iced_x86::{FlowControl, Instruction};
use std::sync::atomic::{AtomicU32, Ordering};

/// What an instruction does to the flags, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Flags that it reads.
    pub reads: Flags,
    /// Flags whose old values are gone behind it.
    pub kills: Flags,
    /// Where a fault can be looked at: whether it may have one.
    pub may_fault: bool,
    /// In bytes.
    pub length: u64,
    /// How it goes on.
    pub flow: FlowControl,
    /// Where it goes, if it is a direct branch or call.
    pub target: Option<u64>,
}

impl Effect {
    /// That of the instruction at `addr`, of which nothing is [known] yet; None if there is none.
    #[inline(never)]
    pub fn look_up(code: &CodeReader, addr: u64, flags_live_at_fault: bool) -> Option<Self> {
        if !flags_live_at_fault
            && let Some(skimmed) = skim(code, addr)
            && let entry = table::entry_of(skimmed.code)
            && entry.may_keep.is_none()
        {
            let effect = Effect {
                reads: entry.reads,
                kills: entry.writes,
                may_fault: false,
                length: skimmed.length as u64,
                flow: skimmed.code.flow_control(),
                target: skimmed.target,
            };
            if let Some(bytes) = window(code, addr) {
                keep(bytes, &effect, &skimmed);
            }
            return Some(effect);
        }
        let mut ins = Instruction::default();
        if !fetch(code, addr, &mut ins) {
            return None;
        }
        let entry = table::entry(&ins);
        Some(Effect {
            reads: entry.reads,
            kills: entry.kills(&ins),
            may_fault: flags_live_at_fault && may_fault(&ins),
            length: ins.len() as u64,
            flow: ins.flow_control(),
            target: direct_target(&ins),
        })
    }
}

/// The effects of opcodes that have been asked for, by [`Key::place`]. Each is in the bits of one word, so that all threads
/// may use it: flags that are read, from [`KILLS`] on those whose old values are gone, then how it goes on, and how long its
/// immediate is, in bytes. 0: nothing.
static KNOWN: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];

const KILLS: u32 = 6;
const FLOW: u32 = 12;
const IMMEDIATE: u32 = 16;
const MODRM: u32 = 1 << 20;
const BRANCH: u32 = 1 << 21;
const IS_KEPT: u32 = 1 << 31;

/// In the order of their numbers.
const FLOWS: [FlowControl; 16] = {
    use FlowControl::*;
    let mut flows = [Next; 16];
    let all = [
        Next,
        UnconditionalBranch,
        IndirectBranch,
        ConditionalBranch,
        Return,
        Call,
        IndirectCall,
        Interrupt,
        XbeginXabortXend,
        Exception,
    ];
    let mut i = 0;
    while i < all.len() {
        flows[all[i] as usize] = all[i];
        i += 1;
    }
    flows
};

/// Opcodes of one byte whose effects are kept: one bit for each (Intel SDM vol. 2, A.3). Left out are prefixes, x87, what
/// is not there in 64-bit mode, and groups in which a register and memory are not the same.
const ONE_BYTE: [u64; 4] = [
    // ADD to CMP.
    0x3f3f_3f3f_3f3f_3f3f,
    // PUSH and POP, MOVSXD, PUSH and IMUL with a constant, conditional branches.
    0xffff_0f08_ffff_0000,
    // Immediate group 1, TEST, MOV, LEA, XCHG, CBW and CWD, TEST with a constant, MOV of a constant.
    0xffff_0300_03ff_2ffb,
    // RET, MOV of a constant, CALL, JMP; groups 3 to 5.
    0xc0c0_0b00_0000_00c8,
];

/// The same of the opcodes behind 0F: CMOVcc, Jcc, SETcc, IMUL, MOVZX, MOVSX.
const TWO_BYTES: [u64; 4] = [0, 0xffff, 0xc0c0_8000_ffff_ffff, 0];

/// What is known of the instruction at `addr`: nothing of what is not implemented, of HLT, and of divisions.
#[inline(always)]
pub fn known(code: &CodeReader, addr: u64) -> Option<Effect> {
    let key = Key::of(window(code, addr)?);
    let kept = KNOWN[key.place & (PLACES - 1)].load(Ordering::Relaxed);
    if kept == 0 {
        return None;
    }
    let immediate = kept >> IMMEDIATE & 15;
    let mut length = key.length + u64::from(immediate);
    if kept & MODRM != 0 {
        length += 1 + decode::address_length(key.rest as u8, (key.rest >> 8) as u8) as u64;
    }
    let target = (kept & BRANCH != 0).then(|| {
        let unused = 64 - 8 * immediate;
        let distance = (key.rest << unused) as i64 >> unused;
        addr.wrapping_add(length).wrapping_add(distance as u64)
    });
    let (reads, kills) = (Flags(kept as u8), Flags((kept >> KILLS) as u8));
    let (reads, kills) = (reads.and(Flags::ALL), kills.and(Flags::ALL));
    let flow = FLOWS[(kept >> FLOW & 15) as usize];
    Some(Effect { reads, kills, may_fault: false, length, flow, target })
}

/// Keeps what has been found, if it is the same for all instructions with that opcode.
fn keep(bytes: &[u8; decode::WINDOW], effect: &Effect, skimmed: &Skimmed) {
    let key = Key::of(bytes);
    if !key.is_kept() || table::entry_of(skimmed.code).lower.is_none() {
        return;
    }
    let mut kept = u32::from(effect.reads.0) | u32::from(effect.kills.0) << KILLS;
    kept |= (effect.flow as u32) << FLOW | u32::from(skimmed.immediate) << IMMEDIATE | IS_KEPT;
    if skimmed.has_modrm {
        kept |= MODRM;
    }
    if effect.target.is_some() {
        kept |= BRANCH;
    }
    KNOWN[key.place & (PLACES - 1)].store(kept, Ordering::Relaxed);
}

/// So many places there are: opcodes of two maps, with and without REX.W, and eight groups.
const PLACES: usize = 1 << 13;

/// The start of an instruction without prefixes but REX.
struct Key {
    /// Opcode, and the field of its ModRM byte that may be a part of that.
    place: usize,
    /// ModRM byte, if it has one, and what follows.
    rest: u64,
    /// Bytes in front of that.
    length: u64,
}

impl Key {
    #[inline(always)]
    fn of(bytes: &[u8; decode::WINDOW]) -> Self {
        let mut rest = u64::from_le_bytes(*bytes.first_chunk().expect("it is longer"));
        let mut length = 1;
        let mut wide = 0;
        if rest & 0xf0 == 0x40 {
            wide = rest >> 3 & 1;
            rest >>= 8;
            length += 1;
        }
        let mut map = 0;
        if rest & 0xff == 0x0f {
            map = 1;
            rest >>= 8;
            length += 1;
        }
        let (opcode, group) = (rest & 0xff, rest >> 11 & 7);
        Key {
            place: (map << 12 | wide << 11 | opcode << 3 | group) as usize,
            rest: rest >> 8,
            length,
        }
    }

    fn is_kept(&self) -> bool {
        let (opcode, group) = (self.place >> 3 & 0xff, self.place & 7);
        let kept = if self.place >> 12 == 0 { &ONE_BYTE } else { &TWO_BYTES };
        // Of group 3 not the divisions, of group 5 not the far ones, of group 11 not XBEGIN and XABORT.
        let odd = self.place >> 12 == 0
            && match opcode {
                0xf6 | 0xf7 => group >= 6,
                0xff => group % 2 == 1,
                0xc6 | 0xc7 => group != 0,
                _ => false,
            };
        kept[opcode / 64] >> (opcode % 64) & 1 != 0 && !odd
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::GuestMemory;

    /// Everything is executable.
    struct Open;

    impl GuestMemory for Open {
        fn executable_from(&self, _addr: u64) -> u64 {
            4096
        }
        fn watch(&self, _start: u64, _end: u64) {}
    }

    fn looked_up(bytes: &[u8; 64]) -> Option<Effect> {
        Effect::look_up(&CodeReader::new(&Open), bytes.as_ptr() as u64, false)
    }

    fn told(bytes: &[u8; 64]) -> Option<Effect> {
        known(&CodeReader::new(&Open), bytes.as_ptr() as u64)
    }

    /// An emulator is too slow for every ModRM byte.
    const STEP: usize = if cfg!(target_arch = "aarch64") { 7 } else { 1 };

    #[test]
    fn what_is_known_of_an_opcode_holds_for_all_its_instructions() {
        let mut found = 0;
        for start in [&[][..], &[0x48], &[0x41], &[0x0f], &[0x4c, 0x0f], &[0x66], &[0xf0]] {
            for opcode in 0..=255u8 {
                for modrm in (0..256).step_by(STEP) {
                    let mut bytes = [0x25u8; 64];
                    bytes[..start.len()].copy_from_slice(start);
                    bytes[start.len()] = opcode;
                    bytes[start.len() + 1] = modrm as u8;
                    bytes[start.len() + 2] ^= (modrm as u8).wrapping_mul(7);
                    // What is told now is of another instruction with this opcode, if of any.
                    let told = told(&bytes);
                    let all = looked_up(&bytes);
                    let form = decode::decode(&bytes, 0).code();
                    if told.is_some() && form != iced_x86::Code::INVALID {
                        assert_eq!(told, all, "{:02x?}", &bytes[..8]);
                        found += 1;
                    }
                }
            }
        }
        assert!(found > 50_000 / STEP, "{found}");
    }

    #[test]
    fn divisions_and_halts_are_not_known() {
        for start in [&[0xf7, 0xf1][..], &[0x48, 0xf7, 0xf9], &[0xf4], &[0x0f, 0x0b], &[0x0f, 0x05]]
        {
            let mut bytes = [0x90u8; 64];
            bytes[..start.len()].copy_from_slice(start);
            assert!(looked_up(&bytes).is_some());
            assert_eq!(told(&bytes), None, "{start:02x?}");
        }
    }
}
