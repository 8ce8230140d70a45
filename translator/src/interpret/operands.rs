//! Registers, immediates and guest memory of an instruction that is interpreted.

use super::Interpreter;
use crate::state::CpuState;
use iced_x86::{Instruction, OpKind, Register};

/// Where a register is in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in `gpr` or `xmm`.
    pub number: u8,
    /// In bytes: 1, 2, 4 or 8, and 16 for a vector register. 0 for other registers.
    pub size: u8,
    /// Bit at which the register begins: 8 for AH to BH.
    shift: u8,
}

/// Where each register is.
static PLACES: [Place; 256] = {
    const NONE: Place = Place { number: 0, size: 0, shift: 0 };
    let mut table = [NONE; 256];
    // AL to BL, AH to BH, then SPL to DIL, then R8L to R15L.
    let mut i = 0;
    while i < 20 {
        let high = i >= 4 && i < 8;
        let number = if i < 4 { i } else { i - 4 };
        table[Register::AL as usize + i] =
            Place { number: number as u8, size: 1, shift: if high { 8 } else { 0 } };
        i += 1;
    }
    let firsts = [
        (Register::AX as usize, 2),
        (Register::EAX as usize, 4),
        (Register::RAX as usize, 8),
        (Register::XMM0 as usize, 16),
    ];
    let mut f = 0;
    while f < firsts.len() {
        let (first, size) = firsts[f];
        let mut i = 0;
        while i < 16 {
            table[first + i] = Place { number: i as u8, size, shift: 0 };
            i += 1;
        }
        f += 1;
    }
    table
};

/// The place of a register.
#[inline]
pub fn place(register: Register) -> Place {
    PLACES[register as usize & 0xff]
}

/// The low `size` bytes.
#[inline]
pub fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size)) % 64
}

/// The low `size` bytes as a signed number.
#[inline]
pub fn sign_extend(value: u64, size: u8) -> u64 {
    let unused = (64 - 8 * u32::from(size)) % 64;
    ((value << unused) as i64 >> unused) as u64
}

/// An integer operand that can be read and written.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A register.
    Register(Place),
    /// Memory: address, size in bytes.
    Memory(u64, u8),
}

impl Operand {
    /// In bytes: 1, 2, 4 or 8.
    #[inline]
    pub fn size(self) -> u8 {
        match self {
            Operand::Register(place) => place.size,
            Operand::Memory(_, size) => size,
        }
    }
}

impl Interpreter<'_> {
    /// A register's value, zero-extended.
    #[inline]
    pub fn register(&self, place: Place) -> u64 {
        self.cpu.gpr[usize::from(place.number & 15)] >> place.shift & mask(place.size)
    }

    /// Writes an integer register as the processor does: 32 bits clear the upper ones, fewer leave them.
    #[inline]
    pub fn set_register(&mut self, place: Place, value: u64) {
        let register = &mut self.cpu.gpr[usize::from(place.number & 15)];
        *register = match place.size {
            8 => value,
            4 => value & 0xffff_ffff,
            size => {
                let mask = mask(size) << place.shift;
                *register & !mask | value << place.shift & mask
            }
        };
    }

    /// The operand that is an integer register or memory of the size of one. None for others: they are left to the
    /// translator.
    #[inline]
    pub fn operand(&self, ins: &Instruction, n: u32) -> Option<Operand> {
        match ins.op_kind(n) {
            OpKind::Register => {
                let place = place(ins.op_register(n));
                (place.size != 0 && place.size < 16).then_some(Operand::Register(place))
            }
            OpKind::Memory => {
                let size = ins.memory_size().size();
                if ![1, 2, 4, 8].contains(&size) {
                    return None;
                }
                Some(Operand::Memory(self.address(ins)?, size as u8))
            }
            _ => None,
        }
    }

    /// The operand's value, zero-extended.
    #[inline]
    pub fn read(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(place) => self.register(place),
            Operand::Memory(address, size) => self.load(address, size),
        }
    }

    /// Writes the operand. When it is memory nothing may have changed before.
    #[inline]
    pub fn write(&mut self, operand: Operand, value: u64) {
        match operand {
            Operand::Register(place) => self.set_register(place, value),
            Operand::Memory(address, size) => self.store(address, size, value),
        }
    }

    /// The value of an operand of any kind, immediates extended to 64 bits as the instruction has it.
    #[inline]
    pub fn value(&mut self, ins: &Instruction, n: u32) -> Option<u64> {
        Some(match ins.op_kind(n) {
            OpKind::Register | OpKind::Memory => {
                let operand = self.operand(ins, n)?;
                self.read(operand)
            }
            OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => {
                ins.immediate8() as i8 as u64
            }
            OpKind::Immediate8 => u64::from(ins.immediate8()),
            OpKind::Immediate16 => u64::from(ins.immediate16()),
            OpKind::Immediate32 => u64::from(ins.immediate32()),
            OpKind::Immediate32to64 => ins.immediate32() as i32 as u64,
            OpKind::Immediate64 => ins.immediate64(),
            _ => return None,
        })
    }

    /// The address of the memory operand. None if it is not computed with 64 bits.
    #[inline]
    pub fn address(&self, ins: &Instruction) -> Option<u64> {
        let segment = match ins.segment_prefix() {
            Register::FS => self.cpu.fs_base,
            Register::GS => self.cpu.gs_base,
            _ => 0,
        };
        Some(self.effective_address(ins)?.wrapping_add(segment))
    }

    /// The same without the segment's base.
    #[inline]
    pub fn effective_address(&self, ins: &Instruction) -> Option<u64> {
        let mut address = ins.memory_displacement64();
        match ins.memory_base() {
            Register::None | Register::RIP => {} // the displacement is that of the decoder: absolute
            base => {
                let base = place(base);
                if base.size != 8 {
                    return None;
                }
                address = address.wrapping_add(self.register(base));
            }
        }
        if ins.memory_index() != Register::None {
            let index = place(ins.memory_index());
            if index.size != 8 {
                return None;
            }
            let scaled = self.register(index).wrapping_mul(u64::from(ins.memory_index_scale()));
            address = address.wrapping_add(scaled);
        }
        Some(address)
    }

    /// Loads 1, 2, 4 or 8 bytes, zero-extended.
    #[inline]
    pub fn load(&mut self, address: u64, size: u8) -> u64 {
        let value = load(self.cpu, address, size);
        if self.ordered {
            barrier_behind_load();
        }
        value
    }

    /// Stores the low `size` bytes, 1, 2, 4 or 8.
    #[inline]
    pub fn store(&mut self, address: u64, size: u8, value: u64) {
        if self.ordered {
            barrier_before_store();
        }
        store(self.cpu, address, size, value);
    }

    /// Loads 16 bytes.
    #[inline]
    pub fn load_vector(&mut self, address: u64) -> u128 {
        let value = load_pair(self.cpu, address);
        if self.ordered {
            barrier_behind_load();
        }
        u128::from(value[0]) | u128::from(value[1]) << 64
    }

    /// Stores 16 bytes.
    #[inline]
    pub fn store_vector(&mut self, address: u64, value: u128) {
        if self.ordered {
            barrier_before_store();
        }
        store_pair(self.cpu, address, [value as u64, (value >> 64) as u64]);
    }
}

/// Loads stay before all that follows them, as on x86 (Intel SDM vol. 3, 9.2.2): DMB ISHLD.
fn barrier_behind_load() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
}

/// Stores stay behind all that comes before them: DMB ISH.
fn barrier_before_store() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
}

// The accesses themselves are single host instructions. A fault abandons the interpreter, and whoever takes over
// reads the state: that is why it is an operand of each.

/// One load instruction of `size` bytes.
#[cfg(target_arch = "aarch64")]
#[inline]
fn load(cpu: &mut CpuState, address: u64, size: u8) -> u64 {
    let value: u64;
    macro_rules! ldr {
        ($text:literal) => {
            // SAFETY: a guest address is the same host address, and the guest's at its own request;
            // a fault abandons this frame, which owns nothing.
            unsafe {
                std::arch::asm!(concat!($text, ", [{a}] // {c}"), v = lateout(reg) value, a = in(reg) address,
                    c = in(reg) std::ptr::from_mut(cpu), options(nostack, preserves_flags))
            }
        };
    }
    match size {
        1 => ldr!("ldrb {v:w}"),
        2 => ldr!("ldrh {v:w}"),
        4 => ldr!("ldr {v:w}"),
        _ => ldr!("ldr {v}"),
    }
    value
}

/// One store instruction of `size` bytes.
#[cfg(target_arch = "aarch64")]
#[inline]
fn store(cpu: &mut CpuState, address: u64, size: u8, value: u64) {
    macro_rules! str {
        ($text:literal) => {
            // SAFETY: as in `load`.
            unsafe {
                std::arch::asm!(concat!($text, ", [{a}] // {c}"), v = in(reg) value, a = in(reg) address,
                    c = in(reg) std::ptr::from_mut(cpu), options(nostack, preserves_flags))
            }
        };
    }
    match size {
        1 => str!("strb {v:w}"),
        2 => str!("strh {v:w}"),
        4 => str!("str {v:w}"),
        _ => str!("str {v}"),
    }
}

/// One load instruction of 16 bytes.
#[cfg(target_arch = "aarch64")]
#[inline]
fn load_pair(cpu: &mut CpuState, address: u64) -> [u64; 2] {
    let (low, high): (u64, u64);
    // SAFETY: as in `load`.
    unsafe {
        std::arch::asm!("ldp {l}, {h}, [{a}] // {c}", l = out(reg) low, h = out(reg) high, a = in(reg) address,
            c = in(reg) std::ptr::from_mut(cpu), options(nostack, preserves_flags));
    }
    [low, high]
}

/// One store instruction of 16 bytes.
#[cfg(target_arch = "aarch64")]
#[inline]
fn store_pair(cpu: &mut CpuState, address: u64, value: [u64; 2]) {
    // SAFETY: as in `load`.
    unsafe {
        std::arch::asm!("stp {l}, {h}, [{a}] // {c}", l = in(reg) value[0], h = in(reg) value[1],
            a = in(reg) address, c = in(reg) std::ptr::from_mut(cpu), options(nostack, preserves_flags));
    }
}

/// The same where only unit tests run.
#[cfg(not(target_arch = "aarch64"))]
fn load(_: &mut CpuState, address: u64, size: u8) -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: a test gives the address of its own memory.
    unsafe { std::ptr::copy(address as *const u8, bytes.as_mut_ptr(), usize::from(size)) };
    u64::from_le_bytes(bytes)
}

#[cfg(not(target_arch = "aarch64"))]
fn store(_: &mut CpuState, address: u64, size: u8, value: u64) {
    // SAFETY: as in `load`.
    unsafe {
        std::ptr::copy(value.to_le_bytes().as_ptr(), address as *mut u8, usize::from(size));
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn load_pair(cpu: &mut CpuState, address: u64) -> [u64; 2] {
    [load(cpu, address, 8), load(cpu, address + 8, 8)]
}

#[cfg(not(target_arch = "aarch64"))]
fn store_pair(cpu: &mut CpuState, address: u64, value: [u64; 2]) {
    store(cpu, address, 8, value[0]);
    store(cpu, address + 8, 8, value[1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::operands::{host_of, is_high_byte};

    #[test]
    fn places_agree_with_the_registers() {
        for register in Register::values() {
            let place = place(register);
            if register.is_gpr() {
                assert_eq!(usize::from(place.size), register.size(), "{register:?}");
                assert_eq!(u32::from(place.number), host_of(register).n(), "{register:?}");
                assert_eq!(place.shift == 8, is_high_byte(register), "{register:?}");
            } else if register.is_xmm() && register.number() < 16 {
                assert_eq!((usize::from(place.number), place.size), (register.number(), 16));
            } else {
                assert_eq!(place.size, 0, "{register:?}");
            }
        }
    }
}
