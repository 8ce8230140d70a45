//! The status flags at a fault, where code that nothing reads them from did not compute them.
//!
//! A handler for a fault sees the flags a processor would show, also those that later code writes
//! again before it reads them. For most of them nothing is emitted: behind `ADD RAX, 8` the flags
//! follow from RAX as long as it stays as it is. [`observable`] walks a region in execution order
//! and knows at each instruction which flags can be derived so; the others count as read by an
//! instruction that may fault, so they are computed. [`derive`] is the other half: at a fault it
//! finds the instructions that defined the flags and computes them from the registers.

use crate::flags::Flags;
use crate::lower::traps::raises_float;
use crate::region::Region;
use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// A set of integer registers, by number.
type Registers = u16;

const ALL_REGISTERS: Registers = 0xffff;
const RAX: Registers = 1 << 0;
const RCX: Registers = 1 << 1;
const RDX: Registers = 1 << 2;
const RBX: Registers = 1 << 3;
const RSP: Registers = 1 << 4;
const RBP: Registers = 1 << 5;
const RSI: Registers = 1 << 6;
const RDI: Registers = 1 << 7;
const RSP_NUMBER: usize = 4;

fn bit(register: Register) -> Registers {
    if register.is_gpr() { 1 << register.full_register().number() } else { 0 }
}

/// Whether an instruction accesses memory, may raise an exception of the x87 or SSE unit, or may be forbidden, so that
/// the guest's handler may see its flags.
pub fn may_fault(ins: &Instruction) -> bool {
    // The kinds of memory operands are the last ones, behind those of registers, branches and immediates.
    let is_memory = |kind: OpKind| kind as u8 >= OpKind::MemorySegSI as u8;
    let memory =
        [ins.op0_kind(), ins.op1_kind(), ins.op2_kind(), ins.op3_kind()].into_iter().any(is_memory);
    memory && !matches!(ins.mnemonic(), M::Lea | M::Nop | M::Reservednop)
        || ins.is_stack_instruction()
        || raises_pending_x87(ins)
        || raises_float(ins)
        || matches!(ins.mnemonic(), M::Rdtsc | M::Rdtscp | M::Xgetbv)
}

/// Whether an instruction belongs to the x87 unit or MMX: a pending exception is raised there.
fn raises_pending_x87(ins: &Instruction) -> bool {
    let mnemonic = ins.mnemonic() as u32;
    (M::F2xm1 as u32..=M::Fyl2xp1 as u32).contains(&mnemonic)
        || ins.mnemonic() == M::Wait
        || (0..ins.op_count()).any(|i| ins.op_register(i).is_mm())
}

/// Registers an instruction may write. RSP's change by a push or pop is not among them, see
/// [`stack_change`].
fn written(ins: &Instruction) -> Registers {
    let first = if ins.op_count() > 0 && ins.op0_kind() == OpKind::Register {
        bit(ins.op0_register())
    } else {
        0
    };
    match ins.mnemonic() {
        M::Cmp | M::Test | M::Bt | M::Push | M::Jmp | M::Nop => 0,
        M::Xchg | M::Xadd | M::Mulx => first | bit(ins.op1_register()),
        M::Cbw | M::Cwde | M::Cdqe | M::Lahf | M::Xlatb => RAX,
        M::Rdtsc | M::Xgetbv | M::Rdmsr | M::Rdpmc => RAX | RDX,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => RAX | RCX | RSI,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => RCX | RDI,
        M::Insb | M::Insw | M::Insd => RCX | RDI,
        M::Outsb | M::Outsw | M::Outsd => RCX | RSI,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => RCX | RDI,
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => first | RCX | RSI | RDI,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => first | RCX | RSI | RDI,
        M::Cwd | M::Cdq | M::Cqo => RDX,
        M::Mul | M::Div | M::Idiv => RAX | RDX,
        M::Imul => first | RAX | RDX,
        M::Cmpxchg | M::Fnstsw => first | RAX,
        M::Cmpxchg8b | M::Cmpxchg16b => RAX | RDX,
        M::Cpuid | M::Rdtscp => RAX | RBX | RCX | RDX,
        M::Leave | M::Enter => RBP | RSP,
        M::Pcmpestri | M::Pcmpestri64 | M::Pcmpistri | M::Loop | M::Loope | M::Loopne => RCX,
        M::Pop => first,
        _ if ins.flow_control() == FlowControl::Next
            || ins.flow_control() == FlowControl::ConditionalBranch =>
        {
            first
        }
        _ => ALL_REGISTERS,
    }
}

/// Whether an instruction may change an integer register.
pub fn changes(ins: &Instruction, register: Register) -> bool {
    written(ins) & bit(register) != 0
}

/// By how much an instruction moves RSP, where that is a constant.
pub fn stack_change(ins: &Instruction) -> i64 {
    match ins.mnemonic() {
        M::Push | M::Pop | M::Pushf | M::Pushfq | M::Popf | M::Popfq => {
            i64::from(ins.stack_pointer_increment())
        }
        _ => 0,
    }
}

/// A definition of flags that can be repeated as long as some registers keep their values.
#[derive(Clone, Copy, Default)]
struct Recipe {
    flags: Flags,
    registers: Registers,
}

fn is_register(ins: &Instruction, op: u32) -> bool {
    ins.op_kind(op) == OpKind::Register
}

fn is_immediate(ins: &Instruction, op: u32) -> bool {
    !matches!(ins.op_kind(op), OpKind::Register | OpKind::Memory)
}

/// The count of a shift or rotate by an immediate, masked; None if it is CL or zero.
fn fixed_count(ins: &Instruction) -> Option<u32> {
    let count = match ins.op1_kind() {
        OpKind::Immediate8 => u32::from(ins.immediate8()),
        _ => return None,
    };
    let masked = count & if ins.op0_register().size() == 8 { 63 } else { 31 };
    (masked != 0).then_some(masked)
}

/// Which flags of an instruction can be derived behind it, and from which registers.
fn recipe(ins: &Instruction) -> Option<Recipe> {
    use Flags as F;
    let count = ins.op_count();
    if count == 0 {
        let constant = matches!(ins.mnemonic(), M::Clc | M::Stc);
        return constant.then_some(Recipe { flags: F::C, registers: 0 });
    }
    let destination = if is_register(ins, 0) { bit(ins.op0_register()) } else { 0 };
    let source = if count > 1 && is_register(ins, 1) { bit(ins.op1_register()) } else { 0 };
    let of_result = |flags| (destination != 0).then_some(Recipe { flags, registers: destination });
    // What is known of the second operand: a register or an immediate.
    let known = count > 1 && (source != 0 || is_immediate(ins, 1));
    match ins.mnemonic() {
        M::Xor | M::Sub if crate::facts::is_zero_idiom(ins) => {
            Some(Recipe { flags: F::ALL, registers: 0 })
        }
        M::And | M::Or | M::Xor => of_result(F::ALL),
        M::Cmp | M::Test if known && destination != 0 => {
            Some(Recipe { flags: F::ALL, registers: destination | source })
        }
        M::Add | M::Sub if known && destination != 0 && source != destination => {
            Some(Recipe { flags: F::ALL, registers: destination | source })
        }
        M::Inc | M::Dec => of_result(F::ALL_BUT_C),
        M::Neg | M::Popcnt | M::Lzcnt | M::Tzcnt | M::Andn => of_result(F::ALL),
        M::Shl | M::Sal | M::Shr if fixed_count(ins).is_some() => {
            of_result(F::ALL.without(F::C.or(F::O)))
        }
        M::Sar if fixed_count(ins).is_some() => of_result(F::ALL.without(F::C)),
        M::Rol | M::Ror if fixed_count(ins).is_some() => of_result(F::C.or(F::O)),
        M::Bt if known && destination != 0 => {
            Some(Recipe { flags: F::ALL.without(F::Z), registers: destination | source })
        }
        M::Bsf | M::Bsr if source != 0 && source != destination => {
            Some(Recipe { flags: F::ALL, registers: source })
        }
        M::Mul => Some(Recipe { flags: F::ALL, registers: RAX | RDX }),
        // The others are undefined.
        M::Imul => Some(Recipe { flags: F::ALL.without(F::C.or(F::O)), registers: 0 }),
        _ => None,
    }
}

/// Which flags can be derived at a point of straight-line code, and what that needs: recipes for different flags.
#[derive(Default)]
struct Sources {
    known: [Recipe; 6],
    count: usize,
}

impl Sources {
    /// Goes past an instruction.
    fn pass(&mut self, ins: &Instruction, writes: Flags, kills: Flags) {
        if self.count > 0 {
            let gone = written(ins);
            self.keep(|recipe| {
                recipe.flags = recipe.flags.without(writes);
                recipe.registers & gone == 0 && !recipe.flags.is_empty()
            });
        }
        if !writes.is_empty()
            && kills == writes
            && let Some(recipe) = recipe(ins)
        {
            self.known[self.count] = Recipe { flags: recipe.flags.and(writes), ..recipe };
            // No two have a flag in common, so there is room for six.
            self.count += usize::from(!self.known[self.count].flags.is_empty());
        }
    }

    /// Drops the recipes that `still_good` does not keep.
    fn keep(&mut self, mut still_good: impl FnMut(&mut Recipe) -> bool) {
        let mut kept = 0;
        for i in 0..self.count {
            let mut recipe = self.known[i];
            if still_good(&mut recipe) {
                self.known[kept] = recipe;
                kept += 1;
            }
        }
        self.count = kept;
    }

    /// The flags that can be derived while none of some registers has changed.
    fn derivable(&self, changing: Registers) -> Flags {
        let known = self.known[..self.count].iter().filter(|r| r.registers & changing == 0);
        known.fold(Flags::NONE, |flags, recipe| flags.or(recipe.flags))
    }
}

/// The flags that each instruction of a region must find computed because it may fault.
pub fn observable(region: &Region) -> Vec<Flags> {
    let mut sources = Sources::default();
    let walk = region.insns.iter().enumerate().map(|(i, insn)| {
        if insn.join || i > 0 && !goes_straight_on(region, i - 1) {
            sources = Sources::default();
        }
        let ins = &insn.ins;
        // A repeated string instruction is left in the middle.
        let changing = if ins.is_string_instruction() { written(ins) } else { 0 };
        let observed = if may_fault(ins) {
            Flags::ALL.without(sources.derivable(changing))
        } else {
            Flags::NONE
        };
        sources.pass(ins, insn.entry.writes, insn.kills);
        observed
    });
    walk.collect()
}

/// Whether control comes to the next instruction from this one only by falling through it, and
/// with the registers as it left them.
pub fn goes_straight_on(region: &Region, index: usize) -> bool {
    region.falls_into_next(index)
        && matches!(
            region.insns[index].ins.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        )
}

/// The flags that an instruction with a [`recipe`] left; the registers that it needs hold what they
/// held behind the instruction.
fn evaluate(ins: &Instruction, gpr: &[u64; 16]) -> Bits {
    let value = |register: Register| {
        let all = gpr[register.full_register().number()];
        match register.size() {
            1 if (Register::AH..=Register::BH).contains(&register) => all >> 8 & 0xff,
            8 => all,
            size => all & ((1 << (8 * size)) - 1),
        }
    };
    let size = ins.op0_register().size() as u32;
    let bits = 8 * size.max(1);
    let mask = u64::MAX >> (64 - bits);
    let result = if is_register(ins, 0) { value(ins.op0_register()) } else { 0 };
    let second = || match ins.op1_kind() {
        OpKind::Register => value(ins.op1_register()),
        _ => ins.immediate(1) & mask,
    };
    let of_result = Bits::of_result(result, bits);
    match ins.mnemonic() {
        M::Clc => Bits { c: false, ..of_result },
        M::Stc => Bits { c: true, ..of_result },
        M::Xor | M::Sub if crate::facts::is_zero_idiom(ins) => Bits::of_result(0, bits),
        M::Test => Bits::of_result(result & second(), bits),
        M::Cmp => Bits::of_difference(result, second(), bits),
        M::Sub => Bits::of_difference(result.wrapping_add(second()) & mask, second(), bits),
        M::Dec => Bits::of_difference(result.wrapping_add(1) & mask, 1, bits),
        M::Neg => Bits::of_difference(0, result.wrapping_neg() & mask, bits),
        M::Add => Bits::of_sum(result.wrapping_sub(second()) & mask, second(), bits),
        M::Inc => Bits::of_sum(result.wrapping_sub(1) & mask, 1, bits),
        // OF is defined for a count of one only, where the sign stays.
        M::Sar => Bits { o: false, ..of_result },
        M::Rol => {
            let c = result & 1 != 0;
            Bits { c, o: c != (result >> (bits - 1) & 1 != 0), ..of_result }
        }
        M::Ror => {
            let c = result >> (bits - 1) & 1 != 0;
            Bits { c, o: c != (result >> (bits - 2) & 1 != 0), ..of_result }
        }
        M::Bt => Bits { c: result >> (second() & u64::from(bits - 1)) & 1 != 0, ..of_result },
        M::Bsf | M::Bsr => Bits { z: second() == 0, ..of_result },
        M::Popcnt => Bits { p: false, s: false, ..of_result },
        M::Lzcnt | M::Tzcnt => Bits { c: result == u64::from(bits), ..of_result },
        M::Mul => of_product(ins, gpr),
        _ => of_result,
    }
}

/// MUL: CF and OF tell whether the high half is zero.
fn of_product(ins: &Instruction, gpr: &[u64; 16]) -> Bits {
    let size = match ins.op0_kind() {
        OpKind::Register => ins.op0_register().size(),
        _ => ins.memory_size().size(),
    };
    let high = match size {
        1 => gpr[0] >> 8 & 0xff,
        8 => gpr[2],
        size => gpr[2] & ((1 << (8 * size)) - 1),
    };
    Bits { c: high != 0, o: high != 0, ..Bits::of_result(gpr[0], 64) }
}

/// The six flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    c: bool,
    p: bool,
    a: bool,
    z: bool,
    s: bool,
    o: bool,
}

impl Bits {
    /// Of a logical operation: AF is undefined.
    fn of_result(result: u64, bits: u32) -> Self {
        Bits {
            c: false,
            p: (result as u8).count_ones().is_multiple_of(2),
            a: false,
            z: result << (64 - bits) == 0,
            s: result >> (bits - 1) & 1 != 0,
            o: false,
        }
    }

    fn of_sum(a: u64, b: u64, bits: u32) -> Self {
        let mask = u64::MAX >> (64 - bits);
        let result = a.wrapping_add(b) & mask;
        let overflow = (a ^ result) & (b ^ result);
        Bits {
            c: result < a,
            a: (a ^ b ^ result) >> 4 & 1 != 0,
            o: overflow >> (bits - 1) & 1 != 0,
            ..Self::of_result(result, bits)
        }
    }

    fn of_difference(a: u64, b: u64, bits: u32) -> Self {
        let mask = u64::MAX >> (64 - bits);
        let result = a.wrapping_sub(b) & mask;
        let overflow = (a ^ b) & (a ^ result);
        Bits {
            c: a < b,
            a: (a ^ b ^ result) >> 4 & 1 != 0,
            o: overflow >> (bits - 1) & 1 != 0,
            ..Self::of_result(result, bits)
        }
    }

    /// As bits of RFLAGS.
    fn rflags(self) -> u64 {
        use crate::state::rflags::*;
        [(self.c, CF), (self.p, PF), (self.a, AF), (self.z, ZF), (self.s, SF), (self.o, OF)]
            .iter()
            .filter(|(set, _)| *set)
            .fold(0, |all, (_, flag)| all | flag)
    }
}

fn rflags_mask(flags: Flags) -> u64 {
    let one = |flag: Flags| flags.any(flag);
    Bits {
        c: one(Flags::C),
        p: one(Flags::P),
        a: one(Flags::A),
        z: one(Flags::Z),
        s: one(Flags::S),
        o: one(Flags::O),
    }
    .rflags()
}

/// The value of RFLAGS at a fault: `rflags` with the flags `stale` replaced by those that the code
/// before the faulting instruction left. `before` gives the instructions that came before it,
/// the last one first; `gpr` are the registers at the fault.
pub fn derive(
    mut rflags: u64,
    mut stale: Flags,
    gpr: &[u64; 16],
    before: impl Iterator<Item = Instruction>,
) -> u64 {
    let mut gpr = *gpr;
    for ins in before {
        if stale.is_empty() {
            break;
        }
        let writes = crate::lower::table::entry(&ins).writes;
        let known = recipe(&ins).map_or(Flags::NONE, |r| r.flags).and(stale);
        if !known.is_empty() {
            let mask = rflags_mask(known);
            rflags = rflags & !mask | evaluate(&ins, &gpr).rflags() & mask;
        }
        stale = stale.without(writes);
        gpr[RSP_NUMBER] = gpr[RSP_NUMBER].wrapping_sub(stack_change(&ins) as u64);
    }
    rflags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::table;
    use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess};

    /// What iced knows about an instruction is in what is said of it here.
    #[test]
    fn no_write_and_no_access_is_overlooked() {
        let mut factory = InstructionInfoFactory::new();
        let mut random = 1u64;
        let mut overlooked = std::collections::BTreeSet::new();
        for _ in 0..400_000 {
            let mut bytes = [0; 16];
            for half in bytes.chunks_exact_mut(8) {
                // Xorshift (Marsaglia 2003).
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                half.copy_from_slice(&random.to_le_bytes());
            }
            let ins = decode(&bytes[..15]);
            if table::entry(&ins).lower.is_none() {
                continue;
            }
            let info = factory.info(&ins);
            let pushes = if stack_change(&ins) != 0 { RSP } else { 0 };
            for used in info.used_registers() {
                let reads = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
                if !reads && bit(used.register()) & !pushes & !written(&ins) != 0 {
                    overlooked.insert(format!("{:?} writes {:?}", ins.code(), used.register()));
                }
            }
            let accesses = info.used_memory().iter().any(|m| m.access() != OpAccess::NoMemAccess);
            if accesses && !may_fault(&ins) {
                overlooked.insert(format!("{:?} accesses memory", ins.code()));
            }
        }
        assert!(overlooked.is_empty(), "{overlooked:#?}");
    }

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn flags_are_derived_from_results() {
        use crate::state::rflags::*;
        let mut gpr = [0; 16];
        // add al, 0x7f with the result 0x80
        gpr[0] = 0x80;
        let add = decode(&[0x04, 0x7f]);
        assert_eq!(derive(0, Flags::ALL, &gpr, [add].into_iter()), SF | OF | AF);
        // sub rsp, 16; push rax
        gpr[4] = 0x8000_0000_0000_0000 - 16 - 8;
        let (push, sub) = (decode(&[0x50]), decode(&[0x48, 0x83, 0xec, 0x10]));
        assert_eq!(derive(0, Flags::ALL, &gpr, [push, sub].into_iter()), OF | PF);
        // cmp eax, 0x81; inc ecx: CF of the comparison, the rest of INC
        gpr[1] = 0x10;
        let (inc, cmp) = (decode(&[0xff, 0xc1]), decode(&[0x3d, 0x81, 0, 0, 0]));
        assert_eq!(derive(OF, Flags::ALL, &gpr, [inc, cmp].into_iter()), CF | AF);
        // Only what is stale is replaced.
        assert_eq!(derive(OF, Flags::C, &gpr, [inc, cmp].into_iter()), OF | CF);
    }
}
