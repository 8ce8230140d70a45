//! Showing a case: its code, what it starts from and what came out.

use crate::{
    case::Case,
    compare::compare,
    state::{COMPARED_FLAGS, Outcome, State},
};
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use std::fmt::Write;

/// The code, one instruction a line.
pub fn disassembly(case: &Case) -> String {
    let program = &case.program;
    let mut formatter = IntelFormatter::new();
    let mut text = String::new();
    for instruction in Decoder::with_ip(64, &program.code, program.state.rip, DecoderOptions::NONE)
    {
        let at = (instruction.ip() - program.state.rip) as usize;
        let bytes: String =
            program.code[at..at + instruction.len()].iter().map(|b| format!("{b:02x}")).collect();
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        writeln!(text, "  {:#x}  {bytes:30} {line}", instruction.ip())
            .expect("writing to a string");
    }
    text
}

/// Registers, four a line.
pub fn registers(state: &State) -> String {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    let mut text = String::new();
    for (i, (name, value)) in NAMES.iter().zip(state.gpr).enumerate() {
        let end = if i % 4 == 3 { "\n" } else { "  " };
        write!(text, "  {name:3} {value:016x}{end}").expect("writing to a string");
    }
    let x87 = &state.x87;
    writeln!(
        text,
        "  flags {:#x} (of {COMPARED_FLAGS:#x})  fs {:#x}  gs {:#x}  ds es fs gs {:x?}  mxcsr {:#x}  x87 cw {:#x} sw {:#x} tag {:#x}",
        state.rflags, state.fs_base, state.gs_base, state.selectors, state.mxcsr, x87.cw, x87.sw, x87.tag
    )
    .expect("writing to a string");
    for i in 0..8 {
        writeln!(
            text,
            "  xmm{i:<2} {:032x}  xmm{:<2} {:032x}  R{i} {:020x}",
            state.xmm[i],
            i + 8,
            state.xmm[i + 8],
            x87.st[i]
        )
        .expect("writing to a string");
    }
    text
}

/// Everything about a case, with the outcomes that are known.
pub fn case(case: &Case, outcomes: &[(&str, Outcome)]) -> String {
    let program = &case.program;
    let mut text =
        format!("{}\n{}start:\n{}", case.name, disassembly(case), registers(&program.state));
    for (address, bytes) in &program.patches {
        let shown: String = bytes.iter().take(64).map(|b| format!("{b:02x}")).collect();
        writeln!(text, "  memory {address:#x}: {shown}").expect("writing to a string");
    }
    for (who, outcome) in outcomes {
        let Outcome { state, memory, stop } = outcome;
        writeln!(
            text,
            "{who}: vector {} at {:#x}, address {:#x}",
            stop.vector, state.rip, stop.address
        )
        .expect("writing to a string");
        text += &registers(state);
        for (address, bytes) in memory {
            let shown: String = bytes.iter().take(64).map(|b| format!("{b:02x}")).collect();
            writeln!(text, "  memory {address:#x}: {shown}").expect("writing to a string");
        }
    }
    if let [(expected_by, expected), (actual_by, actual)] = outcomes {
        for difference in compare(case, expected, actual) {
            let (e, a) = (difference.expected, difference.actual);
            writeln!(text, "DIFFERENT {}: {expected_by} {e}, {actual_by} {a}", difference.what)
                .expect("writing to a string");
        }
    }
    text
}
