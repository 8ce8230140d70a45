//! Every operation against the processor this runs on: registers, status and tag words, stored
//! values and flags, over random and boundary operands, rounding modes, precisions and masks.

use super::arith::Arith;
use super::compare::Relation;
use super::convert::Source;
use super::f80::{F80, status};
use super::image;
use super::ops::{self, Binary, Pair, Target, Unary};
use crate::state::X87State;
use std::arch::asm;

/// Memory of an instruction: an operand, or room for a result.
type Memory = [u8; 112];
/// The status flags ZF, PF, CF.
const FLAGS: u64 = 0x45;

/// A random number generator (xorshift64*), so that every run tests the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn significand(&mut self) -> u64 {
        const TOP: u64 = 1 << 63;
        let r = self.next() | TOP;
        match self.below(12) {
            0 => TOP,
            1 => TOP | 1,
            2 => u64::MAX,
            3 => TOP | 1 << 62,
            4 => r & !((1 << 40) - 1) | self.pick(&[1 << 39, (1 << 39) - 1, (1 << 40) - 1, 1]),
            5 => r & !((1 << 11) - 1) | self.pick(&[1 << 10, (1 << 10) - 1, (1 << 11) - 1, 1]),
            6 => r & !0 << self.below(64) | TOP,
            7 => TOP | self.next() >> self.below(64),
            _ => r,
        }
    }

    /// A value whose exponent, if it is an ordinary one, is near `base`.
    fn value(&mut self, base: u16) -> F80 {
        let negative = self.one_in(2);
        let significand = self.significand();
        match self.below(40) {
            0 => F80::zero(negative),
            1 => F80::infinity(negative),
            2 => F80::new(negative, 0x7fff, significand),
            3 => F80::new(negative, 0x7fff, significand & !(1 << 62) | 1),
            4 => F80::new(negative, 0, significand),
            5 => F80::new(negative, 0, significand >> 1 >> self.below(63)),
            6 => F80::new(negative, self.pick(&[0x7fff, 0x7ffe, 1, 0x3fff]), significand << 1 >> 1),
            7 => F80::new(negative, self.pick(&[1, 2, 3, 0x7ffd, 0x7ffe]), significand),
            8 => F80::new(negative, self.next() as u16 & 0x7fff, significand),
            9 => F80::new(negative, 0x3fff, 1 << 63),
            10..20 => F80::new(negative, 0x3fff - 70 + self.below(140) as u16, significand),
            _ => F80::new(negative, base + self.below(5) as u16, significand),
        }
    }

    fn control(&mut self) -> u16 {
        let masks = if self.one_in(3) { self.next() as u16 & 0x3f } else { 0x3f };
        0x40 | masks | self.next() as u16 & 0xf00
    }

    fn state(&mut self) -> X87State {
        let base = match self.below(8) {
            0 => 1 + self.below(80) as u16,
            1 => 0x7fff - 5 - self.below(80) as u16,
            2 => 0x3fff - 127 + self.below(4) as u16,
            3 => 0x3fff - 1023 + self.below(4) as u16,
            4 => 0x3fff + 120 + self.below(10) as u16,
            5 => 0x3fff + 1018 + self.below(8) as u16,
            6 => self.below(0x7ff0) as u16,
            _ => 0x3fff - 4 + self.below(8) as u16,
        };
        let mut x = X87State { cw: self.control(), ..X87State::INIT };
        x.top = self.below(8) as u16;
        x.tag = match self.below(8) {
            0 => self.next() as u16 & 0xff,
            _ => !(1 << ((x.top + 7) & 7)) & 0xff,
        };
        x.sw = self.next() as u16 & (status::CONDITION | status::SF | x.cw & 0x3f);
        for r in &mut x.st {
            *r = self.value(base).to_bits();
        }
        x
    }

    /// A memory operand: a float or double of a boundary class, an integer, or anything.
    fn memory(&mut self) -> Memory {
        let mut memory = [0; 112];
        let (fraction, sign) = (self.next(), self.next() << 63);
        let word: u128 = match self.below(6) {
            0 => self.next().into(),
            1 => {
                let exp = self.pick(&[0, 0, 1, 0x3ff, 0x3fe, 0x400, 0x7fe, 0x7ff, 0x7ff]);
                let fraction = self.pick(&[0, 1, 1 << 51, fraction >> 12]);
                (sign | exp << 52 | fraction).into()
            }
            2 => {
                let exp = self.pick(&[0, 0, 1, 0x7f, 0x7e, 0x80, 0xfe, 0xff, 0xff]);
                let fraction = self.pick(&[0, 1, 1 << 22, fraction >> 41]);
                (sign >> 32 | exp << 23 | fraction).into()
            }
            3 => self.value(0x3fff).to_bits(),
            4 => {
                let digits = (0..18).fold(0, |d, _| d << 4 | u128::from(self.below(10)));
                digits >> (4 * self.below(18)) | u128::from(sign) << 16
            }
            _ => u128::from(self.below(20)).wrapping_sub(10),
        };
        memory[..16].copy_from_slice(&word.to_le_bytes());
        memory[16..].fill_with(|| self.next() as u8);
        memory
    }
}

/// An instruction on the processor: image in, image out, flags out.
type Native = fn(&mut [u8; image::SAVE_SIZE], &mut Memory) -> u64;

/// The processor's side of a test. The operand, if in memory, is at `rdi`.
macro_rules! native {
    ($instruction:expr) => {{
        fn run(image: &mut [u8; image::SAVE_SIZE], memory: &mut Memory) -> u64 {
            let flags: u64;
            // SAFETY: the instruction reads and writes x87 state, which nothing else uses and
            // FNSAVE leaves initialised, and at most the 112 bytes of `memory`.
            unsafe {
                asm!(
                    "frstor [{image}]",
                    "xor eax, eax",
                    $instruction,
                    "pushfq",
                    "pop {flags}",
                    "fnsave [{image}]",
                    image = in(reg) image, in("rdi") memory, flags = out(reg) flags,
                    out("rax") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            flags & FLAGS
        }
        run
    }};
}

/// This module's side of a test; gives the flags if it sets them.
type Model = fn(&mut X87State, &mut Memory) -> Option<Relation>;

fn operand(memory: &Memory) -> u64 {
    u64::from_le_bytes(memory[..8].try_into().expect("eight bytes"))
}

fn wide_operand(memory: &Memory) -> u128 {
    u128::from_le_bytes(memory[..16].try_into().expect("sixteen bytes")) & ((1 << 80) - 1)
}

fn store(x: &mut X87State, memory: &mut Memory, target: Target, size: usize, pop: bool) {
    let stored = ops::store(x, target);
    if let Some(value) = stored.value {
        memory[..size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    ops::complete_store(x, stored, pop);
}

fn relation_flags(relation: Relation) -> u64 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => 0x01,
        Relation::Equal => 0x40,
        Relation::Unordered => 0x45,
    }
}

/// What must be the same: control, status, tags, registers.
fn visible(image: &[u8; image::SAVE_SIZE]) -> Visible {
    let half = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let value = |i: usize| {
        let bytes = &image[28 + 10 * i..38 + 10 * i];
        F80 {
            significand: u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")),
            sign_exp: u16::from_le_bytes([bytes[8], bytes[9]]),
        }
    };
    (half(0), half(4), half(8), (0..8).map(value).collect())
}

/// How much two results may differ.
#[derive(Clone, Copy, PartialEq)]
enum Tolerance {
    Exact,
    /// One unit in the last place of a result, C1, and the exceptions that hang on it.
    OneUlp,
}

fn close(a: F80, b: F80) -> bool {
    let key = |x: F80| i128::from(x.exp()) << 63 | i128::from(x.significand & !(1 << 63));
    a.negative() == b.negative() && (key(a) - key(b)).abs() <= 1
}

/// What the processor answered, and the model: see [`visible`].
type Visible = (u16, u16, u16, Vec<F80>);

/// Whether the two differ only in what processors differ in. Next to the smallest normal number one rounds up and another
/// does not, and what is below has an underflow and another tag. And of an operand that comes back as it was, and is
/// that small, some do not say that underflow is unmasked (an Emerald Rapids does not, where the model scales it).
fn differ_near_underflow(tolerance: Tolerance, before: &[F80], e: &Visible, a: &Visible) -> bool {
    // UE, the summary of unmasked exceptions, and B, which is the same.
    const UNDERFLOW: u16 = 1 << 4 | 1 << 7 | 1 << 15;
    let rounds = tolerance == Tolerance::OneUlp;
    let rounding = if rounds { status::C1 } else { 0 };
    let told_by_model_alone = !e.1 & a.1 & 1 << 4 != 0;
    let near = |e: F80, a: F80| {
        let (exact, model) = (unscaled(e), unscaled(a));
        let unchanged = exact == model && told_by_model_alone && before.contains(&e);
        let rounded = rounds && exact != model && close(exact, model);
        (unchanged || rounded) && exact.exp().min(model.exp()) == 0
    };
    let mut values = e.3.iter().zip(&a.3);
    e.0 == a.0
        && (e.1 ^ a.1) & !(UNDERFLOW | rounding) == 0
        && values.clone().any(|(&e, &a)| e != a && near(e, a))
        && values.all(|(&e, &a)| e == a || rounds && close(e, a) || near(e, a))
}

/// Takes back what an unmasked underflow does to the exponent (Intel SDM vol. 1, 8.5.5), and makes it a denormal number.
fn unscaled(x: F80) -> F80 {
    const ADDED: u32 = 24576;
    match (1 + ADDED).checked_sub(u32::from(x.exp())) {
        Some(shift @ 1..=63) => {
            F80 { significand: x.significand >> shift, sign_exp: x.sign_exp & 0x8000 }
        }
        _ => x,
    }
}

fn run(name: &str, count: u32, tolerance: Tolerance, native: Native, model: Model) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut wrong, mut inexact) = (0, 0);
    for _ in 0..count {
        let before = random.state();
        let memory = random.memory();
        let (mut expected, mut expected_memory) = (image::save(&before), memory);
        let flags = native(&mut expected, &mut expected_memory);
        let (mut x, mut actual_memory) = (before, memory);
        let relation = model(&mut x, &mut actual_memory);
        let (e, a) = (visible(&expected), visible(&image::save(&x)));
        let flags_agree = relation.is_none_or(|r| relation_flags(r) == flags);
        if e == a && expected_memory == actual_memory && flags_agree {
            continue;
        }
        inexact += 1;
        if differ_near_underflow(tolerance, &visible(&image::save(&before)).3, &e, &a)
            && expected_memory == actual_memory
        {
            continue;
        }
        let values_close = e.3.iter().zip(&a.3).all(|(e, a)| close(*e, *a));
        let status_close = (e.1 ^ a.1) & !status::C1 == 0;
        if tolerance == Tolerance::OneUlp && values_close && status_close && e.2 == a.2 {
            continue;
        }
        wrong += 1;
        if wrong <= 6 {
            let show = |v: &Visible| {
                let st: Vec<_> =
                    v.3.iter()
                        .take(3)
                        .map(|f| format!("{:04x}:{:016x}", f.sign_exp, f.significand))
                        .collect();
                format!("cw {:04x} sw {:04x} tags {:04x} st {}", v.0, v.1, v.2, st.join(" "))
            };
            eprintln!(
                "{name}: before    {} tag {:02x} mem {:020x}",
                show(&visible(&image::save(&before))),
                before.tag,
                wide_operand(&memory)
            );
            eprintln!(
                "{name}: processor {} {flags:x} {:020x}",
                show(&e),
                wide_operand(&expected_memory)
            );
            eprintln!(
                "{name}: model     {} {:?} {:020x}",
                show(&a),
                relation,
                wide_operand(&actual_memory)
            );
        }
    }
    if tolerance == Tolerance::OneUlp {
        eprintln!("{name}: {} of {count} not identical", inexact);
    }
    assert_eq!(wrong, 0, "{name}: {wrong} of {count} differ");
}

/// Declares tests: name, instruction, model.
macro_rules! tests {
    ($($name:ident $count:literal $tolerance:ident: $instruction:expr, |$x:ident, $m:ident| $model:expr;)*) => { $(
        #[test]
        fn $name() {
            run(stringify!($name), $count, Tolerance::$tolerance, native!($instruction), |$x, $m| $model);
        }
    )* };
}

/// A model that does not set the flags.
macro_rules! plain {
    ($e:expr) => {{
        $e;
        None
    }};
}

tests! {
    fadd_st0_sti 300000 Exact: "fadd st, st(1)", |x, _m| plain!(ops::arith_st(x, Arith::Add, 0, 1, false));
    fadd_sti_st0 50000 Exact: "fadd st(2), st", |x, _m| plain!(ops::arith_st(x, Arith::Add, 2, 0, false));
    faddp 50000 Exact: "faddp st(1), st", |x, _m| plain!(ops::arith_st(x, Arith::Add, 1, 0, true));
    fsub_st0_sti 300000 Exact: "fsub st, st(1)", |x, _m| plain!(ops::arith_st(x, Arith::Sub, 0, 1, false));
    fsubr_st0_sti 100000 Exact: "fsubr st, st(1)", |x, _m| plain!(ops::arith_st(x, Arith::SubR, 0, 1, false));
    fsub_sti_st0 50000 Exact: ".byte 0xdc, 0xe9", |x, _m| plain!(ops::arith_st(x, Arith::Sub, 1, 0, false));
    fsubrp 50000 Exact: ".byte 0xde, 0xe1", |x, _m| plain!(ops::arith_st(x, Arith::SubR, 1, 0, true));
    fmul_st0_sti 300000 Exact: "fmul st, st(1)", |x, _m| plain!(ops::arith_st(x, Arith::Mul, 0, 1, false));
    fdiv_st0_sti 300000 Exact: "fdiv st, st(1)", |x, _m| plain!(ops::arith_st(x, Arith::Div, 0, 1, false));
    fdivr_st0_sti 100000 Exact: "fdivr st, st(1)", |x, _m| plain!(ops::arith_st(x, Arith::DivR, 0, 1, false));
    fdivp 50000 Exact: ".byte 0xde, 0xf9", |x, _m| plain!(ops::arith_st(x, Arith::Div, 1, 0, true));
    fadd_m32 50000 Exact: "fadd dword ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::Add, Source::F32, operand(m)));
    fsub_m64 50000 Exact: "fsub qword ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::Sub, Source::F64, operand(m)));
    fmul_m64 50000 Exact: "fmul qword ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::Mul, Source::F64, operand(m)));
    fdivr_m32 50000 Exact: "fdivr dword ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::DivR, Source::F32, operand(m)));
    fdiv_m64 50000 Exact: "fdiv qword ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::Div, Source::F64, operand(m)));
    fiadd_m16 50000 Exact: "fiadd word ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::Add, Source::I16, operand(m)));
    fidiv_m32 50000 Exact: "fidiv dword ptr [rdi]", |x, m| plain!(ops::arith_m(x, Arith::Div, Source::I32, operand(m)));
    fsqrt 300000 Exact: "fsqrt", |x, _m| plain!(ops::unary(x, Unary::Sqrt));
    fchs 20000 Exact: "fchs", |x, _m| plain!(ops::unary(x, Unary::Chs));
    fabs 20000 Exact: "fabs", |x, _m| plain!(ops::unary(x, Unary::Abs));
    frndint 200000 Exact: "frndint", |x, _m| plain!(ops::unary(x, Unary::RndInt));
    fprem 300000 Exact: "fprem", |x, _m| plain!(ops::binary(x, Binary::Prem));
    fprem1 300000 Exact: "fprem1", |x, _m| plain!(ops::binary(x, Binary::Prem1));
    fscale 300000 Exact: "fscale", |x, _m| plain!(ops::binary(x, Binary::Scale));
    fxtract 50000 Exact: "fxtract", |x, _m| plain!(ops::pair(x, Pair::Xtract));
    fcom 100000 Exact: "fcom st(1)", |x, _m| plain!(ops::compare_st(x, 1, false, 0));
    fcompp 20000 Exact: "fcompp", |x, _m| plain!(ops::compare_st(x, 1, false, 2));
    fucomp 50000 Exact: "fucomp st(3)", |x, _m| plain!(ops::compare_st(x, 3, true, 1));
    fcom_m32 50000 Exact: "fcom dword ptr [rdi]", |x, m| plain!(ops::compare_m(x, Source::F32, operand(m), false));
    fcomp_m64 50000 Exact: "fcomp qword ptr [rdi]", |x, m| plain!(ops::compare_m(x, Source::F64, operand(m), true));
    ficom_m32 50000 Exact: "ficom dword ptr [rdi]", |x, m| plain!(ops::compare_m(x, Source::I32, operand(m), false));
    ftst 50000 Exact: "ftst", |x, _m| plain!(ops::test(x));
    fxam 50000 Exact: "fxam", |x, _m| plain!(ops::examine(x));
    fcomi 100000 Exact: "fcomi st, st(1)", |x, _m| Some(ops::compare_flags(x, 1, false, false));
    fucomip 50000 Exact: "fucomip st, st(1)", |x, _m| Some(ops::compare_flags(x, 1, true, true));
    fld_m32 50000 Exact: "fld dword ptr [rdi]", |x, m| plain!(ops::load(x, Source::F32, operand(m)));
    fld_m64 50000 Exact: "fld qword ptr [rdi]", |x, m| plain!(ops::load(x, Source::F64, operand(m)));
    fld_m80 50000 Exact: "fld tbyte ptr [rdi]", |x, m| plain!(ops::load_f80(x, F80::from_bits(wide_operand(m))));
    fild_m16 50000 Exact: "fild word ptr [rdi]", |x, m| plain!(ops::load(x, Source::I16, operand(m)));
    fild_m32 50000 Exact: "fild dword ptr [rdi]", |x, m| plain!(ops::load(x, Source::I32, operand(m)));
    fild_m64 50000 Exact: "fild qword ptr [rdi]", |x, m| plain!(ops::load(x, Source::I64, operand(m)));
    fbld 50000 Exact: "fbld tbyte ptr [rdi]", |x, m| plain!(ops::load_bcd(x, wide_operand(m)));
    fld_st 20000 Exact: "fld st(3)", |x, _m| plain!(ops::load_st(x, 3));
    fld1 5000 Exact: "fld1", |x, _m| plain!(ops::load_constant(x, 0));
    fldl2t 5000 Exact: "fldl2t", |x, _m| plain!(ops::load_constant(x, 1));
    fldl2e 5000 Exact: "fldl2e", |x, _m| plain!(ops::load_constant(x, 2));
    fldpi 5000 Exact: "fldpi", |x, _m| plain!(ops::load_constant(x, 3));
    fldlg2 5000 Exact: "fldlg2", |x, _m| plain!(ops::load_constant(x, 4));
    fldln2 5000 Exact: "fldln2", |x, _m| plain!(ops::load_constant(x, 5));
    fldz 5000 Exact: "fldz", |x, _m| plain!(ops::load_constant(x, 6));
    fst_st 20000 Exact: "fst st(3)", |x, _m| plain!(ops::store_st(x, 3, false));
    fstp_st 20000 Exact: "fstp st(2)", |x, _m| plain!(ops::store_st(x, 2, true));
    fst_m32 300000 Exact: "fst dword ptr [rdi]", |x, m| plain!(store(x, m, Target::F32, 4, false));
    fstp_m64 300000 Exact: "fstp qword ptr [rdi]", |x, m| plain!(store(x, m, Target::F64, 8, true));
    fstpnce 20000 Exact: ".byte 0xd9, 0xda", |x, _m| plain!(ops::store_unchecked(x, 2));
    fstp_m80 20000 Exact: "fstp tbyte ptr [rdi]", |x, m| plain!(store(x, m, Target::F80, 10, true));
    fist_m16 100000 Exact: "fist word ptr [rdi]", |x, m| plain!(store(x, m, Target::I16, 2, false));
    fistp_m32 100000 Exact: "fistp dword ptr [rdi]", |x, m| plain!(store(x, m, Target::I32, 4, true));
    fistp_m64 100000 Exact: "fistp qword ptr [rdi]", |x, m| plain!(store(x, m, Target::I64, 8, true));
    fisttp_m16 50000 Exact: "fisttp word ptr [rdi]", |x, m| plain!(store(x, m, Target::TruncatedI16, 2, true));
    fisttp_m32 50000 Exact: "fisttp dword ptr [rdi]", |x, m| plain!(store(x, m, Target::TruncatedI32, 4, true));
    fisttp_m64 50000 Exact: "fisttp qword ptr [rdi]", |x, m| plain!(store(x, m, Target::TruncatedI64, 8, true));
    fbstp 100000 Exact: "fbstp tbyte ptr [rdi]", |x, m| plain!(store(x, m, Target::Bcd, 10, true));
    fxch 20000 Exact: "fxch st(2)", |x, _m| plain!(ops::exchange(x, 2));
    fcmovne_taken_not 20000 Exact: "cmp eax, eax\nfcmovne st, st(2)", |x, _m| plain!(ops::conditional_move(x, 2, false));
    fcmove_taken 20000 Exact: "cmp eax, eax\nfcmove st, st(2)", |x, _m| plain!(ops::conditional_move(x, 2, true));
    ffree 5000 Exact: "ffree st(5)", |x, _m| plain!(ops::free(x, 5));
    fincstp 5000 Exact: "fincstp", |x, _m| plain!(ops::move_top(x, true));
    fdecstp 5000 Exact: "fdecstp", |x, _m| plain!(ops::move_top(x, false));
    fninit 1000 Exact: "fninit", |x, _m| plain!(ops::init(x));
    fnclex 1000 Exact: "fnclex", |x, _m| plain!(ops::clear_exceptions(x));
    fldcw 20000 Exact: "fldcw word ptr [rdi]", |x, m| plain!(ops::load_control(x, operand(m) as u16));
    fldenv 20000 Exact: "fldenv [rdi]", |x, m| plain!(image::load_env(x, m[..28].try_into().expect("28 bytes")));
    short_fldenv 20000 Exact: ".byte 0x66\nfldenv [rdi]", |x, m| plain!(image::load_short_env(x, m[..14].try_into().expect("14 bytes")));
    short_frstor 20000 Exact: ".byte 0x66\nfrstor [rdi]", |x, m| plain!(image::short_restore(x, m[..94].try_into().expect("94 bytes")));
    frstor 20000 Exact: "frstor [rdi]", |x, m| plain!(image::restore(x, m[..108].try_into().expect("108 bytes")));
    f2xm1 200000 OneUlp: "f2xm1", |x, _m| plain!(ops::unary(x, Unary::F2xm1));
    fsin 200000 OneUlp: "fsin", |x, _m| plain!(ops::unary(x, Unary::Sin));
    fcos 200000 OneUlp: "fcos", |x, _m| plain!(ops::unary(x, Unary::Cos));
    fsincos 200000 OneUlp: "fsincos", |x, _m| plain!(ops::pair(x, Pair::SinCos));
    fptan 200000 OneUlp: "fptan", |x, _m| plain!(ops::pair(x, Pair::Ptan));
    fpatan 200000 OneUlp: "fpatan", |x, _m| plain!(ops::binary(x, Binary::Patan));
    fyl2x 200000 OneUlp: "fyl2x", |x, _m| plain!(ops::binary(x, Binary::Yl2x));
    fyl2xp1 200000 OneUlp: "fyl2xp1", |x, _m| plain!(ops::binary(x, Binary::Yl2xp1));
}
