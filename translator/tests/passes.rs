//! Loops of which several turns are done in one pass, beside the same ones without.
//! (arm64 only: translated code must execute. What faults in a pass is a whole program's subject.)
#![cfg(target_arch = "aarch64")]

mod loops;

use iced_x86::code_asm::*;
use loops::{BASE, DATA, run};
use translator::engine::MemoryOrder;

/// A loop; and what its counter is for so many turns.
type Shape = (fn(&mut CodeAssembler, CodeLabel), fn(u64) -> u64);

const SHAPES: [Shape; 16] = [
    (
        |a, again| {
            a.aesenclast(xmm2, xmm1).unwrap();
            a.add(eax, -1).unwrap();
            a.movups(xmm1, xmmword_ptr(rcx)).unwrap();
            a.lea(rcx, rcx + 16).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
    (
        |a, again| {
            a.movups(xmm1, xmmword_ptr(rcx)).unwrap();
            a.aesdec(xmm2, xmm1).unwrap();
            a.lea(rcx, rcx + 16).unwrap();
            a.sub(rax, -16).unwrap();
            a.jne(again).unwrap();
        },
        |turns| (turns * 16).wrapping_neg(),
    ),
    (
        |a, again| {
            a.movdqu(xmm3, xmmword_ptr(rsi - 16)).unwrap();
            a.aesenc(xmm2, xmm3).unwrap();
            a.aesenc(xmm4, xmm3).unwrap();
            a.sub(rsi, 16).unwrap();
            a.inc(rax).unwrap();
            a.jne(again).unwrap();
        },
        u64::wrapping_neg,
    ),
    (
        // The counter is the address, too.
        |a, again| {
            a.movups(xmm1, xmmword_ptr(rax + (BASE + DATA + 800) as i32)).unwrap();
            a.aesenc(xmm2, xmm1).unwrap();
            a.add(rax, 16).unwrap();
            a.jne(again).unwrap();
        },
        |turns| (turns * 16).wrapping_neg(),
    ),
    (
        // By five.
        |a, again| {
            a.movups(xmm1, xmmword_ptr(rcx)).unwrap();
            a.aesenc(xmm0, xmm1).unwrap();
            a.add(rcx, 16).unwrap();
            a.sub(eax, 5).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns * 5,
    ),
    (
        |a, again| {
            a.aesenc(xmm2, xmm1).unwrap();
            a.dec(eax).unwrap();
            a.movups(xmm1, xmmword_ptr(rcx)).unwrap();
            a.lea(rcx, rcx + 16).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
    (
        // Two keys, two states, one loaded at the start of a turn and one in its middle.
        |a, again| {
            a.movups(xmm1, xmmword_ptr(rcx + 32)).unwrap();
            a.aesdec(xmm2, xmm1).unwrap();
            a.aesdec(xmm3, xmm0).unwrap();
            a.movups(xmm0, xmmword_ptr(rcx + 48)).unwrap();
            a.add(rcx, 32).unwrap();
            a.aesdec(xmm2, xmm0).unwrap();
            a.sub(rax, 1).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
    (
        // With an index, which counts up to zero: no pass.
        |a, again| {
            a.movdqu(xmm1, xmmword_ptr(rsi + rax)).unwrap();
            a.paddd(xmm0, xmm1).unwrap();
            a.add(rax, 16).unwrap();
            a.jne(again).unwrap();
        },
        |turns| (turns * 16).wrapping_neg(),
    ),
    (
        // It is advanced before the load, and scaled.
        |a, again| {
            a.add(rax, 8).unwrap();
            a.movdqu(xmm1, xmmword_ptr(rsi + rax * 2 - 4)).unwrap();
            a.pxor(xmm0, xmm1).unwrap();
            a.jne(again).unwrap();
        },
        |turns| (turns * 8).wrapping_neg(),
    ),
    (
        |a, again| {
            a.sub(rcx, 16).unwrap();
            a.movdqu(xmm1, xmmword_ptr(rcx + 1024)).unwrap();
            a.psubb(xmm0, xmm1).unwrap();
            a.inc(eax).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns.wrapping_neg() & 0xffff_ffff,
    ),
    (
        // What is loaded is an operand of two operations; in one turn, and of the next turn.
        |a, again| {
            a.movdqu(xmm1, xmmword_ptr(rsi)).unwrap();
            a.paddw(xmm0, xmm1).unwrap();
            a.pxor(xmm4, xmm1).unwrap();
            a.psubd(xmm4, xmm2).unwrap();
            a.movdqu(xmm2, xmmword_ptr(rdi + 5)).unwrap();
            a.add(rax, 32).unwrap();
            a.jne(again).unwrap();
        },
        |turns| (turns * 32).wrapping_neg(),
    ),
    (
        // The operand is the register that is operated on; two pointers.
        |a, again| {
            a.add(rsi, 32).unwrap();
            a.movdqu(xmm1, xmmword_ptr(rsi - 24)).unwrap();
            a.movdqu(xmm2, xmmword_ptr(rcx)).unwrap();
            a.pxor(xmm0, xmm1).unwrap();
            a.paddq(xmm0, xmm0).unwrap();
            a.inc(rcx).unwrap();
            a.sub(eax, 3).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns * 3,
    ),
    (
        // Three loads: no pass.
        |a, again| {
            a.movdqu(xmm1, xmmword_ptr(rsi)).unwrap();
            a.movdqu(xmm2, xmmword_ptr(rdi)).unwrap();
            a.movdqu(xmm3, xmmword_ptr(rdi + 5)).unwrap();
            a.paddw(xmm0, xmm1).unwrap();
            a.pxor(xmm0, xmm2).unwrap();
            a.psubd(xmm4, xmm3).unwrap();
            a.dec(rax).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
    (
        // An address of which only the lower half is counted: no pass.
        |a, again| {
            a.movdqu(xmm1, xmmword_ptr(rsi + rax)).unwrap();
            a.paddd(xmm0, xmm1).unwrap();
            a.dec(eax).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
    (
        // What is loaded is changed, too: no pass.
        |a, again| {
            a.movdqu(xmm1, xmmword_ptr(rsi)).unwrap();
            a.pxor(xmm1, xmm2).unwrap();
            a.paddd(xmm2, xmm1).unwrap();
            a.add(rsi, 16).unwrap();
            a.dec(eax).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
    (
        // The flags are not the counter's: no pass.
        |a, again| {
            a.dec(eax).unwrap();
            a.movdqu(xmm1, xmmword_ptr(rsi)).unwrap();
            a.pxor(xmm2, xmm1).unwrap();
            a.add(rsi, 16).unwrap();
            a.cmp(eax, 0).unwrap();
            a.jne(again).unwrap();
        },
        |turns| turns,
    ),
];

#[test]
fn a_pass_does_what_its_turns_do() {
    for (i, (body, counter)) in SHAPES.into_iter().enumerate() {
        let turns = (1..=26).chain([47]);
        // All flags of the last turn: then INC and DEC, which leave CF as it is, are in no pass.
        for (turns, all) in turns.flat_map(|turns| [(turns, false), (turns, true)]) {
            let build = |a: &mut CodeAssembler| {
                let mut again = a.create_label();
                a.set_label(&mut again).unwrap();
                body(a, again);
                a.sets(dl).unwrap();
                if all {
                    a.seto(dl).unwrap();
                    a.lahf().unwrap();
                }
                a.cmp(ebx, ebx).unwrap();
            };
            let start = counter(turns);
            let one = run(MemoryOrder::Plain, start, build);
            let other = run(MemoryOrder::Host, start, build);
            assert_eq!(one.xmm, other.xmm, "shape {i}, {turns} turns");
            assert_eq!(one.gpr[..8], other.gpr[..8], "shape {i}, {turns} turns");
        }
    }
}
