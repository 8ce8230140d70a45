//! What an instruction did to memory when it faulted.
//!
//! The host tells the address. Whether x86 calls the access a write it need not know: where x86 reads
//! and writes in one step, arm64 has a load that faults first. And of an address that is not
//! canonical x86 tells whether it lay in the stack segment.

use crate::state::CpuState;
use iced_x86::{Instruction, InstructionInfoFactory, OpAccess, Register, UsedMemory};

/// The access that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its address, if that is not canonical.
    pub not_canonical: Option<u64>,
    /// It writes.
    pub write: bool,
    /// Its segment is SS.
    pub stack: bool,
}

/// The bits of an address that the host translates; it ignores the top byte (Arm ARM, D8.8).
const TRANSLATED: u64 = u64::MAX >> 8;

/// The access of an instruction, with the registers in `cpu`, that reached an address.
pub fn access(ins: &Instruction, cpu: &CpuState, address: u64) -> Option<Access> {
    let value = |register: Register, _: usize, _: usize| match register {
        Register::FS => Some(cpu.fs_base),
        Register::GS => Some(cpu.gs_base),
        _ if register.is_segment_register() => Some(0),
        _ => Some(cpu.gpr[register.full_register().number()] & mask(register)),
    };
    let start = |m: &UsedMemory| m.virtual_address(0, value).unwrap_or(0);
    let distance = |m: &UsedMemory| {
        let into = address.wrapping_sub(start(m)) & TRANSLATED;
        if into < m.memory_size().size().max(1) as u64 {
            return 0;
        }
        into.min(start(m).wrapping_sub(address) & TRANSLATED)
    };
    let canonical = |m: &UsedMemory| matches!(start(m) as i64 >> 47, 0 | -1);
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(ins).used_memory();
    let writes = |m: &UsedMemory| {
        !matches!(m.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
    };
    // An address that is not canonical the host may know less well. Repeated instructions have
    // gone on from where their registers point.
    let nearest = used
        .iter()
        .filter(|m| m.access() != OpAccess::NoMemAccess)
        .min_by_key(|m| (canonical(m), distance(m), !writes(m)))?;
    Some(Access {
        not_canonical: (!canonical(nearest)).then(|| start(nearest)),
        write: writes(nearest),
        stack: nearest.segment() == Register::SS,
    })
}

fn mask(register: Register) -> u64 {
    match register.size() {
        8 => u64::MAX,
        size => (1 << (8 * size)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn at(bytes: &[u8], cpu: &CpuState, address: u64) -> Option<Access> {
        access(&Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode(), cpu, address)
    }

    #[test]
    fn reads_writes_and_the_stack() {
        let mut cpu = CpuState::new();
        cpu.gpr[4] = 0x8000;
        cpu.gpr[6] = 0x100;
        cpu.gpr[7] = 0x5000;
        let found = |write, stack| Some(Access { not_canonical: None, write, stack });
        assert_eq!(at(&[0x8b, 0x06], &cpu, 0x100), found(false, false)); // mov eax, [rsi]
        assert_eq!(at(&[0x29, 0x0e], &cpu, 0x100), found(true, false)); // sub [rsi], ecx
        assert_eq!(at(&[0x50], &cpu, 0x7ff8), found(true, true)); // push rax
        assert_eq!(at(&[0xff, 0x36], &cpu, 0x100), found(false, false)); // push [rsi]
        assert_eq!(at(&[0xff, 0x36], &cpu, 0x7ff8), found(true, true));
        assert_eq!(at(&[0xf3, 0xa4], &cpu, 0x5040), found(true, false)); // rep movsb
        assert_eq!(at(&[0xf3, 0xa4], &cpu, 0x140), found(false, false));
        assert_eq!(at(&[0x8b, 0x44, 0x24, 8], &cpu, 0x8008), found(false, true)); // mov eax, [rsp+8]
        cpu.gpr[6] = 0x1234_5678_1234_5678;
        let not_canonical = at(&[0x8b, 0x06], &cpu, 0).and_then(|a| a.not_canonical);
        assert_eq!(not_canonical, Some(cpu.gpr[6]));
    }
}
