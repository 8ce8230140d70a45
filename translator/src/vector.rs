//! Run-time helpers of vector instructions: string comparison and SHA rounds.
//! See [`crate::helpers`] for their contract.
//!
//! A two-operand instruction passes its second operand by value in the first two arguments, and in the
//! third the number of the first operand's register, with the immediate in bits 15:8.

use crate::helpers::Pair;
use crate::state::{CpuState, reg, rflags};

const DONE: Pair = Pair(0, 0);

/// The second operand.
fn operand(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn words(v: u128) -> [u32; 4] {
    [0, 32, 64, 96].map(|shift| (v >> shift) as u32)
}

fn from_words(w: [u32; 4]) -> u128 {
    w.iter().rev().fold(0, |v, &w| v << 32 | u128::from(w))
}

/// Declares the helpers of two-operand instructions: destination = f(first, second, xmm0, immediate).
macro_rules! two_operands {
    ($($(#[$doc:meta])* $name:ident = $f:ident;)*) => { $(
        $(#[$doc])*
        pub extern "C" fn $name(cpu: &mut CpuState, low: u64, high: u64, third: u64) -> Pair {
            let (d, imm) = (third as usize & 15, (third >> 8) as u8);
            let second = operand(low, high);
            cpu.xmm[d] = from_words($f(words(cpu.xmm[d]), words(second), words(cpu.xmm[0]), imm));
            DONE
        }
    )* }
}

two_operands! {
    /// SHA1RNDS4.
    sha1rnds4 = four_sha1_rounds;
    /// SHA1NEXTE.
    sha1nexte = next_sha1_e;
    /// SHA256RNDS2.
    sha256rnds2 = two_sha256_rounds;
    /// SHA256MSG1.
    sha256msg1 = first_sha256_message;
    /// SHA256MSG2.
    sha256msg2 = second_sha256_message;
}

/// Intel SDM vol. 2, SHA1RNDS4. Word 3 is A (or the first message word).
fn four_sha1_rounds(abcd: [u32; 4], wes: [u32; 4], _: [u32; 4], imm: u8) -> [u32; 4] {
    let [mut d, mut c, mut b, mut a] = abcd;
    let mut e = 0; // included in the first message word
    for i in 0..4 {
        let (f, k) = match imm & 3 {
            0 => ((b & c) ^ (!b & d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => ((b & c) ^ (b & d) ^ (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let next = a
            .rotate_left(5)
            .wrapping_add(f)
            .wrapping_add(wes[3 - i])
            .wrapping_add(k)
            .wrapping_add(e);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    [d, c, b, a]
}

fn next_sha1_e(first: [u32; 4], mut second: [u32; 4], _: [u32; 4], _: u8) -> [u32; 4] {
    second[3] = second[3].wrapping_add(first[3].rotate_left(30));
    second
}

/// Intel SDM vol. 2, SHA256RNDS2: the first operand is CDGH, the second ABEF; xmm0 holds the sums of message words and constants.
fn two_sha256_rounds(cdgh: [u32; 4], abef: [u32; 4], wk: [u32; 4], _: u8) -> [u32; 4] {
    let [mut h, mut g, mut d, mut c] = cdgh;
    let [mut f, mut e, mut b, mut a] = abef;
    for wk in &wk[..2] {
        let choice = (e & f) ^ (!e & g);
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t = choice.wrapping_add(sum1).wrapping_add(*wk).wrapping_add(h);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        (h, g, f, e) = (g, f, e, d.wrapping_add(t));
        (d, c, b, a) = (c, b, a, t.wrapping_add(majority).wrapping_add(sum0));
    }
    [f, e, b, a]
}

fn first_sha256_message(a: [u32; 4], b: [u32; 4], _: [u32; 4], _: u8) -> [u32; 4] {
    let sigma0 = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
    let next = [a[1], a[2], a[3], b[0]];
    [0, 1, 2, 3].map(|i| a[i].wrapping_add(sigma0(next[i])))
}

fn second_sha256_message(a: [u32; 4], b: [u32; 4], _: [u32; 4], _: u8) -> [u32; 4] {
    let sigma1 = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let w16 = a[0].wrapping_add(sigma1(b[2]));
    let w17 = a[1].wrapping_add(sigma1(b[3]));
    let w18 = a[2].wrapping_add(sigma1(w16));
    let w19 = a[3].wrapping_add(sigma1(w17));
    [w16, w17, w18, w19]
}

/// Bits of the third argument of [`compare_strings`] above the immediate.
#[allow(missing_docs)]
pub mod string_form {
    /// PCMPESTR*: lengths in rax and rdx.
    pub const EXPLICIT: u64 = 1 << 16;
    /// 64-bit lengths.
    pub const WIDE: u64 = 1 << 17;
    /// PCMP*STRM: the result is a mask in xmm0, not an index in ecx.
    pub const MASK: u64 = 1 << 18;
}

/// The elements of a string comparison: sixteen bytes or eight words, from the lowest.
#[derive(Clone, Copy)]
struct Format {
    /// Bits of an element.
    width: u32,
    signed: bool,
}

impl Format {
    /// imm[1:0] (bit 0: words, bit 1: signed).
    fn new(imm: u8) -> Self {
        Format { width: if imm & 1 != 0 { 16 } else { 8 }, signed: imm & 2 != 0 }
    }

    fn count(self) -> u32 {
        128 / self.width
    }

    /// The lowest bit of each element.
    fn ones(self) -> u128 {
        if self.width == 8 { u128::MAX / 0xff } else { u128::MAX / 0xffff }
    }

    fn element(self, v: u128, i: u32) -> i32 {
        let element = (v >> (i * self.width)) as u32;
        match (self.width, self.signed) {
            (8, false) => i32::from(element as u8),
            (8, true) => i32::from(element as i8),
            (_, false) => i32::from(element as u16),
            (_, true) => i32::from(element as i16),
        }
    }

    /// The element at `i` in all places.
    fn splat(self, v: u128, i: u32) -> u128 {
        let element = (v >> (i * self.width)) as u64 & u64::MAX >> (64 - self.width);
        let half = element * self.ones() as u64;
        u128::from(half) << 64 | u128::from(half)
    }

    /// The high bits of the elements that are not 0; other bits mean nothing.
    fn not_zero(self, v: u128) -> u128 {
        let low = !(self.ones() << (self.width - 1)) as u64;
        // No sum carries into the next element.
        let half = |half: u64| ((half & low) + low) | half;
        u128::from(half((v >> 64) as u64)) << 64 | u128::from(half(v as u64))
    }

    /// One bit for each element: those of both that are equal.
    fn equal(self, a: u128, b: u128) -> u32 {
        self.gather(!self.not_zero(a ^ b))
    }

    /// The high bits of the elements, one beside the other.
    fn gather(self, v: u128) -> u32 {
        let high = v >> (self.width - 1) & self.ones();
        let half = |half: u64| match self.width {
            // The product has each of the bits at its place in the highest element, and nothing else comes there.
            8 => half.wrapping_mul(0x0102_0408_1020_4080) >> 56,
            _ => half.wrapping_mul(0x0001_0002_0004_0008) >> 48 & 0xf,
        } as u32;
        half(high as u64) | half((high >> 64) as u64) << (self.count() / 2)
    }

    /// How many elements are valid: to the first that is 0, or the absolute value of the length that is given.
    fn valid(self, v: u128, length: Option<i64>) -> u32 {
        match length {
            Some(n) => n.unsigned_abs().min(self.count().into()) as u32,
            None => self.equal(v, 0).trailing_zeros().min(self.count()),
        }
    }
}

/// One operand of a string comparison, and how many of its elements are valid.
#[derive(Clone, Copy)]
struct Elements {
    vector: u128,
    valid: u32,
}

impl Elements {
    /// One bit for each element: the valid ones.
    fn mask(self) -> u32 {
        (1 << self.valid) - 1
    }
}

/// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (Intel SDM vol. 2, 4.1): the result goes to ecx or xmm0,
/// the flags to the state.
pub extern "C" fn compare_strings(cpu: &mut CpuState, low: u64, high: u64, third: u64) -> Pair {
    use string_form::*;
    let imm = (third >> 8) as u8;
    let length = |r: usize| {
        (third & EXPLICIT != 0).then(|| {
            let v = cpu.gpr[r];
            if third & WIDE != 0 { v as i64 } else { i64::from(v as i32) }
        })
    };
    let format = Format::new(imm);
    let elements = |vector, length| Elements { vector, valid: format.valid(vector, length) };
    let first = elements(cpu.xmm[third as usize & 15], length(reg::RAX));
    let second = elements(operand(low, high), length(reg::RDX));
    let n = format.count();
    let intermediate = aggregate(first, second, imm >> 2 & 3, format);
    let result = match imm >> 4 & 3 {
        1 => !intermediate & ((1 << n) - 1),
        3 => intermediate ^ second.mask(),
        _ => intermediate,
    };
    let flag = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let kept = cpu.rflags() & !rflags::STATUS;
    cpu.set_rflags(
        kept | flag(result != 0, rflags::CF)
            | flag(second.valid < n, rflags::ZF)
            | flag(first.valid < n, rflags::SF)
            | flag(result & 1 != 0, rflags::OF),
    );
    if third & MASK == 0 {
        cpu.gpr[reg::RCX] = match (result, imm & 0x40 != 0) {
            (0, _) => n as u64,
            (r, true) => u64::from(r.ilog2()),
            (r, false) => r.trailing_zeros().into(),
        };
    } else if imm & 0x40 == 0 {
        cpu.xmm[0] = result.into();
    } else {
        let bits = 128 / n;
        cpu.xmm[0] = (0..n)
            .filter(|i| result >> i & 1 != 0)
            .fold(0, |v, i| v | (u128::MAX >> (128 - bits)) << (bits * i));
    }
    DONE
}

/// IntRes1: what the aggregation in imm[3:2] says of each element of the second operand.
fn aggregate(first: Elements, second: Elements, aggregation: u8, format: Format) -> u32 {
    let (a, b) = (first.vector, second.vector);
    let all = (1 << format.count()) - 1;
    // Where the second operand has the element `i` of the first.
    let places = |i| format.equal(format.splat(a, i), b);
    match aggregation {
        // Equal any.
        0 => {
            let different = |all, i| all & format.not_zero(format.splat(a, i) ^ b);
            format.gather(!(0..first.valid).fold(u128::MAX, different)) & second.mask()
        }
        // Ranges: pairs of bounds.
        1 => {
            let bounds = |i| format.element(a, i)..=format.element(a, i + 1);
            let within = |j: &u32| {
                let element = format.element(b, *j);
                (0..first.valid / 2).any(|pair| bounds(2 * pair).contains(&element))
            };
            (0..second.valid).filter(within).fold(0, |m, j| m | 1 << j)
        }
        // Equal each: both invalid counts as equal, one invalid as different.
        2 => {
            let (x, y) = (first.mask(), second.mask());
            (format.equal(a, b) & x & y | !(x | y)) & all
        }
        // Equal ordered: the first operand as a substring from here on, as far as the second goes.
        _ => (0..first.valid)
            .fold(all, |from_here, i| from_here & ((places(i) & second.mask()) >> i | !(all >> i))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(s: &[u8]) -> u128 {
        let mut b = [0; 16];
        b[..s.len()].copy_from_slice(s);
        u128::from_le_bytes(b)
    }

    /// PCMPISTRI of two strings; ecx and RFLAGS.
    fn index(first: &[u8], second: &[u8], imm: u8) -> (u64, u64) {
        let mut cpu = CpuState::new();
        cpu.xmm[1] = bytes(first);
        let m = bytes(second);
        let third = 1 | u64::from(imm) << 8;
        compare_strings(&mut cpu, m as u64, (m >> 64) as u64, third);
        (cpu.gpr[reg::RCX], cpu.rflags() & rflags::STATUS)
    }

    #[test]
    fn strings_compare() {
        use rflags::*;
        assert_eq!(index(b"lo", b"hello, world", 0x0c), (3, CF | ZF | SF));
        assert_eq!(index(b"az", b"ABCd", 0x04), (3, CF | ZF | SF));
        assert_eq!(index(b"xyz", b"hello", 0x00), (16, ZF | SF));
        assert_eq!(index(b"hello", b"help", 0x18), (3, CF | ZF | SF));
    }

    /// One block of SHA-256's test vector "abc" through the helpers' rounds.
    #[test]
    fn sha256_rounds_give_the_standard_hash() {
        const K0: [u32; 2] = [0x428a_2f98, 0x7137_4491];
        let abef = [0x9b05_688c, 0x510e_527f, 0xbb67_ae85, 0x6a09_e667];
        let cdgh = [0x5be0_cd19, 0x1f83_d9ab, 0xa54f_f53a, 0x3c6e_f372];
        let wk = [0x6162_6380u32.wrapping_add(K0[0]), K0[1], 0, 0];
        // FIPS 180-2, B.1: a b e f after rounds 0 and 1.
        assert_eq!(
            two_sha256_rounds(cdgh, abef, wk, 0),
            [0xfa2a_4622, 0x78ce_7989, 0x5d6a_ebcd, 0x5a6a_d9ad]
        );
    }
}
