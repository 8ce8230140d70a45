//! Memory operands: every addressing form that reaches a given address.

use crate::{
    operands::{Built, Place},
    rng::Rng,
    state::{DATA, DATA_SIZE, OPERANDS_SIZE},
};
use iced_x86::Register;

/// The address an operand shall have.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The linear address.
    pub address: u64,
}

impl Target {
    /// Mostly aligned inside the data; sometimes unaligned (unless `alignment` forbids it), across a
    /// page end or not mapped.
    pub fn random(rng: &mut Rng, size: usize, alignment: u64) -> Self {
        let size = size as u64;
        let room = OPERANDS_SIZE - 0x400 - size.min(0x400);
        let address = match rng.below(64) {
            0 => DATA + DATA_SIZE as u64 - rng.below(size + 1),
            1 => DATA.wrapping_sub(rng.below(size + 1)),
            2 => 0x3000_0000 + rng.below(0x1000),
            3..8 => DATA + 0x1000 - rng.below(size + 1),
            8..16 => DATA + 0x200 + rng.below(room),
            _ => (DATA + 0x200 + rng.below(room)) & !(size.next_power_of_two().clamp(1, 64) - 1),
        };
        Self { address: address & !(alignment - 1) }
    }
}

/// An addressing form with the register values that make it reach its target.
#[derive(Clone, Debug)]
pub struct Addressing {
    /// Base register or `None`; RIP for rip-relative.
    pub base: Register,
    /// Index register or `None`.
    pub index: Register,
    /// 1, 2, 4 or 8.
    pub scale: u32,
    /// Displacement; for rip-relative the target.
    pub displacement: u64,
    /// Its size in bytes: 0, 1, 4 or 8 as iced-x86 counts.
    pub displacement_size: u32,
    /// Segment override or `None`.
    pub segment: Register,
    /// Values of base and index.
    pub values: Vec<(Register, u64)>,
    /// The linear address.
    pub address: u64,
}

impl Default for Addressing {
    fn default() -> Self {
        Self {
            base: Register::None,
            index: Register::None,
            scale: 1,
            displacement: 0,
            displacement_size: 0,
            segment: Register::None,
            values: Vec::new(),
            address: 0,
        }
    }
}

impl Addressing {
    /// The 64-bit address of `mov al,[moffs]`.
    pub fn absolute64(address: u64) -> Self {
        Self { displacement: address, displacement_size: 8, address, ..Self::default() }
    }

    /// A random form that reaches `target`, with 64-bit registers or (`wide` false) 32-bit ones.
    pub fn random(rng: &mut Rng, place: &Place, target: u64, wide: bool) -> Option<Self> {
        if !place.pinned.is_empty() && rng.chance(70) {
            return Self::on_pinned(rng, place, target);
        }
        let (segment, segment_base) = match rng.below(16) {
            0 => (Register::FS, place.fs_base),
            1 => (Register::GS, place.gs_base),
            2 => (Register::DS, 0),
            _ => (Register::None, 0),
        };
        let segmented = matches!(segment, Register::FS | Register::GS);
        let mut form = Self { segment, address: target, ..Self::default() };
        let (zero, size) = if wide { (Register::RAX, 8) } else { (Register::EAX, 4) };
        // Without registers, the form must reach the target by itself.
        let effective = target.wrapping_sub(segment_base);
        match rng.below(8) {
            0 if effective < 1 << 31 => {
                form.displacement = effective;
                form.displacement_size = size;
                return Some(form);
            }
            1 if !segmented => {
                form.base = if wide { Register::RIP } else { Register::EIP };
                form.displacement = target;
                form.displacement_size = size;
                return Some(form);
            }
            _ => {}
        }
        if !wide && effective >> 32 != 0 {
            return None;
        }
        form.set_displacement(rng);
        let with_base = rng.chance(85) || form.displacement_size == 1;
        if rng.chance(50) || !with_base {
            form.index = zero + rng.below(16) as u32;
            if form.index.full_register() == Register::RSP {
                return None;
            }
            form.scale = rng.pick(&[1, 2, 4, 8]);
        }
        if with_base {
            form.base = zero + rng.below(16) as u32;
            if form.base.full_register() == form.index.full_register()
                || (!place.alone && form.base.full_register() == Register::RSP)
            {
                return None;
            }
        }
        form.solve(rng, effective, wide).then_some(form)
    }

    fn set_displacement(&mut self, rng: &mut Rng) {
        (self.displacement, self.displacement_size) = match rng.below(4) {
            0 => (0, 0),
            1 => (rng.int() as i8 as u64, 1),
            2 => (rng.int() as i32 as u64, 4),
            _ => (rng.bits() as i16 as u64, 4),
        };
    }

    /// Finds register values for an effective address.
    fn solve(&mut self, rng: &mut Rng, effective: u64, wide: bool) -> bool {
        let garbage = |rng: &mut Rng, v: u64| {
            if wide { v } else { v & 0xffff_ffff | rng.bits() << 32 }
        };
        let scale = u64::from(self.scale);
        if self.base == Register::None {
            // index * scale + disp32 without a base.
            let index = rng.below(0x100);
            self.displacement = effective.wrapping_sub(index * scale);
            self.displacement_size = if wide { 8 } else { 4 };
            if self.displacement >= 1 << 31 {
                return false;
            }
            self.values.push((self.index.full_register(), garbage(rng, index)));
            return true;
        }
        let mut base = effective.wrapping_sub(self.displacement);
        if self.index != Register::None {
            let index = match rng.below(3) {
                0 => rng.below(64),
                1 => rng.int(),
                _ => (rng.below(128) as i64 - 64) as u64,
            };
            base = base.wrapping_sub(index.wrapping_mul(scale));
            self.values.push((self.index.full_register(), garbage(rng, index)));
        }
        self.values.push((self.base.full_register(), garbage(rng, base)));
        true
    }

    /// A form on a register whose value is known throughout.
    fn on_pinned(rng: &mut Rng, place: &Place, target: u64) -> Option<Self> {
        let (base, value) = rng.pick(&place.pinned);
        let mut form = Self { base, address: target, ..Self::default() };
        let mut displacement = target.wrapping_sub(value) as i64;
        if rng.chance(50) {
            displacement = displacement as i8 as i64;
        }
        if rng.chance(25) {
            form.index = Register::RAX + rng.below(16) as u32;
            let pinned = place.pinned.iter().any(|(r, _)| *r == form.index);
            if form.index == Register::RSP || pinned {
                return None;
            }
            form.scale = rng.pick(&[1, 2, 4, 8]);
            let index = rng.below(32);
            form.values.push((form.index, index));
            displacement -= (index * u64::from(form.scale)) as i64;
        }
        form.displacement = displacement as u64;
        form.displacement_size = match displacement {
            0 => 0,
            -128..128 => 1,
            _ => 4,
        };
        i32::try_from(displacement).ok()?;
        form.address = value.wrapping_add(displacement as u64);
        Some(form)
    }

    /// Puts the form into an instruction; gives the linear address.
    pub fn apply(&self, built: &mut Built) -> Option<u64> {
        for &(register, value) in &self.values {
            built.need(register, value)?;
        }
        let i = &mut built.instruction;
        i.set_memory_base(self.base);
        i.set_memory_index(self.index);
        i.set_memory_index_scale(self.scale);
        i.set_memory_displacement64(self.displacement);
        i.set_memory_displ_size(self.displacement_size);
        i.set_segment_prefix(self.segment);
        Some(self.address)
    }
}
