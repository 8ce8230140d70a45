//! Classic BPF as seccomp(2) takes it: which programs it accepts (bpf_check_classic in net/core/filter.c,
//! seccomp_check_filter in kernel/seccomp.c), and what they give for a system call.

use crate::abi::{errno, layout};
use crate::host::Errno;

/// BPF_MAXINSNS.
pub const MAX_LENGTH: usize = 4096;

/// BPF_MEMWORDS.
const MEMORY: usize = 16;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}
layout!(Instruction, 8, jt @ 2, jf @ 3, k @ 4);

impl Instruction {
    /// A statement.
    pub const fn new(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    /// A conditional jump.
    pub const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Self {
        Self { code, jt, jf, k }
    }
}

/// `struct seccomp_data`: what a program looks at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Data {
    pub nr: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}
layout!(Data, 64, arch @ 4, instruction_pointer @ 8, args @ 16);

impl Data {
    /// The word that BPF_LD | BPF_W | BPF_ABS loads from an offset.
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64| (value >> (8 * (offset & 4))) as u32;
        match offset {
            0 => self.nr as u32,
            4 => self.arch,
            8 | 12 => half(self.instruction_pointer),
            _ => half(self.args[(offset as usize - 16) / 8]),
        }
    }
}

/// Codes of instructions (linux/bpf_common.h): class, size or operation, mode or source.
#[allow(missing_docs)]
pub mod code {
    pub const LD_IMM: u16 = 0x00;
    pub const LD_ABS: u16 = 0x20;
    pub const LD_MEM: u16 = 0x60;
    pub const LD_LEN: u16 = 0x80;
    pub const LDX_IMM: u16 = 0x01;
    pub const LDX_MEM: u16 = 0x61;
    pub const LDX_LEN: u16 = 0x81;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    /// Class of arithmetic; the operation is added, and `X` when the second operand is that register.
    pub const ALU: u16 = 0x04;
    pub const ADD: u16 = 0x00;
    pub const SUB: u16 = 0x10;
    pub const MUL: u16 = 0x20;
    pub const DIV: u16 = 0x30;
    pub const OR: u16 = 0x40;
    pub const AND: u16 = 0x50;
    pub const LSH: u16 = 0x60;
    pub const RSH: u16 = 0x70;
    pub const XOR: u16 = 0xa0;
    pub const X: u16 = 0x08;
    pub const ALU_NEG: u16 = 0x84;
    /// Class of jumps; the condition is added, and `X`.
    pub const JMP: u16 = 0x05;
    pub const JEQ: u16 = 0x10;
    pub const JGT: u16 = 0x20;
    pub const JGE: u16 = 0x30;
    pub const JSET: u16 = 0x40;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
}
use code::*;

/// Class, and operation, of an instruction.
const CLASS: u16 = 0x07;
const OPERATION: u16 = 0xf0;

/// A program that the kernel would accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Box<[Instruction]>);

impl Program {
    /// Checks a program. EINVAL if it is none.
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, Errno> {
        let length = instructions.len();
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(errno::EINVAL);
        }
        let known = |(at, ins): (usize, &Instruction)| is_valid(ins, length - at - 1);
        let ends = matches!(instructions[length - 1].code, RET_K | RET_A);
        if !ends || !instructions.iter().enumerate().all(known) || !writes_first(&instructions) {
            return Err(errno::EINVAL);
        }
        Ok(Self(instructions.into()))
    }

    /// The instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// What the program returns for a system call.
    pub fn run(&self, data: &Data) -> u32 {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY]);
        let mut at = 0;
        loop {
            let ins = self.0[at];
            at += 1;
            let operand = if ins.code & X != 0 { x } else { ins.k };
            match ins.code {
                RET_K => return ins.k,
                RET_A => return a,
                LD_ABS => a = data.word(ins.k),
                LD_IMM => a = ins.k,
                LD_MEM => a = memory[ins.k as usize],
                LD_LEN => a = size_of::<Data>() as u32,
                LDX_IMM => x = ins.k,
                LDX_MEM => x = memory[ins.k as usize],
                LDX_LEN => x = size_of::<Data>() as u32,
                ST => memory[ins.k as usize] = a,
                STX => memory[ins.k as usize] = x,
                TAX => x = a,
                TXA => a = x,
                JMP => at += ins.k as usize,
                ALU_NEG => a = a.wrapping_neg(),
                code if code & CLASS == ALU => match compute(code, a, operand) {
                    Some(result) => a = result,
                    // A division by zero ends the program (bpf_convert_filter).
                    None => return 0,
                },
                code => at += usize::from(if holds(code, a, operand) { ins.jt } else { ins.jf }),
            }
        }
    }
}

/// Arithmetic; none for a division by zero.
fn compute(code: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match code & OPERATION {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => return a.checked_div(operand),
        OR => a | operand,
        AND => a & operand,
        LSH => a.wrapping_shl(operand),
        RSH => a.wrapping_shr(operand),
        _ => a ^ operand,
    })
}

/// The condition of a jump.
fn holds(code: u16, a: u32, operand: u32) -> bool {
    match code & OPERATION {
        JEQ => a == operand,
        JGT => a > operand,
        JGE => a >= operand,
        _ => a & operand != 0,
    }
}

/// Whether an instruction that has `behind` others behind it is one for seccomp(2).
fn is_valid(ins: &Instruction, behind: usize) -> bool {
    let from_x = ins.code & X != 0;
    match ins.code {
        LD_ABS => (ins.k as usize) < size_of::<Data>() && ins.k.is_multiple_of(4),
        LD_MEM | LDX_MEM | ST | STX => (ins.k as usize) < MEMORY,
        RET_K | RET_A | LD_IMM | LDX_IMM | LD_LEN | LDX_LEN | TAX | TXA | ALU_NEG => true,
        JMP => (ins.k as usize) < behind,
        code => match (code & CLASS, code & !(CLASS | X)) {
            (ALU, DIV) => from_x || ins.k != 0,
            (ALU, LSH | RSH) => from_x || ins.k < 32,
            // BPF_MOD is none of seccomp(2)'s.
            (ALU, ADD | SUB | MUL | OR | AND | XOR) => true,
            (JMP, JEQ | JGT | JGE | JSET) => usize::from(ins.jt.max(ins.jf)) < behind,
            _ => false,
        },
    }
}

/// Whether no word of the scratch memory is read before it was written, on any way (check_load_and_stores). Jumps
/// lead into the program.
fn writes_first(instructions: &[Instruction]) -> bool {
    let mut written_at = vec![u16::MAX; instructions.len()];
    let mut written = 0u16;
    for (at, ins) in instructions.iter().enumerate() {
        written &= written_at[at];
        match ins.code {
            ST | STX => written |= 1 << ins.k,
            LD_MEM | LDX_MEM if written >> ins.k & 1 == 0 => return false,
            JMP => {
                written_at[at + 1 + ins.k as usize] &= written;
                written = u16::MAX;
            }
            code if code & CLASS == JMP => {
                written_at[at + 1 + usize::from(ins.jt)] &= written;
                written_at[at + 1 + usize::from(ins.jf)] &= written;
                written = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATA: Data = Data {
        nr: 39,
        arch: 0xc000_003e,
        instruction_pointer: 0x7fff_1234_5678,
        args: [0x1111_2222_3333_4444, 1, 2, 3, 4, 0xffff_ffff_ffff_fff0],
    };

    fn run(instructions: &[(u16, u32)]) -> u32 {
        let list = instructions.iter().map(|&(code, k)| Instruction::new(code, k)).collect();
        Program::new(list).unwrap().run(&DATA)
    }

    #[test]
    fn loads_see_every_word() {
        for (offset, value) in [
            (0, 39),
            (4, 0xc000_003e),
            (8, 0x1234_5678),
            (12, 0x7fff),
            (16, 0x3333_4444),
            (20, 0x1111_2222),
        ] {
            assert_eq!(run(&[(LD_ABS, offset), (RET_A, 0)]), value, "offset {offset}");
        }
        assert_eq!(run(&[(LD_ABS, 56), (RET_A, 0)]), 0xffff_fff0);
        assert_eq!(run(&[(LD_LEN, 0), (RET_A, 0)]), 64);
    }

    #[test]
    fn arithmetic_wraps_and_divides() {
        let alu = |op, a, b| run(&[(LDX_IMM, b), (LD_IMM, a), (ALU | op | X, 0), (RET_A, 0)]);
        assert_eq!(alu(ADD, u32::MAX, 2), 1);
        assert_eq!(alu(SUB, 1, 2), u32::MAX);
        assert_eq!(alu(DIV, 7, 2), 3);
        assert_eq!(alu(LSH, 1, 33), 2);
        assert_eq!(run(&[(LD_IMM, 5), (ALU_NEG, 0), (RET_A, 0)]), 5u32.wrapping_neg());
        // A division by zero is the end, with 0.
        assert_eq!(run(&[(LDX_IMM, 0), (LD_IMM, 9), (ALU | DIV | X, 0), (RET_K, 7)]), 0);
    }

    #[test]
    fn what_is_no_program() {
        let ret = Instruction::new(RET_K, 0);
        let bad = |first: Instruction| Program::new(vec![first, ret]) == Err(errno::EINVAL);
        assert_eq!(Program::new(vec![]), Err(errno::EINVAL));
        assert_eq!(Program::new(vec![ret; 4097]), Err(errno::EINVAL));
        assert_eq!(Program::new(vec![Instruction::new(LD_IMM, 0)]), Err(errno::EINVAL));
        for (code, k) in [
            (LD_ABS, 64),
            (LD_ABS, 2),
            (0x28, 0), // BPF_LD | BPF_H | BPF_ABS
            (0x40, 0), // BPF_LD | BPF_W | BPF_IND
            (0x94, 3), // BPF_ALU | BPF_MOD | BPF_K
            (0x8c, 0), // BPF_ALU | BPF_NEG | BPF_X
            (ALU | DIV, 0),
            (ALU | LSH, 32),
            (ST, 16),
            (LD_MEM, 0),
            (JMP, 1),
            (0x0e, 0), // BPF_RET | BPF_X
            (0x100, 0),
        ] {
            assert!(bad(Instruction::new(code, k)), "{code:#x} {k}");
        }
        assert!(bad(Instruction::jump(JMP | JEQ, 0, 1, 0)));
        assert!(bad(Instruction::jump(JMP | JEQ, 0, 0, 1)));
        assert!(!bad(Instruction::new(JMP, 0)));
    }

    #[test]
    fn memory_is_written_on_every_way() {
        let program = |jt| {
            Program::new(vec![
                Instruction::jump(JMP | JEQ, 0, jt, 0),
                Instruction::new(ST, 3),
                Instruction::new(LD_MEM, 3),
                Instruction::new(RET_A, 0),
            ])
        };
        assert!(program(0).is_ok());
        assert_eq!(program(1), Err(errno::EINVAL));
    }

    /// Instructions of all kinds, most of them good ones.
    pub fn instruction() -> impl Strategy<Value = Instruction> {
        let codes: Vec<u16> = (0..0x100)
            .filter(|&code| {
                let ins = Instruction::new(code, 1);
                is_valid(&ins, 10) || is_valid(&Instruction { k: 4, ..ins }, 10)
            })
            .collect();
        let code = prop_oneof![40 => prop::sample::select(codes), 1 => 0u16..0x110];
        let k = prop_oneof![4 => 0u32..16, 2 => (0u32..17).prop_map(|word| word * 4), 1 => any::<u32>()];
        (code, 0u8..4, 0u8..4, k).prop_map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
    }

    /// Programs, nearly all of which end as they must.
    pub fn program() -> impl Strategy<Value = Vec<Instruction>> {
        let last = prop_oneof![
            10 => Just(Instruction::new(RET_A, 0)),
            1 => instruction(),
        ];
        (prop::collection::vec(instruction(), 0..12), last).prop_map(|(mut list, last)| {
            list.push(last);
            list
        })
    }

    proptest! {
        #[test]
        fn what_is_accepted_ends(list in program(), nr: i32, ip: u64, args: [u64; 6]) {
            if let Ok(program) = Program::new(list) {
                program.run(&Data { nr, arch: 0xc000_003e, instruction_pointer: ip, args });
            }
        }
    }
}

/// The kernel of an x86_64 machine as the reference.
#[cfg(all(test, target_arch = "x86_64"))]
mod reference {
    use super::tests::{instruction, program};
    use super::*;
    use proptest::prelude::*;

    /// `struct sock_fprog`.
    #[repr(C)]
    struct Listing {
        length: u16,
        first: *const Instruction,
    }

    /// What a child gets for installing a program: an error number, or 0.
    fn install(list: &[Instruction]) -> i32 {
        let listing = Listing { length: list.len() as u16, first: list.as_ptr() };
        // SAFETY: prctl(2) and seccomp(2) read the structures given; the process is a child of its own.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            match libc::syscall(libc::SYS_seccomp, 1, 0, &raw const listing) {
                0 => 0,
                _ => *libc::__errno_location(),
            }
        }
    }

    /// Runs `body` in a child; its exit status.
    fn in_child(body: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child calls nothing but what `body` does, which allocates nothing, and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(body());
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -libc::WTERMSIG(status)
            }
        }
    }

    /// A program that answers one system call, whose number nothing has, and lets all others through: the answer is
    /// an error number made of what `list` leaves in A.
    fn answering(list: &[Instruction], number: u32) -> Vec<Instruction> {
        const ERRNO: u32 = 0x0005_0000;
        let mut all = vec![
            Instruction::new(LD_ABS, 0),
            Instruction::jump(JMP | JEQ, number, 1, 0),
            Instruction::new(RET_K, 0x7fff_0000),
            Instruction::new(LD_IMM, 0),
        ];
        all.extend_from_slice(list);
        // 11 bits of A, and never 0: no bit is without effect on them.
        let mix = [
            Instruction::new(TAX, 0),
            Instruction::new(ALU | RSH, 11),
            Instruction::new(ALU | XOR | X, 0),
            Instruction::new(TAX, 0),
            Instruction::new(ALU | RSH, 22),
            Instruction::new(ALU | XOR | X, 0),
            Instruction::new(ALU | AND, 0x7ff),
            Instruction::new(ALU | OR, ERRNO | 0x400),
            Instruction::new(RET_A, 0),
        ];
        all.extend(mix);
        all
    }

    const NUMBER: u32 = 7777;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn the_same_programs_are_accepted(list in program()) {
            let here = Program::new(list.clone()).map_or_else(|error| error.0, |_| 0);
            // An accepted program may end the child at its next call.
            let there = in_child(|| install(&list));
            prop_assert!(there == here || here == 0 && there < 0, "{there} {here}");
        }

        #[test]
        fn and_give_the_same(body in prop::collection::vec(instruction(), 0..10), args: [u64; 6]) {
            let body: Vec<Instruction> = body.into_iter().filter(|ins| ins.code & CLASS != RET_K & CLASS).collect();
            let list = answering(&body, NUMBER);
            let Ok(program) = Program::new(list.clone()) else { return Ok(()) };
            let data = Data { nr: NUMBER as i32, arch: 0xc000_003e, instruction_pointer: 0, args };
            // The address of the call is not ours to choose.
            prop_assume!(!body.iter().any(|ins| ins.code == LD_ABS && matches!(ins.k, 8 | 12)));
            let here = program.run(&data);
            // A jump over the end of the list may make any answer of A.
            prop_assume!(matches!(here >> 16, 0 | 5) && here & 0xffff < 4096);
            let there = in_child(|| {
                if install(&list) != 0 {
                    return 1;
                }
                let [a, b, c, d, e, f] = args;
                // SAFETY: no kernel has a system call of this number.
                unsafe {
                    libc::syscall(i64::from(NUMBER), a, b, c, d, e, f);
                    let errno = *libc::__errno_location() as u32;
                    i32::from(errno != here & 0xffff) * 2
                }
            });
            match here >> 16 {
                // SECCOMP_RET_KILL_THREAD, after a division by zero for one.
                0 => prop_assert_eq!(there, -libc::SIGSYS),
                _ => prop_assert_eq!(there, 0),
            }
        }
    }
}
