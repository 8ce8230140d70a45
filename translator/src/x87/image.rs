//! The memory images of FNSTENV, FNSAVE and FXSAVE (SDM vol. 1, 8.1.10 and 10.5).

use super::f80::status::TOP;
use super::f80::{Class, F80};
use crate::mxcsr;
use crate::state::{CpuState, X87State};

/// Size of the environment in 32-bit protected-mode format, which 64-bit mode uses.
pub const ENV_SIZE: usize = 28;
/// Size of the image of FNSAVE.
pub const SAVE_SIZE: usize = 108;
/// Size of the environment in 16-bit format.
pub const SHORT_ENV_SIZE: usize = 14;
/// Size of the image of FNSAVE in 16-bit format.
pub const SHORT_SAVE_SIZE: usize = 94;
/// Size of the image of FXSAVE.
pub const FXSAVE_SIZE: usize = 512;

/// Bits of the control word that exist.
const CONTROL_BITS: u16 = 0x1f3f;
/// Bit 6 of the control word reads as one.
const CONTROL_FIXED: u16 = 0x40;

/// A control word as the processor keeps it.
pub fn control_word(value: u16) -> u16 {
    value & CONTROL_BITS | CONTROL_FIXED
}

fn put<const N: usize>(image: &mut [u8], at: usize, bytes: [u8; N]) {
    image[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&image[at..at + N]);
    bytes
}

/// The full tag word: 0 valid, 1 zero, 2 special, 3 empty, for each physical register.
fn full_tags(x: &X87State) -> u16 {
    (0..8).fold(0, |tags, r| {
        let tag = match F80::from_bits(x.st[r]).class() {
            _ if x.tag >> r & 1 == 0 => 3,
            Class::Normal => 0,
            Class::Zero => 1,
            _ => 2,
        };
        tags | tag << (2 * r)
    })
}

/// The abridged tags of a full tag word.
fn abridged_tags(full: u16) -> u16 {
    (0..8).fold(0, |tags, r| tags | u16::from(full >> (2 * r) & 3 != 3) << r)
}

/// FNSTENV's image. (The instruction also masks all exceptions: [`mask_all`].)
pub fn store_env(x: &X87State) -> [u8; ENV_SIZE] {
    let mut image = [0; ENV_SIZE];
    put(&mut image, 0, (u32::from(x.cw) | 0xffff_0000).to_le_bytes());
    put(&mut image, 4, (u32::from(x.status_word()) | 0xffff_0000).to_le_bytes());
    put(&mut image, 8, (u32::from(full_tags(x)) | 0xffff_0000).to_le_bytes());
    put(&mut image, 12, (x.fip as u32).to_le_bytes());
    put(&mut image, 16, (u32::from(x.fop & 0x7ff) << 16).to_le_bytes());
    put(&mut image, 20, (x.fdp as u32).to_le_bytes());
    put(&mut image, 24, 0xffff_0000_u32.to_le_bytes());
    image
}

/// What FNSTENV does to the unit.
pub fn mask_all(x: &mut X87State) {
    x.cw |= super::f80::status::EXCEPTIONS;
    x.summarize();
}

/// FLDENV.
pub fn load_env(x: &mut X87State, image: &[u8; ENV_SIZE]) {
    let status = u16::from_le_bytes(get(image, 4));
    x.cw = control_word(u16::from_le_bytes(get(image, 0)));
    x.sw = status & !TOP;
    x.top = (status & TOP) >> 11;
    x.tag = abridged_tags(u16::from_le_bytes(get(image, 8)));
    x.fip = u32::from_le_bytes(get(image, 12)).into();
    x.fop = u16::from_le_bytes(get(image, 18)) & 0x7ff;
    x.fdp = u32::from_le_bytes(get(image, 20)).into();
    x.summarize();
}

/// FNSAVE's image. (The instruction also initialises the unit: [`super::ops::init`].)
pub fn save(x: &X87State) -> [u8; SAVE_SIZE] {
    let mut image = [0; SAVE_SIZE];
    image[..ENV_SIZE].copy_from_slice(&store_env(x));
    for i in 0..8 {
        let st = x.st[usize::from((x.top + i) & 7)].to_le_bytes();
        put::<10>(&mut image, ENV_SIZE + 10 * usize::from(i), get(&st, 0));
    }
    image
}

/// FRSTOR.
pub fn restore(x: &mut X87State, image: &[u8; SAVE_SIZE]) {
    load_env(x, &get(image, 0));
    for i in 0..8 {
        let st = get_f80(image, ENV_SIZE + 10 * usize::from(i));
        x.st[usize::from((x.top + i) & 7)] = st;
    }
}

/// The 16-bit format of an environment: the low half of each field.
fn shorten(env: &[u8]) -> [u8; SHORT_ENV_SIZE] {
    std::array::from_fn(|i| env[i / 2 * 4 + i % 2])
}

/// The 32-bit format of a 16-bit environment.
fn lengthen(env: &[u8]) -> [u8; ENV_SIZE] {
    std::array::from_fn(|i| if i % 4 < 2 { env[i / 4 * 2 + i % 4] } else { 0 })
}

/// FNSTENV's image with an operand-size prefix.
pub fn store_short_env(x: &X87State) -> [u8; SHORT_ENV_SIZE] {
    shorten(&store_env(x))
}

/// FLDENV with an operand-size prefix.
pub fn load_short_env(x: &mut X87State, image: &[u8; SHORT_ENV_SIZE]) {
    load_env(x, &lengthen(image));
}

/// FNSAVE's image with an operand-size prefix.
pub fn short_save(x: &X87State) -> [u8; SHORT_SAVE_SIZE] {
    let image = save(x);
    let mut short = [0; SHORT_SAVE_SIZE];
    put(&mut short, 0, shorten(&image));
    put::<80>(&mut short, SHORT_ENV_SIZE, get(&image, ENV_SIZE));
    short
}

/// FRSTOR with an operand-size prefix.
pub fn short_restore(x: &mut X87State, image: &[u8; SHORT_SAVE_SIZE]) {
    let mut long = [0; SAVE_SIZE];
    put(&mut long, 0, lengthen(image));
    put::<80>(&mut long, ENV_SIZE, get(image, SHORT_ENV_SIZE));
    restore(x, &long);
}

/// Ten bytes of an image as a register.
fn get_f80(image: &[u8], at: usize) -> u128 {
    let mut bytes = [0; 16];
    bytes[..10].copy_from_slice(&image[at..at + 10]);
    u128::from_le_bytes(bytes)
}

/// FXSAVE's image; `wide` is the form with REX.W, which keeps 64-bit instruction and operand
/// addresses. The last 48 bytes are the program's own and are given in `image`.
pub fn fxsave(cpu: &CpuState, image: &mut [u8; FXSAVE_SIZE], wide: bool) {
    let x = &cpu.x87;
    put(image, 0, x.cw.to_le_bytes());
    put(image, 2, x.status_word().to_le_bytes());
    put(image, 4, x.tag.to_le_bytes());
    put(image, 6, x.fop.to_le_bytes());
    let address = |a: u64| if wide { a } else { a & 0xffff_ffff };
    put(image, 8, address(x.fip).to_le_bytes());
    put(image, 16, address(x.fdp).to_le_bytes());
    put(image, 24, cpu.mxcsr.to_le_bytes());
    put(image, 28, mxcsr::MASK.to_le_bytes());
    for i in 0..8 {
        let st = x.st[usize::from((x.top + i) & 7)] & ((1 << 80) - 1);
        put(image, 32 + 16 * usize::from(i), st.to_le_bytes());
    }
    for (i, xmm) in cpu.xmm.iter().enumerate() {
        put(image, 160 + 16 * i, xmm.to_le_bytes());
    }
}

/// FXRSTOR; `false` (#GP) if the image sets reserved bits of MXCSR, with nothing changed.
pub fn fxrstor(cpu: &mut CpuState, image: &[u8; FXSAVE_SIZE], wide: bool) -> bool {
    let value = u32::from_le_bytes(get(image, 24));
    if value & !mxcsr::MASK != 0 {
        return false;
    }
    mxcsr::write(cpu, value);
    let x = &mut cpu.x87;
    let status = u16::from_le_bytes(get(image, 2));
    x.cw = control_word(u16::from_le_bytes(get(image, 0)));
    x.sw = status & !TOP;
    x.top = (status & TOP) >> 11;
    x.tag = image[4].into();
    x.fop = u16::from_le_bytes(get(image, 6)) & 0x7ff;
    let address = |at| {
        let a = u64::from_le_bytes(get(image, at));
        if wide { a } else { a & 0xffff_ffff }
    };
    x.fip = address(8);
    x.fdp = address(16);
    for i in 0..8 {
        x.st[usize::from((x.top + i) & 7)] = get_f80(image, 32 + 16 * usize::from(i));
    }
    x.summarize();
    for (i, xmm) in cpu.xmm.iter_mut().enumerate() {
        *xmm = u128::from_le_bytes(get(image, 160 + 16 * i));
    }
    true
}
