//! Registers, immediates and guest memory of an instruction that is interpreted.

use super::Interpreter;
use crate::state::CpuState;

/// Where an integer register is in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in `gpr`.
    pub number: u8,
    /// In bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Bit at which the register begins: 8 for AH to BH.
    shift: u8,
}

impl Place {
    /// A register's low bytes, or all of it.
    #[inline(always)]
    pub fn low(number: u8, size: u8) -> Self {
        Place { number, size, shift: 0 }
    }

    /// AH, CH, DH or BH.
    #[inline(always)]
    pub fn high_byte(number: u8) -> Self {
        Place { number, size: 1, shift: 8 }
    }
}

/// The low `size` bytes.
#[inline]
pub fn mask(size: u8) -> u64 {
    u64::MAX >> ((64 - 8 * u32::from(size)) % 64)
}

/// The low `size` bytes as a signed number.
#[inline]
pub fn sign_extend(value: u64, size: u8) -> u64 {
    let unused = (64 - 8 * u32::from(size)) % 64;
    ((value << unused) as i64 >> unused) as u64
}

/// An operand.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// An integer register.
    Register(Place),
    /// A vector register, by its index in `xmm`.
    Vector(u8),
    /// Memory: address, size in bytes.
    Memory(u64, u8),
    /// A value, or the target of a branch.
    Immediate(u64),
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

    /// The value of an integer operand: zero-extended, or an immediate as it is.
    #[inline]
    pub fn read(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(place) => self.register(place),
            Operand::Memory(address, size) => self.load(address, size),
            Operand::Vector(number) => self.cpu.xmm[usize::from(number & 15)] as u64,
            Operand::Immediate(value) => value,
        }
    }

    /// Writes an integer operand. When it is memory nothing may have changed before.
    #[inline]
    pub fn write(&mut self, operand: Operand, value: u64) {
        match operand {
            Operand::Register(place) => self.set_register(place, value),
            Operand::Memory(address, size) => self.store(address, size, value),
            Operand::Vector(_) | Operand::Immediate(_) => {}
        }
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
