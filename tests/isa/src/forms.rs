//! The instruction forms of 64-bit user mode, from iced-x86's tables, and which of them are tested.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeOperandKind as Kind};
use std::{collections::HashMap, sync::OnceLock};

/// An instruction form: one opcode with one set of operand kinds.
#[derive(Clone, Debug)]
pub struct Form {
    /// iced-x86's code for it.
    pub code: Code,
    /// Why no test is generated, if none is.
    pub untested: Option<&'static str>,
}

use Mnemonic::*;

/// Instructions that have no test here, and why.
const UNTESTED: &[(&[Mnemonic], &str)] = &[
    (
        &[
            Cpuid, Rdtsc, Rdtscp, Rdpid, Rdpru, Rdrand, Rdseed, Rdpmc, Xgetbv, Xgetbv, Rdpkru,
            Wrpkru,
        ],
        "the result belongs to the machine",
    ),
    (
        &[Syscall, Sysenter, Int, Int1, Int3, Into, Ud2, Ud0, Ud1],
        "leaves the program; covered by whole-program tests",
    ),
    (
        &[Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64, Xrstor, Xrstor64],
        "the layout belongs to the machine; covered by whole-program tests",
    ),
    (
        &[Clzero, Monitor, Mwait, Monitorx, Mwaitx, Vmmcall, Vmcall, Vmfunc, Encls, Enclu, Enclv],
        "not for ordinary programs",
    ),
    (
        &[Mcommit, Tpause, Umwait, Umonitor, Ptwrite, Enqcmd, Enqcmds, Pconfig, Getsec],
        "not for ordinary programs",
    ),
    (&[Xbegin, Xabort, Xend, Xtest], "transactional memory is gone from processors"),
];

/// Every form of 64-bit user mode that the manuals define.
pub fn all() -> Vec<Form> {
    let defined = |code: &Code| {
        let op = code.op_code();
        op.is_instruction()
            && op.mode64()
            && op.cpl3()
            && !op.is_privileged()
            && op.decoder_option() == 0
            && !foreign(*code)
    };
    Code::values().filter(defined).map(|code| Form { code, untested: untested(code) }).collect()
}

/// Instructions of other makers' processors and of modes that are not user programs.
fn foreign(code: Code) -> bool {
    let name = format!("{:?}", code.cpuid_features()).to_uppercase();
    let makers = ["PADLOCK", "CYRIX", "CENTAUR", "KNC", "OSS", "GEODE"];
    makers.iter().any(|maker| name.contains(maker)) || code.op_code().is_input_output()
}

fn untested(code: Code) -> Option<&'static str> {
    let op = code.op_code();
    match op.encoding() {
        EncodingKind::Legacy | EncodingKind::VEX => {}
        EncodingKind::EVEX => return Some("EVEX encoding"),
        EncodingKind::XOP => return Some("XOP encoding"),
        EncodingKind::D3NOW => return Some("3DNow! encoding"),
        _ => return Some("foreign encoding"),
    }
    if let Some((_, why)) = UNTESTED.iter().find(|(names, _)| names.contains(&code.mnemonic())) {
        return Some(why);
    }
    op.op_kinds()
        .iter()
        .find_map(|kind| match kind {
            Kind::br16_1 | Kind::br16_2 | Kind::br32_1 | Kind::br32_4 => {
                Some("branch of 16 bits, which Intel's processors ignore")
            }
            Kind::mem_vsib32x | Kind::mem_vsib64x | Kind::mem_vsib32y | Kind::mem_vsib64y => {
                Some("gather")
            }
            Kind::farbr2_2 | Kind::farbr4_2 => Some("far control transfer"),
            Kind::mem_mpx | Kind::mem_mib | Kind::bnd_reg | Kind::bnd_or_mem_mpx => {
                Some("MPX is gone from processors")
            }
            Kind::k_reg | Kind::k_rm | Kind::k_or_mem | Kind::k_vvvv => {
                Some("mask registers of AVX-512")
            }
            Kind::tmm_reg | Kind::tmm_rm | Kind::tmm_vvvv | Kind::sibmem => Some("AMX"),
            _ => None,
        })
        .or_else(|| unusual_operands(code))
}

/// Prefetches of a register: #UD on AMD's processors, nothing on Intel's.
const RESERVED_0F0D: [Code; 3] = [
    Code::Reservednop_rm16_r16_0F0D,
    Code::Reservednop_rm32_r32_0F0D,
    Code::Reservednop_rm64_r64_0F0D,
];

/// Far pointers with an offset of 64 bits.
const FAR_POINTER_64: [Code; 5] = [
    Code::Call_m1664,
    Code::Jmp_m1664,
    Code::Lss_r64_m1664,
    Code::Lfs_r64_m1664,
    Code::Lgs_r64_m1664,
];

fn unusual_operands(code: Code) -> Option<&'static str> {
    let op = code.op_code();
    match code.mnemonic() {
        Ret | Call | Jmp if op.operand_size() == 16 => {
            Some("branch of 16 bits, which Intel's processors ignore")
        }
        _ if RESERVED_0F0D.contains(&code) => Some("processors differ"),
        _ if FAR_POINTER_64.contains(&code) => {
            Some("AMD's processors ignore REX.W here; they are as on Intel's")
        }
        _ => None,
    }
}

impl Form {
    /// The name, as iced-x86 spells it.
    pub fn name(&self) -> String {
        format!("{:?}", self.code)
    }

    /// The CPUID feature it belongs to; what every x86_64 processor has since the 486 and before is "base".
    pub fn feature(&self) -> String {
        use CpuidFeature as C;
        let base = [C::INTEL8086, C::INTEL186, C::INTEL286, C::INTEL386, C::INTEL486, C::X64];
        let names: Vec<String> = self
            .code
            .cpuid_features()
            .iter()
            .filter(|f| !base.contains(f))
            .map(|f| format!("{f:?}"))
            .collect();
        if names.is_empty() { "base".into() } else { names.join("+") }
    }
}

/// The form of a name.
pub fn by_name(name: &str) -> Option<&'static Form> {
    static FORMS: OnceLock<HashMap<String, Form>> = OnceLock::new();
    FORMS.get_or_init(|| all().into_iter().map(|form| (form.name(), form)).collect()).get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinary_forms_are_there() {
        for name in
            ["Add_rm32_r32", "Mov_r64_imm64", "Fsin", "Addps_xmm_xmmm128", "Cmpxchg16b_m128", "Ret"]
        {
            let name = if name == "Ret" { "Retnq" } else { name };
            let form = by_name(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(form.untested, None, "{name}");
        }
    }

    #[test]
    fn privileged_and_other_modes_are_left_out() {
        for name in ["Hlt", "Aaa", "Wrmsr", "In_AL_DX", "Lds_r32_m1632"] {
            assert!(by_name(name).is_none(), "{name}");
        }
    }
}
