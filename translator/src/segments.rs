//! Segments and far transfers, as a 64-bit process of Linux has them.
//!
//! The descriptor table is what Linux sets up (arch/x86/include/asm/segment.h): user code and data
//! at 0x20 (32 bits), 0x28 and 0x30, and at 0x78 a segment whose limit tells the processor's number. There is
//! no local descriptor table. All bases are zero, so of a loaded segment nothing remains but its
//! selector, and a cleared base of FS or GS.
//!
//! 32-bit code is not translated: the code segment at 0x20 can be looked at and be loaded as data, and a far
//! transfer to it raises #GP, as if it did not exist.

use crate::cpuid;
use crate::guest_memory::{read, write};
use crate::helpers::Pair;
use crate::state::reg::RSP;
use crate::state::{CpuState, exception, rflags};

/// The vector of general protection.
const GP: u8 = 13;
/// The selector of 64-bit user code; what CS always holds.
pub const USER_CS: u16 = 0x33;
/// The selector of user data; what SS always holds.
pub const USER_SS: u16 = 0x2b;

/// ZF in [`CpuState::nzcv`].
const ZF: u64 = 1 << 30;

/// A data segment register whose selector is kept, as an index into [`CpuState::selectors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the architecture's
pub enum DataSegment {
    Ds,
    Es,
    Fs,
    Gs,
}

/// What user code can learn of a descriptor (Intel SDM vol. 3, 3.4.5).
struct Descriptor {
    /// Index in the table, times 8.
    offset: u16,
    /// Bits 8 to 23 of its upper half: what LAR gives.
    access: u32,
    /// It can be written.
    writable: bool,
}

const DESCRIPTORS: [Descriptor; 4] = [
    Descriptor { offset: 0x20, access: 0xcf_fb00, writable: false },
    Descriptor { offset: 0x28, access: 0xcf_f300, writable: true },
    Descriptor { offset: 0x30, access: 0xaf_fb00, writable: false },
    Descriptor { offset: CPU_NUMBER, access: 0x40_f500, writable: false },
];

/// The segment whose limit is the processor's number.
const CPU_NUMBER: u16 = 0x78;

/// The descriptor that a selector names. The privilege requested does not matter: all are of level 3.
fn descriptor(selector: u16) -> Option<&'static Descriptor> {
    DESCRIPTORS.iter().find(|d| d.offset == selector & !3)
}

fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// #GP for a selector.
fn protection(selector: u16) -> u64 {
    exception(GP, selector & !3)
}

/// Loads a segment register: selector, [`DataSegment`]. Gives the exception, or 0.
pub extern "C" fn load(cpu: &mut CpuState, selector: u64, segment: u64, _: u64) -> Pair {
    let selector = selector as u16;
    if !is_null(selector) && descriptor(selector).is_none() {
        return Pair(protection(selector), 0);
    }
    cpu.selectors[segment as usize & 3] = selector;
    if segment == DataSegment::Fs as u64 {
        cpu.fs_base = 0;
    } else if segment == DataSegment::Gs as u64 {
        cpu.gs_base = 0;
    }
    Pair(0, 0)
}

/// Loads SS, which only the segment that is there already can be: selector. Gives the exception, or 0.
pub extern "C" fn load_stack(_: &mut CpuState, selector: u64, _: u64, _: u64) -> Pair {
    let selector = selector as u16;
    Pair(if selector == USER_SS { 0 } else { protection(selector) }, 0)
}

fn set_zero_flag(cpu: &mut CpuState, to: bool) {
    cpu.nzcv = if to { cpu.nzcv | ZF } else { cpu.nzcv & !ZF };
}

/// LAR: selector. Sets ZF; gives whether the selector is good, and the access rights.
pub extern "C" fn access_rights(cpu: &mut CpuState, selector: u64, _: u64, _: u64) -> Pair {
    let found = descriptor(selector as u16);
    set_zero_flag(cpu, found.is_some());
    found.map_or(Pair(0, 0), |d| Pair(1, d.access.into()))
}

/// LSL: selector. Sets ZF; gives whether the selector is good, and the limit.
pub extern "C" fn limit(cpu: &mut CpuState, selector: u64, _: u64, _: u64) -> Pair {
    let found = descriptor(selector as u16);
    set_zero_flag(cpu, found.is_some());
    match found {
        None => Pair(0, 0),
        Some(d) if d.offset == CPU_NUMBER => Pair(1, cpuid::current(cpu, 0, 0, 0).0),
        Some(_) => Pair(1, 0xffff_ffff),
    }
}

/// VERR, or VERW: selector, whether it is VERW. Sets ZF.
pub extern "C" fn verify(cpu: &mut CpuState, selector: u64, write: u64, _: u64) -> Pair {
    let found = descriptor(selector as u16);
    set_zero_flag(cpu, found.is_some_and(|d| write == 0 || d.writable));
    Pair(0, 0)
}

/// Words of an operand size (2, 4 or 8 bytes) from guest memory, all before anything changes.
fn read_words<const N: usize>(address: u64, size: u64) -> [u64; N] {
    std::array::from_fn(|i| {
        let at = address.wrapping_add(i as u64 * size);
        match size {
            2 => u16::from_le_bytes(read(at)).into(),
            4 => u32::from_le_bytes(read(at)).into(),
            _ => u64::from_le_bytes(read(at)),
        }
    })
}

/// Pushes the two words of an operand size that a far return pops.
fn push_return(cpu: &mut CpuState, size: u64, rip: u64) {
    let rsp = cpu.gpr[RSP].wrapping_sub(2 * size);
    let cs = u64::from(USER_CS);
    match size {
        2 => write(rsp, &((cs << 16 | rip & 0xffff) as u32).to_le_bytes()),
        4 => write(rsp, &(cs << 32 | rip & 0xffff_ffff).to_le_bytes()),
        _ => write(rsp, &(u128::from(cs) << 64 | u128::from(rip)).to_le_bytes()),
    }
    cpu.gpr[RSP] = rsp;
}

/// Offset and selector of a far pointer in memory.
fn far_pointer(address: u64, size: u64) -> (u64, u16) {
    let [offset] = read_words(address, size);
    (offset, u16::from_le_bytes(read(address.wrapping_add(size))))
}

/// Whether a far jump or call may go to a selector: the privilege requested may be less than the
/// processor's level (Intel SDM vol. 2, JMP).
fn check_jump(selector: u16) -> Result<(), u64> {
    if selector | 3 == USER_CS { Ok(()) } else { Err(protection(selector)) }
}

/// Far JMP: address of the pointer, operand size. Gives the exception, or 0, and the target.
pub extern "C" fn far_jump(_: &mut CpuState, address: u64, size: u64, _: u64) -> Pair {
    let (target, selector) = far_pointer(address, size);
    match check_jump(selector) {
        Ok(()) => Pair(0, target),
        Err(exception) => Pair(exception, 0),
    }
}

/// Far CALL: address of the pointer, operand size, address behind the instruction.
/// Gives the exception, or 0, and the target.
pub extern "C" fn far_call(cpu: &mut CpuState, address: u64, size: u64, next: u64) -> Pair {
    let (target, selector) = far_pointer(address, size);
    if let Err(exception) = check_jump(selector) {
        return Pair(exception, 0);
    }
    push_return(cpu, size, next);
    Pair(0, target)
}

/// Far RET: operand size, bytes to release. Gives the exception, or 0, and the target.
pub extern "C" fn far_return(cpu: &mut CpuState, size: u64, release: u64, _: u64) -> Pair {
    let [target, selector] = read_words(cpu.gpr[RSP], size);
    if selector as u16 != USER_CS {
        return Pair(protection(selector as u16), 0);
    }
    cpu.gpr[RSP] = cpu.gpr[RSP].wrapping_add(2 * size + release);
    Pair(0, target)
}

/// IRET: operand size. Gives the exception, or 0, and the target.
pub extern "C" fn interrupt_return(cpu: &mut CpuState, size: u64, _: u64, _: u64) -> Pair {
    if cpu.rflags() & rflags::NT != 0 {
        return Pair(protection(0), 0);
    }
    let [target, selector, flags, rsp, ss] = read_words(cpu.gpr[RSP], size);
    for (selector, wanted) in [(selector as u16, USER_CS), (ss as u16, USER_SS)] {
        if selector != wanted {
            return Pair(protection(selector), 0);
        }
    }
    let kept = if size == 2 { cpu.rflags() & !0xffff } else { 0 };
    cpu.set_rflags(flags | kept);
    cpu.gpr[RSP] = rsp;
    Pair(0, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_segment_leaves_its_selector_and_no_base() {
        let mut cpu = CpuState::new();
        (cpu.fs_base, cpu.gs_base) = (0x1000, 0x2000);
        assert_eq!(load(&mut cpu, 0x2b, DataSegment::Es as u64, 0), Pair(0, 0));
        assert_eq!(load(&mut cpu, 3, DataSegment::Fs as u64, 0), Pair(0, 0));
        assert_eq!(load(&mut cpu, 0x18, DataSegment::Gs as u64, 0), Pair(13 | 0x18 << 16, 0));
        assert_eq!(cpu.selectors, [0, 0x2b, 3, 0]);
        assert_eq!((cpu.fs_base, cpu.gs_base), (0, 0x2000));
    }

    #[test]
    fn an_interrupt_return_takes_flags_and_stack() {
        let mut cpu = CpuState::new();
        let mut frame = [0x1234, USER_CS.into(), rflags::CF | rflags::DF, 0x8000, USER_SS.into()];
        cpu.gpr[RSP] = frame.as_ptr() as u64;
        assert_eq!(interrupt_return(&mut cpu, 8, 0, 0), Pair(0, 0x1234));
        assert_eq!(cpu.gpr[RSP], 0x8000);
        assert_eq!(cpu.rflags() & rflags::STATUS, rflags::CF);
        assert_eq!(cpu.df, 1);
        frame[1] = 0x10;
        cpu.gpr[RSP] = frame.as_ptr() as u64;
        assert_eq!(interrupt_return(&mut cpu, 8, 0, 0), Pair(13 | 0x10 << 16, 0));
        cpu.set_rflags(cpu.rflags() | rflags::NT);
        assert_eq!(interrupt_return(&mut cpu, 8, 0, 0), Pair(13, 0));
        assert_eq!(cpu.gpr[RSP], frame.as_ptr() as u64);
    }
}
