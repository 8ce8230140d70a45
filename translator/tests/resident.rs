//! Loops of SHA-256 that keep everything in registers, beside the same ones turn by turn.
//! (arm64 only: translated code must execute. What faults in one is a whole program's subject.)
#![cfg(target_arch = "aarch64")]

mod loops;

use iced_x86::code_asm::*;
use loops::{listing, run};
use translator::engine::MemoryOrder;

type Assembler = CodeAssembler;
type Result = std::result::Result<(), IcedError>;

/// The message's words.
const WORDS: [AsmRegisterXmm; 4] = [xmm3, xmm4, xmm5, xmm6];

/// Rounds and the message schedule, four rounds at a time, with the words and constants of one.
fn rounds(
    a: &mut Assembler,
    groups: usize,
    between: fn(&mut Assembler, usize) -> Result,
) -> Result {
    for group in 0..groups {
        let [d, next, second, third] = std::array::from_fn(|i| WORDS[(group + i) % 4]);
        a.movdqa(xmm0, xmmword_ptr(rcx + 16 * group))?;
        a.paddd(xmm0, d)?;
        if group >= 3 {
            a.sha256msg2(next, d)?;
        }
        a.sha256rnds2(xmm2, xmm1)?;
        a.pshufd(xmm0, xmm0, 0x0e)?;
        if group >= 2 {
            let (before, to) = if group == 2 { (xmm5, xmm3) } else { (d, second) };
            let newest = if group == 2 { xmm6 } else { next };
            a.movdqa(xmm7, newest)?;
            a.palignr(xmm7, before, 4)?;
            a.paddd(to, xmm7)?;
        }
        if group >= 1 {
            let (to, with) = if group < 3 { (WORDS[group - 1], WORDS[group]) } else { (third, d) };
            a.sha256msg1(to, with)?;
        }
        between(a, group)?;
        a.sha256rnds2(xmm1, xmm2)?;
    }
    Ok(())
}

fn nothing(_: &mut Assembler, _: usize) -> Result {
    Ok(())
}

/// A turn, but for what counts.
fn turn(a: &mut Assembler, groups: usize, between: fn(&mut Assembler, usize) -> Result) -> Result {
    for (i, words) in WORDS.into_iter().enumerate() {
        a.movdqu(words, xmmword_ptr(rsi + 16 * i))?;
        a.pshufb(words, xmm7)?;
    }
    a.lea(rsi, rsi + 64)?;
    a.movdqa(xmm10, xmm2)?;
    a.movdqa(xmm9, xmm1)?;
    rounds(a, groups, between)?;
    a.movdqa(xmm7, xmm8)?;
    a.paddd(xmm2, xmm10)?;
    a.paddd(xmm1, xmm9)
}

/// A loop; what its counter is for so many turns; whether all can stay in registers.
type Shape = (fn(&mut Assembler, CodeLabel) -> Result, fn(u64) -> u64, bool);

const SHAPES: [Shape; 15] = [
    (
        |a, again| {
            turn(a, 16, nothing)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        true,
    ),
    (
        |a, again| {
            turn(a, 5, nothing)?;
            a.sub(eax, 5)?;
            a.jne(again)
        },
        |turns| turns * 5 | 0xabcd_0000_0000,
        true,
    ),
    (
        |a, again| {
            turn(a, 9, nothing)?;
            a.add(eax, 3)?;
            a.jne(again)
        },
        |turns| (turns * 3).wrapping_neg() & 0xffff_ffff,
        true,
    ),
    (
        |a, again| {
            a.inc(rax)?;
            turn(a, 4, nothing)?;
            a.lea(rdi, rdi + 7)?;
            a.jne(again)
        },
        u64::wrapping_neg,
        true,
    ),
    (
        // The constants are operands of additions; registers that are not changed are used.
        |a, again| {
            a.lea(rsi, rsi + 32)?;
            for (i, words) in WORDS.into_iter().enumerate() {
                a.movups(words, xmmword_ptr(rsi + 16 * i - 5))?;
                a.paddd(words, xmm13)?;
                a.movaps(xmm0, words)?;
                a.paddd(xmm0, xmmword_ptr(rcx + 16 * i))?;
                a.sha256rnds2(xmm2, xmm1)?;
                a.pshufd(xmm0, xmm0, 0xfe)?;
                a.sha256rnds2(xmm1, xmm2)?;
            }
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        true,
    ),
    (
        // Half of a pair is looked at.
        |a, again| {
            turn(a, 6, |a, group| match group {
                3 => a.movdqa(xmm11, xmm1),
                4 => a.movdqa(xmm12, xmm0),
                _ => Ok(()),
            })?;
            a.pshufd(xmm14, xmm12, 0x1b)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqa(xmm11, xmm1)?;
            a.movdqa(xmm12, xmm9)?;
            a.pshufd(xmm14, xmm3, 0x1b)?;
            a.movdqa(xmm0, xmm15)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        true,
    ),
    (
        // Words in x86's order are added to something else.
        |a, again| {
            turn(a, 4, nothing)?;
            a.paddd(xmm12, xmm1)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        // A sum is carried from turn to turn.
        |a, again| {
            turn(a, 4, nothing)?;
            a.paddd(xmm12, xmm3)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        // The counter is an address, too.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmm11, xmmword_ptr(rax + (loops::BASE + loops::DATA + 2048) as i32))?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        // What is loaded is in its register at the end of the turn.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmm11, xmmword_ptr(rsi))?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmm11, xmmword_ptr(rdi + 3))?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        true,
    ),
    (
        // The two registers change places.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqa(xmm11, xmm1)?;
            a.movdqa(xmm1, xmm2)?;
            a.movdqa(xmm2, xmm11)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        // It stores.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmmword_ptr(rdi), xmm1)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        false,
    ),
    (
        // Another constant in the first turn than in the others.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqa(xmm7, xmm15)?;
            a.dec(rax)?;
            a.jne(again)
        },
        |turns| turns,
        true,
    ),
];

#[test]
fn a_loop_in_registers_does_what_its_turns_do() {
    for (i, (body, counter, resident)) in SHAPES.into_iter().enumerate() {
        for turns in (1..=8).chain([30]) {
            let build = |a: &mut Assembler| {
                let (mut again, mut end) = (a.create_label(), a.create_label());
                a.movdqa(xmm8, xmm7).unwrap();
                a.set_label(&mut again).unwrap();
                body(a, again).unwrap();
                a.set_label(&mut end).unwrap();
                a.seto(dl).unwrap();
                a.cmp(ebx, ebx).unwrap();
            };
            let start = counter(turns);
            let one = run(MemoryOrder::Plain, start, build);
            let other = run(MemoryOrder::Host, start, build);
            assert_eq!(one.xmm, other.xmm, "shape {i}, {turns} turns");
            assert_eq!(one.gpr[..8], other.gpr[..8], "shape {i}, {turns} turns");
            // All registers are stored before the first turn.
            let is_resident = listing(MemoryOrder::Plain, build).contains("stp q14, q15");
            assert_eq!(is_resident, resident, "shape {i}");
        }
    }
}
