//! Leaves: small functions that call none and write no memory. For calls there is a second copy of such a region behind it,
//! whose return is RET alone.
//!
//! Between the call and the return nothing but the leaf's own code has run, so the return address on the guest's stack is
//! the one that the call put there, and x30 the one that belongs to it: neither is looked up again, and the shadow
//! stack has no part in it. Another thread may write to the guest's stack meanwhile. It does not see, and so cannot
//! rely on, when the return reads it, unless the leaf reads memory and memory is ordered: such a leaf has no copy. Nor does
//! a handler of a signal come between: it waits for the end of the region, and what leaves earlier, a fault, does not come
//! back into the copy.

use super::control::TARGET;
use super::late::accesses_memory;
use super::{LR, Lower};
use crate::asm::{Label, R, Width};
use crate::cache::Entry;
use crate::region::{Insn, Next};
use crate::tramp::Trampoline;
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

/// More instructions are not copied.
const LONGEST: usize = 16;
/// Compilers align functions so, and not much else.
const ALIGNMENT: u64 = 16;

/// Bytes in front of the entry.
const FRONT: u32 = 4;

const RSP: R = R(4);

/// Whether the instruction may write memory or RSP.
fn may_write(ins: &Instruction) -> bool {
    let reads_only = matches!(ins.mnemonic(), M::Cmp | M::Test | M::Nop);
    let operand = |i| match ins.op_kind(i) {
        OpKind::Register => ins.op_register(i).full_register() == Register::RSP,
        OpKind::Memory => i == 0 && !reads_only,
        // String instructions and the like.
        kind => !is_immediate(kind),
    };
    ins.stack_pointer_increment() != 0
        || ins.mnemonic() == M::Leave
        || (0..ins.op_count()).any(operand)
}

fn is_immediate(kind: OpKind) -> bool {
    use OpKind::*;
    matches!(
        kind,
        Immediate8
            | Immediate8_2nd
            | Immediate16
            | Immediate32
            | Immediate64
            | Immediate8to16
            | Immediate8to32
            | Immediate8to64
            | Immediate32to64
    )
}

/// Whether an emitted instruction may write a register, by its encoding (Arm ARM C4.1): it does not if none of its fields for
/// destinations says so.
fn sets(word: u32, register: R) -> bool {
    let field = |low: u32| word >> low & 31 == register.n();
    match word >> 25 & 15 {
        // Branches, exceptions, system registers.
        0b1010 | 0b1011 => {
            let links = word & 0xfc00_0000 == 0x9400_0000 || word & 0xffff_fc1f == 0xd63f_0000;
            let system = word >> 22 == 0x354;
            links && register == LR || system && field(0)
        }
        // Loads and stores: one of two, a status, a base.
        op if op & 0b0101 == 0b0100 => field(0) || field(5) || field(10) || field(16),
        _ => field(0),
    }
}

impl Lower<'_> {
    fn is_leaf(&self) -> bool {
        let insns = &self.region.insns;
        let [before @ .., last] = &insns[..] else { return false };
        let plain = |insn: &Insn| {
            insn.next == Next::Inside && insn.target.is_none() && !may_write(&insn.ins)
        };
        let reads = |insn: &Insn| accesses_memory(&insn.ins);
        last.ins.code() == Code::Retnq
            && insns.len() <= LONGEST
            && self.region.entry.is_multiple_of(ALIGNMENT)
            && before.iter().all(plain)
            && !(self.ordered() && before.iter().any(reads))
    }

    /// Behind the region: its copy for calls, if it is a leaf. The word in front of the entry then says how far that is behind
    /// the entry, see [`crate::cache::call_entry`].
    #[inline(always)]
    pub fn leaf_for_calls(&mut self) {
        let ends_in_return = |insn: &Insn| insn.ins.code() == Code::Retnq;
        if self.region.insns.last().is_some_and(ends_in_return) && self.is_leaf() {
            self.copy_for_calls();
        }
    }

    fn copy_for_calls(&mut self) {
        let from = self.a.pos();
        self.a.here();
        let fixes = self.fixes();
        let stop = self.a.label();
        self.carries = true;
        self.leaf_stop = Some(stop);
        self.out.leaf_return = Some((self.region.insns.len() - 1, stop));
        self.flags = super::FlagState::CANONICAL;
        self.far = None;
        self.instructions();
        self.leaf_stop = None;
        let keeps = self.a.code()[from as usize / 4..].iter().all(|&word| !sets(word, LR));
        if keeps && self.fixes() == fixes {
            self.a.set_word(0, (from - FRONT) / 4);
            self.out.entries.push(Entry { at: from, guest: 0 });
        }
    }

    /// How many pieces of code behind the region come back into it.
    fn fixes(&self) -> usize {
        self.out.nan_fixes.len() + self.out.indefinites.len()
    }

    /// A leaf's return, for calls.
    pub fn leaf_return(&mut self, stop: Label) {
        self.a.add_imm(Width::X, RSP, RSP, 8);
        self.indirect_site(stop);
        self.a.ret(LR);
    }

    /// Where it goes to stop: the address that it would have popped goes to the dispatcher.
    pub fn emit_leaf_stop(&mut self, index: usize, stop: Label) {
        self.index = index;
        self.a.bind(stop);
        self.a.sub_imm(Width::X, RSP, RSP, 8);
        self.mark();
        self.pop_value(TARGET, 8);
        self.a.b_trampoline(Trampoline::Indirect, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::IcedError;
    use iced_x86::code_asm::*;

    #[test]
    fn what_writes_x30_is_recognized() {
        const SETS: &[u32] = &[
            0x9400_0001, // bl
            0xd63f_0220, // blr x17
            0x1000_001e, // adr x30
            0xaa10_03fe, // mov x30, x16
            0xf940_001e, // ldr x30, [x0]
            0xa8c1_7b71, // ldp x17, x30, [x27], #16
            0xf840_87c0, // ldr x0, [x30], #8
            0xd53b_421e, // mrs x30, nzcv
            0x9e66_001e, // fmov x30, d0
            0xc81e_7c00, // stxr w30, x0, [x0]
        ];
        const LEAVES: &[u32] = &[
            0x7980_00e0, // ldrsh w0, [x7]
            0x4b02_0000, // sub w0, w0, w2
            0xb400_03c0, // cbz x0
            0x5400_03c1, // b.ne
            0x1400_001e, // b
            0xd65f_03c0, // ret
            0xd61f_03c0, // br x30
            0x9100_2084, // add x4, x4, #8
            0xd503_3bbf, // dmb ish
            0xd51b_4200, // msr nzcv, x0
        ];
        for &word in SETS {
            assert!(sets(word, LR), "{word:#x}");
        }
        for &word in LEAVES {
            assert!(!sets(word, LR), "{word:#x}");
        }
    }

    #[test]
    fn what_writes_memory_or_the_stack_pointer_is_recognized() {
        type Build = fn(&mut CodeAssembler) -> Result<(), IcedError>;
        let may = |build: Build| {
            let mut a = CodeAssembler::new(64).expect("64-bit");
            build(&mut a).expect("encodable");
            may_write(&a.instructions()[0])
        };
        const WRITE: &[Build] = &[
            |a| a.mov(ptr(rdi), rax),
            |a| a.push(rax),
            |a| a.pop(rax),
            |a| a.leave(),
            |a| a.enter(8, 0),
            |a| a.mov(rsp, rax),
            |a| a.add(esp, 8),
            |a| a.xchg(rax, rsp),
            |a| a.xchg(qword_ptr(rdi), rax),
            |a| a.stosb(),
            |a| a.movsb(),
            |a| a.maskmovdqu(xmm0, xmm1),
            |a| a.fstp(qword_ptr(rdi)),
            |a| a.fxsave(ptr(rdi)),
            |a| a.pushfq(),
        ];
        const READ: &[Build] = &[
            |a| a.mov(rax, ptr(rsp + 8)),
            |a| a.cmp(qword_ptr(rdi), rax),
            |a| a.cmp(qword_ptr(rdi), 1),
            |a| a.test(dword_ptr(rdi), 1),
            |a| a.imul_3(rax, qword_ptr(rdi), 9),
            |a| a.lea(rax, ptr(rdi)),
            |a| a.shl(rax, 4),
            |a| a.movdqu(xmm0, ptr(rdi)),
            |a| a.nop(),
        ];
        for (i, &build) in WRITE.iter().enumerate() {
            assert!(may(build), "{i}");
        }
        for (i, &build) in READ.iter().enumerate() {
            assert!(!may(build), "{i}");
        }
    }
}
