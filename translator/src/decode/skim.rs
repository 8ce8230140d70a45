//! As much of an instruction as a look at the code ahead needs, for half of what decoding takes.

use super::layout::{Form, Special, prefix};
use super::{Found, LONGEST, Opcode, Window, load, opcode};
use iced_x86::{Code, OpKind};

/// What an instruction is, but for its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skimmed {
    /// The instruction form.
    pub code: Code,
    /// How long it is, in bytes.
    pub length: usize,
    /// Where it goes, if it is a direct branch or call.
    pub target: Option<u64>,
    /// How long its constant or distance is, in bytes.
    pub immediate: u8,
    /// Whether it has a ModRM byte.
    pub has_modrm: bool,
}

/// Looks at the instruction at the start of `bytes`, whose address is `ip`. None if it is to be decoded: it may be
/// anything, or undefined.
#[inline]
pub fn skim(bytes: &[u8], ip: u64) -> Option<Skimmed> {
    let window = bytes.first_chunk()?;
    match opcode(window) {
        Found::Opcode(opcode, modrm) => opcode.skim(window, ip, modrm),
        Found::Vex { .. } | Found::Unknown => None,
    }
}

impl Opcode {
    #[inline(always)]
    fn skim(self, window: &Window, ip: u64, modrm: u8) -> Option<Skimmed> {
        let (leaf, code, form) = self.select(modrm)?;
        let of_opcode = if leaf.mandatory { prefix::REPEAT } else { 0 };
        let unusual = self.prefixes & !of_opcode & !prefix::OPERAND16;
        if unusual != 0 || form.special != Special::No {
            return None;
        }
        let mut length = self.at + usize::from(form.immediate);
        let has_modrm = form.flags & Form::HAS_MODRM != 0;
        if has_modrm {
            length += 1 + address_length(modrm, load(window, self.at + 1) as u8);
        }
        let mut target = None;
        if form.flags & Form::BRANCH != 0 {
            if form.kinds[0] != OpKind::NearBranch64 {
                return None;
            }
            let unused = (64 - 8 * u32::from(form.immediate)) & 63;
            let bytes = load(window, length - usize::from(form.immediate));
            let distance = (bytes << unused) as i64 >> unused;
            target = Some(ip.wrapping_add(length as u64).wrapping_add(distance as u64));
        }
        let immediate = form.immediate;
        (length <= LONGEST).then_some(Skimmed { code, length, target, immediate, has_modrm })
    }
}

/// Bytes of SIB and displacement behind a ModRM byte; `sib` is the byte there (Intel SDM vol. 2, 2.1.5).
#[inline(always)]
pub fn address_length(modrm: u8, sib: u8) -> usize {
    let has_sib = modrm & 7 == 4;
    let base = if has_sib { sib & 7 } else { modrm & 7 };
    let displacement = match modrm >> 6 {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return 0,
    };
    usize::from(has_sib) + displacement
}
