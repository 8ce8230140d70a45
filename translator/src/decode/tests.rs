//! The decoder beside iced-x86's.

use std::{cell::Cell, collections::HashSet};

use iced_x86::{EncodingKind, OpCodeInfo};
use proptest::prelude::*;

use super::*;
use crate::region::direct_target;

const IP: u64 = 0x7fff_1234_5678;

/// Whether the tables have the instruction.
fn is_in_tables(bytes: &[u8]) -> bool {
    let mut window = [0; WINDOW];
    window[..bytes.len()].copy_from_slice(bytes);
    let mut ins = Instruction::default();
    from_tables(&mut ins, &window, IP) && ins.len() <= bytes.len().min(LONGEST)
}

/// Decodes in both ways, which must agree in every bit. Returns the instruction.
fn as_in_iced(bytes: &[u8], ip: u64) -> Instruction {
    let (ours, theirs) = (decode(bytes, ip), from_iced(bytes, ip));
    assert!(ours.eq_all_bits(&theirs), "{bytes:02x?}\n   is {ours:?}\n not {theirs:?}");
    let mut window = [0; WINDOW];
    let there = bytes.len().min(WINDOW);
    window[..there].copy_from_slice(&bytes[..there]);
    if let Some(skimmed) = skim(&window, ip).filter(|skimmed| skimmed.length <= there) {
        let (code, length) = (ours.code(), ours.len());
        let told = (skimmed.code, skimmed.length, skimmed.target);
        assert_eq!(told, (code, length, direct_target(&ours)), "{bytes:02x?}");
    }
    ours
}

/// Defined instructions that are left to iced-x86.
fn is_left_out(info: &OpCodeInfo) -> bool {
    use iced_x86::OpCodeOperandKind as K;
    (0..info.op_count()).any(|operand| {
        matches!(
            info.op_kind(operand),
            // MOV of control and debug registers.
            K::cr_reg | K::dr_reg
            // AVX-512's instructions on masks, which are VEX encoded.
            | K::k_reg | K::k_rm | K::k_vvvv | K::k_or_mem
            // AMX.
            | K::sibmem | K::tmm_reg | K::tmm_rm
            // AMD's VPERMIL2.
            | K::imm4_m2z
        )
    })
}

/// Every opcode of some maps with every ModRM byte, and any of what may stand around them.
#[derive(Default)]
struct Survey {
    turn: Cell<u64>,
    seen: HashSet<Code>,
    left_out: HashSet<Code>,
}

/// Bytes behind ModRM, as SIB, displacement and immediate.
const TAILS: [[u8; 14]; 3] = [
    [0x91, 0x82, 0x73, 0x64, 0x55, 0x46, 0x37, 0x28, 0x19, 0x8a, 0x9b, 0xac, 0xbd, 0xce],
    [0x25, 0x7f, 0x01, 0xff, 0xa0, 0x5b, 0x80, 0x33, 0xfe, 0x02, 0x03, 0x04, 0x05, 0x06],
    [0x64, 0xf0, 0xff, 0xff, 0xff, 0x7f, 0x00, 0x90, 0x12, 0xfe, 0x81, 0x44, 0x00, 0x80],
];

/// An emulator is too slow for every ModRM byte.
const STEP: usize = if cfg!(target_arch = "aarch64") { 61 } else { 1 };

impl Survey {
    /// Any number below `limit`, the same ones in every run.
    fn any(&self, limit: usize) -> usize {
        self.turn.set(self.turn.get() + 1);
        let mut mixed = self.turn.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32) as usize % limit
    }

    /// Any one of `of`.
    fn one<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.any(of.len())]
    }

    /// All opcodes behind what `start` gives.
    fn opcodes(&mut self, start: impl Fn(&Self) -> Vec<u8>) {
        for opcode in 0..=0xff_u8 {
            for modrm in (self.any(STEP)..0x100).step_by(STEP) {
                let mut bytes = start(self);
                bytes.extend([opcode, modrm as u8]);
                bytes.extend(self.one(&TAILS));
                let code = as_in_iced(&bytes, IP).code();
                self.seen.insert(code);
                if !is_in_tables(&bytes) {
                    self.left_out.insert(code);
                }
            }
        }
    }

    /// All instructions of an encoding were met, and those that the tables leave out are listed.
    fn check(&self, encoding: EncodingKind) {
        for code in Code::values() {
            let info = code.op_code();
            let expected = info.encoding() == encoding
                && info.is_instruction()
                && info.mode64()
                && info.intel_decoder64()
                && info.decoder_option() == DecoderOptions::NONE
                && !info.fwait()
                && code != Code::Montmul_64; // iced-x86 never decodes it
            if expected && STEP == 1 {
                assert!(self.seen.contains(&code), "{code:?} was not met");
            }
            if self.left_out.contains(&code) && code != Code::INVALID {
                assert!(is_left_out(info), "{code:?} is left to iced-x86");
            }
        }
    }
}

#[test]
fn every_legacy_opcode() {
    let mut survey = Survey::default();
    for escape in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
        for prefixes in 0..24 {
            let of_key = |i| match i {
                0 if prefixes & 1 != 0 => &[0x66][..],
                1 if prefixes & 2 != 0 => &[0x67],
                2 => [&[][..], &[0xf3], &[0xf2]][prefixes >> 3],
                _ => &[],
            };
            let rex = 0x40 | (prefixes as u8) << 1 & 8;
            survey.opcodes(|_| [of_key(0), of_key(1), of_key(2), &[rex], escape].concat());
            survey.opcodes(|survey| {
                let mut start =
                    survey.one(&[&[][..], &[0x64], &[0x2e], &[0x48], &[0x65, 0x3e]]).to_vec();
                start.extend(*survey.one(&[&[][..], &[], &[0xf0], &[0x26]]));
                let first = survey.any(3);
                (first..first + 3).for_each(|i| start.extend(of_key(i % 3)));
                let rex = rex | survey.any(8) as u8;
                if rex & 8 != 0 || survey.any(4) != 0 {
                    start.push(rex);
                }
                start.extend(escape);
                start
            });
        }
    }
    survey.check(EncodingKind::Legacy);
}

#[test]
fn every_vex_opcode() {
    let mut survey = Survey::default();
    for map in 0..5 {
        for (w, l_pp) in (0..16).map(|fields| (fields >> 3 << 7, fields & 7)) {
            let vex = |rxb: u8, vvvv: u8| match map {
                0 => vec![0xc5, rxb << 7 | vvvv << 3 | l_pp],
                _ => vec![0xc4, rxb << 5 | map, w | vvvv << 3 | l_pp],
            };
            survey.opcodes(|_| vex(7, 15));
            survey.opcodes(|survey| {
                let before =
                    [&[][..], &[], &[], &[0x67], &[0x65], &[0x66], &[0xf3], &[0x40], &[0xf0]];
                let vvvv = *survey.one(&[15, 6, 1, 10, 13]);
                [survey.one(&before), &vex(survey.any(8) as u8, vvvv)[..]].concat()
            });
        }
    }
    survey.check(EncodingKind::VEX);
}

fn any_byte() -> impl Strategy<Value = u8> {
    const TELLING: [u8; 22] = [
        0x0f, 0x38, 0x3a, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x3e, 0x64, 0x65, 0x40, 0x48, 0x4f,
        0xc4, 0xc5, 0xe1, 0x62, 0x05, 0x04, 0x90,
    ];
    prop_oneof![3 => any::<u8>(), 1 => prop::sample::select(&TELLING[..])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if STEP == 1 { 200_000 } else { 500 }))]

    #[test]
    fn any_bytes(start in prop::collection::vec(any_byte(), 0..20), tail in any::<[u8; WINDOW]>(), ip: u64) {
        as_in_iced(&[&start, &tail[..]].concat(), ip);
        as_in_iced(&start, ip);
    }
}

#[test]
fn cut_off_anywhere() {
    for bytes in [
        &[0x66, 0x67, 0x64, 0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x84, 0x88, 1, 2, 3, 4][..],
        &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x67, 0xa1, 1, 2, 3, 4],
        &[0xc7, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x48, 0x8b, 0x05, 1, 2, 3, 4],
        &[0xc8, 1, 2, 3],
        &[0xe8, 1, 2, 3, 4],
        &[0xc4, 0xe3, 0x6d, 0x4a, 0x44, 0x24, 0x7f, 0x30],
        &[0x66; 20],
        &[0x40; 20],
    ] {
        for length in 0..=bytes.len() {
            as_in_iced(&bytes[..length], IP);
        }
    }
}

#[test]
fn fifteen_bytes_are_an_instruction_and_sixteen_are_not() {
    let instruction = [0x48, 0xc7, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8];
    for prefixes in 0..6 {
        let mut bytes = vec![0x2e; prefixes];
        bytes.extend(instruction);
        assert_eq!(as_in_iced(&bytes, IP).is_invalid(), prefixes > 3);
        bytes.extend([0; WINDOW]);
        assert_eq!(as_in_iced(&bytes, IP).is_invalid(), prefixes > 3);
    }
}

/// In 64-bit mode Intel's processors ignore the operand-size prefix of near branches (SDM vol. 2, JMP).
#[test]
fn near_branches_have_64_bits() {
    let code = |bytes: &[u8]| {
        let ins = decode(bytes, 0x1_0000_0000);
        (ins.code(), ins.len())
    };
    assert_eq!(code(&[0x66, 0xc3]), (Code::Retnq, 2));
    assert_eq!(code(&[0x66, 0xe9, 1, 0, 0, 0]), (Code::Jmp_rel32_64, 6));
    assert_eq!(code(&[0x66, 0xe8, 1, 0, 0, 0]), (Code::Call_rel32_64, 6));
    assert_eq!(code(&[0x66, 0x74, 1]), (Code::Je_rel8_64, 3));
    assert_eq!(code(&[0x66, 0x0f, 0x84, 1, 0, 0, 0]), (Code::Je_rel32_64, 7));
    assert_eq!(code(&[0x66, 0xff, 0xe0]), (Code::Jmp_rm64, 3));
    assert_eq!(code(&[0x66, 0xff, 0xd0]), (Code::Call_rm64, 3));
}
