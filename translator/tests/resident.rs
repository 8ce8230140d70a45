//! Loops of SHA-256 that keep everything in registers, beside the same ones turn by turn.
//! (arm64 only: translated code must execute. What faults in one is a whole program's subject.)
#![cfg(target_arch = "aarch64")]

mod loops;

use iced_x86::code_asm::*;
use loops::{listing, run};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
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

/// The end of a turn that counts down.
fn down(a: &mut Assembler, again: CodeLabel) -> Result {
    a.dec(rax)?;
    a.jne(again)
}

/// A loop; what its counter is for so many turns; whether all can stay in registers.
type Shape = (fn(&mut Assembler, CodeLabel) -> Result, fn(u64) -> u64, bool);

const SHAPES: [Shape; 15] = [
    (
        |a, again| {
            turn(a, 16, nothing)?;
            down(a, again)
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
        |turns| (turns * 5) | 0xabcd_0000_0000,
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
            down(a, again)
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
            down(a, again)
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
            down(a, again)
        },
        |turns| turns,
        true,
    ),
    (
        // Words in x86's order are added to something else.
        |a, again| {
            turn(a, 4, nothing)?;
            a.paddd(xmm12, xmm1)?;
            down(a, again)
        },
        |turns| turns,
        false,
    ),
    (
        // A sum is carried from turn to turn.
        |a, again| {
            turn(a, 4, nothing)?;
            a.paddd(xmm12, xmm3)?;
            down(a, again)
        },
        |turns| turns,
        false,
    ),
    (
        // The counter is an address, too.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmm11, xmmword_ptr(rax + (loops::BASE + loops::DATA + 2048) as i32))?;
            down(a, again)
        },
        |turns| turns,
        false,
    ),
    (
        // What is loaded is in its register at the end of the turn.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmm11, xmmword_ptr(rsi))?;
            down(a, again)
        },
        |turns| turns,
        false,
    ),
    (
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmm11, xmmword_ptr(rdi + 3))?;
            down(a, again)
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
            down(a, again)
        },
        |turns| turns,
        false,
    ),
    (
        // It stores.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqu(xmmword_ptr(rdi), xmm1)?;
            down(a, again)
        },
        |turns| turns,
        false,
    ),
    (
        // Another constant in the first turn than in the others.
        |a, again| {
            turn(a, 4, nothing)?;
            a.movdqa(xmm7, xmm15)?;
            down(a, again)
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

/// What a turn may do besides its rounds. Numbers choose among the registers that there are.
#[derive(Clone, Debug)]
enum Action {
    Load(usize, u8),
    Constant(usize, u8),
    Move(usize, usize),
    Add(usize, usize),
    Shuffle(usize, usize),
    Words(usize, usize, u32),
    Align(usize, usize, u32),
    Schedule(usize, usize),
    Rounds(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let two = (any::<usize>(), any::<usize>());
    prop_oneof![
        (any::<usize>(), 0..40u8).prop_map(|(d, at)| Action::Load(d, at)),
        (any::<usize>(), 0..8u8).prop_map(|(d, at)| Action::Constant(d, at)),
        two.prop_map(|(d, s)| Action::Move(d, s)),
        two.prop_map(|(d, s)| Action::Add(d, s)),
        two.prop_map(|(d, s)| Action::Shuffle(d, s)),
        (two, 0..256u32).prop_map(|((d, s), by)| Action::Words(d, s, by)),
        (two, 0..16u32).prop_map(|((d, s), by)| Action::Align(d, s, by)),
        two.prop_map(|(d, s)| Action::Schedule(d, s)),
        any::<usize>().prop_map(Action::Rounds),
        any::<usize>().prop_map(Action::Rounds),
    ]
}

/// A loop of actions: nothing but the words is carried from turn to turn.
struct Random<'a> {
    a: &'a mut Assembler,
    /// Registers that this turn has written, and whether all they hold is what was loaded.
    written: Vec<(AsmRegisterXmm, bool)>,
}

impl Random<'_> {
    fn to(&mut self, choice: usize, loaded: bool) -> AsmRegisterXmm {
        const TO: [AsmRegisterXmm; 7] = [xmm3, xmm4, xmm5, xmm6, xmm7, xmm11, xmm12];
        let to = TO[choice % TO.len()];
        self.written.retain(|(register, _)| *register != to);
        self.written.push((to, loaded));
        to
    }

    /// One that has been written, and is changed now.
    fn changed(&mut self, choice: usize) -> Option<AsmRegisterXmm> {
        let place = choice.checked_rem(self.written.len())?;
        self.written[place].1 = false;
        Some(self.written[place].0)
    }

    fn from(&self, choice: usize) -> (AsmRegisterXmm, bool) {
        let same = [xmm13, xmm14, xmm15].map(|register| (register, false));
        let all: Vec<_> = self.written.iter().copied().chain(same).collect();
        all[choice % all.len()]
    }

    fn act(&mut self, action: &Action) -> Result {
        match *action {
            Action::Load(d, at) => {
                let d = self.to(d, true);
                self.a.movdqu(d, xmmword_ptr(rsi + i32::from(at) * 3))
            }
            Action::Constant(d, at) => {
                let d = self.to(d, false);
                self.a.movdqa(d, xmmword_ptr(rcx + 16 * i32::from(at)))
            }
            Action::Move(d, s) => {
                let (s, loaded) = self.from(s);
                let d = self.to(d, loaded);
                self.a.movdqa(d, s)
            }
            Action::Words(d, s, by) => {
                let s = self.from(s).0;
                let d = self.to(d, false);
                self.a.pshufd(d, s, by)
            }
            Action::Add(d, s) => {
                let s = self.from(s).0;
                self.changed(d).map_or(Ok(()), |d| self.a.paddd(d, s))
            }
            Action::Shuffle(d, s) => {
                let s = self.from(s).0;
                self.changed(d).map_or(Ok(()), |d| self.a.pshufb(d, s))
            }
            Action::Align(d, s, by) => {
                let s = self.from(s).0;
                self.changed(d).map_or(Ok(()), |d| self.a.palignr(d, s, by))
            }
            Action::Schedule(d, s) => {
                let s = self.from(s).0;
                self.changed(d).map_or(Ok(()), |d| self.a.sha256msg1(d, s))
            }
            Action::Rounds(words) => {
                let words = self.from(words).0;
                self.a.movdqa(xmm0, words)?;
                self.a.paddd(xmm0, xmmword_ptr(rcx))?;
                self.a.sha256rnds2(xmm2, xmm1)?;
                self.a.pshufd(xmm0, xmm0, 0x0e)?;
                self.a.sha256rnds2(xmm1, xmm2)
            }
        }
    }

    fn turn(&mut self, actions: &[Action], adds: bool) -> Result {
        self.a.movdqa(xmm9, xmm1)?;
        self.a.movdqa(xmm10, xmm2)?;
        for action in actions {
            self.act(action)?;
        }
        if adds {
            self.a.paddd(xmm1, xmm9)?;
            self.a.paddd(xmm2, xmm10)?;
        }
        for (register, loaded) in std::mem::take(&mut self.written) {
            if loaded {
                self.a.paddd(register, xmm13)?;
            }
        }
        self.a.lea(rsi, rsi + 48)
    }
}

#[test]
fn random_loops_do_what_their_turns_do() {
    let residents = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let strategy = (proptest::collection::vec(action(), 1..30), any::<bool>());
    let checked = runner.run(&strategy, |(actions, adds)| {
        let build = |a: &mut Assembler| {
            let mut again = a.create_label();
            a.set_label(&mut again).unwrap();
            Random { a: &mut *a, written: Vec::new() }.turn(&actions, adds).unwrap();
            a.dec(rax).unwrap();
            a.jne(again).unwrap();
            a.cmp(ebx, ebx).unwrap();
        };
        let one = run(MemoryOrder::Plain, 6, build);
        let other = run(MemoryOrder::Host, 6, build);
        prop_assert_eq!(one.xmm, other.xmm);
        prop_assert_eq!(&one.gpr[..8], &other.gpr[..8]);
        if listing(MemoryOrder::Plain, build).contains("stp q14, q15") {
            residents.set(residents.get() + 1);
        }
        Ok(())
    });
    checked.unwrap();
    assert!(residents.get() > 50, "{} of them stay in registers", residents.get());
}
