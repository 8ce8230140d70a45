//! Operands: registers with their partial widths, immediates, and guest memory.

use super::{FS, Lower, STATE};
use crate::asm::{R, V, Width, fits_add_imm};
use crate::state::offset;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};

/// An address as arm64 loads and stores take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addr {
    /// base + offset; the offset fits the access (see `fits_offset`).
    Imm(R, i32),
    /// base + (index << shift); shift is 0 or log2 of the access size.
    Index(R, R, u32),
}

/// Scratch of the memory primitives.
const SCRATCH: R = R(30);

/// Host register of a guest integer register of any width (AH..BH give rax..rbx).
#[inline]
pub fn host_of(reg: Register) -> R {
    R(HOSTS[reg as usize & 0xff])
}

/// The same by number; what is no such register has any.
const HOSTS: [u8; 256] = {
    use Register::*;
    let mut hosts = [0; 256];
    let mut i = 0;
    while i < 16 {
        // Of eight bits there are four more, AH to BH, behind the first four.
        hosts[AL as usize + if i < 4 { i } else { i + 4 }] = i as u8;
        hosts[AH as usize + i % 4] = i as u8 % 4;
        hosts[AX as usize + i] = i as u8;
        hosts[EAX as usize + i] = i as u8;
        hosts[RAX as usize + i] = i as u8;
        i += 1;
    }
    hosts
};

/// Size in bytes of a register.
#[inline]
fn size_of_register(reg: Register) -> u32 {
    // Those of integers stand in order, by size.
    match reg {
        _ if (Register::RAX..=Register::R15).contains(&reg) => 8,
        _ if (Register::EAX..=Register::R15D).contains(&reg) => 4,
        _ => reg.size() as u32,
    }
}

/// Whether the register is one of AH, CH, DH, BH.
pub fn is_high_byte(reg: Register) -> bool {
    (Register::AH..=Register::BH).contains(&reg)
}

/// Host register of a guest vector register.
pub fn vec_of(reg: Register) -> V {
    V((reg as u32 - Register::XMM0 as u32) as u8)
}

/// Register width for an operand of `size` bytes; narrower ones are computed in W registers.
pub fn width_of(size: u32) -> Width {
    if size == 8 { Width::X } else { Width::W }
}

/// Whether LDR/STR of `size` bytes can take the offset, scaled or unscaled.
fn fits_offset(offset: i64, size: u32) -> bool {
    (-256..256).contains(&offset)
        || (offset >= 0 && offset % i64::from(size) == 0 && offset / i64::from(size) < 4096)
}

impl Lower<'_> {
    /// Size in bytes of an operand that is a register, memory or immediate.
    #[inline(always)]
    pub fn size_of(&self, ins: &Instruction, op: u32) -> u32 {
        if ins.op_kind(op) == OpKind::Register {
            return size_of_register(ins.op_register(op));
        }
        self.size_of_other(ins, op)
    }

    #[inline(never)]
    fn size_of_other(&self, ins: &Instruction, op: u32) -> u32 {
        match ins.op_kind(op) {
            OpKind::Memory => ins.memory_size().size() as u32,
            OpKind::Immediate8 => 1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
            _ => 8,
        }
    }

    /// The operand's value in a register: its low `size` bytes are right, the bits above
    /// arbitrary. Guest registers come as they are and must not be written.
    pub fn read(&mut self, ins: &Instruction, op: u32) -> R {
        match ins.op_kind(op) {
            OpKind::Register => self.read_register(ins.op_register(op)),
            OpKind::Memory => {
                let size = ins.memory_size().size() as u32;
                let m = self.address(ins, size);
                let t = self.tmp();
                self.load(size, t, m);
                t
            }
            _ => {
                let value = ins.immediate(op);
                if value == 0 {
                    return R::ZR;
                }
                self.constant(Width::X, value)
            }
        }
    }

    /// The operand zero-extended to 64 bits, possibly in the guest register itself.
    pub fn read_zx(&mut self, ins: &Instruction, op: u32) -> R {
        if ins.op_kind(op) != OpKind::Register {
            let size = self.size_of(ins, op);
            let r = self.read(ins, op);
            if ins.op_kind(op) == OpKind::Memory || size >= 8 || r == R::ZR {
                return r;
            }
            self.a.ubfx(Width::X, r, r, 0, size * 8);
            return r;
        }
        let reg = ins.op_register(op);
        if reg.size() == 8 || is_high_byte(reg) {
            return self.read_register(reg);
        }
        let t = self.tmp();
        self.a.ubfx(Width::X, t, host_of(reg), 0, reg.size() as u32 * 8);
        t
    }

    /// The operand sign-extended to 64 bits.
    pub fn read_sx(&mut self, ins: &Instruction, op: u32) -> R {
        let size = self.size_of(ins, op);
        let r = self.read(ins, op);
        if size == 8 || r == R::ZR {
            return r;
        }
        let t = self.tmp();
        self.a.sbfx(Width::X, t, r, 0, size * 8);
        t
    }

    /// A register's value, see [`Self::read`].
    pub fn read_register(&mut self, reg: Register) -> R {
        if is_high_byte(reg) {
            let t = self.tmp();
            self.a.ubfx(Width::W, t, host_of(reg), 8, 8);
            return t;
        }
        host_of(reg)
    }

    /// Writes a guest register of any width from the low bits of `src`.
    pub fn write_register(&mut self, reg: Register, src: R) {
        let d = host_of(reg);
        if is_high_byte(reg) {
            return self.insert(d, src, 8, 8);
        }
        match reg.size() {
            8 if d != src => self.a.mov(Width::X, d, src),
            8 => {}
            4 => self.a.mov(Width::W, d, src),
            size => self.insert(d, src, 0, size as u32 * 8),
        }
    }

    fn insert(&mut self, d: R, src: R, lsb: u32, width: u32) {
        if src == R::ZR {
            self.a.and_imm(Width::X, d, d, !(((1u64 << width) - 1) << lsb));
        } else {
            self.a.bfi(Width::X, d, src, lsb, width);
        }
    }

    /// Writes a register or memory operand. For memory the address must have been computed
    /// before by [`Self::address`] if registers it uses have changed since.
    pub fn write(&mut self, ins: &Instruction, op: u32, src: R) {
        match ins.op_kind(op) {
            OpKind::Register => self.write_register(ins.op_register(op), src),
            _ => {
                let size = ins.memory_size().size() as u32;
                let m = self.address(ins, size);
                self.store(size, src, m);
            }
        }
    }

    /// Where the result of a 32- or 64-bit operation may be computed directly: the guest register
    /// itself, or a temporary for memory and narrow registers.
    pub fn destination(&mut self, ins: &Instruction, op: u32) -> R {
        if ins.op_kind(op) == OpKind::Register && ins.op_register(op).size() >= 4 {
            return host_of(ins.op_register(op));
        }
        self.tmp()
    }

    /// The address of the instruction's memory operand for accesses of `size` bytes.
    /// Holds at most two temporaries.
    pub fn address(&mut self, ins: &Instruction, size: u32) -> Addr {
        let base = ins.memory_base();
        let plain = base.is_gpr64() && ins.memory_index() == Register::None;
        if plain && ins.segment_prefix() == Register::None {
            return self.base_offset(host_of(base), ins.memory_displacement64() as i64, size);
        }
        self.any_address(ins, size)
    }

    #[inline(never)]
    fn any_address(&mut self, ins: &Instruction, size: u32) -> Addr {
        let used = self.temps_used;
        let segment = match ins.segment_prefix() {
            Register::FS => Some(FS),
            Register::GS => {
                let t = self.tmp();
                self.a.ldr(t, STATE, offset::GS_BASE);
                Some(t)
            }
            _ => None,
        };
        let short = matches!(ins.memory_base().size(), 4)
            || ins.memory_index().size() == 4 && ins.memory_base() == Register::None
            || ins.memory_base() == Register::EIP
            || (ins.memory_base() == Register::None
                && ins.memory_index() == Register::None
                && ins.memory_displ_size() == 4
                && ins.memory_displacement64() >> 31 == 1);
        let plain = if short { self.address32(ins) } else { self.address64(ins, size) };
        let Some(segment) = segment else { return plain };
        match plain {
            Addr::Imm(R::ZR, offset) if fits_offset(i64::from(offset), size) => {
                Addr::Imm(segment, offset)
            }
            Addr::Imm(base, 0) if !self.by_acquire() && self.temps_used <= used + 2 => {
                Addr::Index(segment, base, 0)
            }
            other => {
                let t = self.materialize(other);
                self.temps_used = used;
                let sum = self.tmp();
                self.a.add(Width::X, sum, segment, t);
                Addr::Imm(sum, 0)
            }
        }
    }

    fn address64(&mut self, ins: &Instruction, size: u32) -> Addr {
        if ins.is_ip_rel_memory_operand() {
            let t = self.tmp();
            self.guest_address(t, ins.memory_displacement64());
            return Addr::Imm(t, 0);
        }
        let displacement = ins.memory_displacement64() as i64;
        let base = (ins.memory_base() != Register::None).then(|| host_of(ins.memory_base()));
        let index = (ins.memory_index() != Register::None).then(|| host_of(ins.memory_index()));
        let shift = ins.memory_index_scale().trailing_zeros();
        match (base, index) {
            (None, None) => {
                if (0..256).contains(&displacement)
                    || ins.memory_segment() == Register::FS && fits_offset(displacement, size)
                {
                    return Addr::Imm(R::ZR, displacement as i32);
                }
                let t = self.constant(Width::X, displacement as u64);
                Addr::Imm(t, 0)
            }
            (Some(b), None) => self.base_offset(b, displacement, size),
            (None, Some(x)) => {
                if !fits_offset(displacement, size)
                    && !self.by_acquire()
                    && (shift == 0 || 1 << shift == size)
                {
                    let t = self.constant(Width::X, displacement as u64);
                    return Addr::Index(t, x, shift);
                }
                let t = self.tmp();
                self.a.lsl(Width::X, t, x, shift);
                self.base_offset(t, displacement, size)
            }
            (Some(b), Some(x)) => {
                if displacement == 0 && !self.by_acquire() && (shift == 0 || 1 << shift == size) {
                    return Addr::Index(b, x, shift);
                }
                let t = self.tmp();
                self.a.add_lsl(Width::X, t, b, x, shift);
                self.base_offset(t, displacement, size)
            }
        }
    }

    /// base + displacement as an address, adding what the access cannot take.
    pub(super) fn base_offset(&mut self, base: R, displacement: i64, size: u32) -> Addr {
        let fits = if self.by_acquire() {
            (-256..256).contains(&displacement)
        } else {
            fits_offset(displacement, size)
        };
        if fits {
            return Addr::Imm(base, displacement as i32);
        }
        if self.ordered()
            && let Some(far) = self.far_address(base, displacement)
        {
            return far;
        }
        if fits_add_imm(displacement.unsigned_abs()) {
            let t = if base.0 < 16 { self.tmp() } else { base };
            self.add_constant(Width::X, t, base, displacement);
            return Addr::Imm(t, 0);
        }
        let t = self.constant(Width::X, displacement as u64);
        if self.by_acquire() {
            self.a.add(Width::X, t, base, t);
            return Addr::Imm(t, 0);
        }
        Addr::Index(base, t, 0)
    }

    /// With the address-size prefix everything is computed modulo 2^32.
    fn address32(&mut self, ins: &Instruction) -> Addr {
        let t = self.tmp();
        if ins.is_ip_rel_memory_operand() {
            self.guest_address(t, ins.memory_displacement64());
            return Addr::Imm(t, 0);
        }
        let displacement = ins.memory_displacement64() as u32;
        let shift = ins.memory_index_scale().trailing_zeros();
        self.a.mov_imm(Width::W, t, u64::from(displacement));
        if ins.memory_base() != Register::None {
            self.a.add(Width::W, t, t, host_of(ins.memory_base()));
        }
        if ins.memory_index() != Register::None {
            self.a.add_lsl(Width::W, t, t, host_of(ins.memory_index()), shift);
        }
        Addr::Imm(t, 0)
    }

    /// d = n + value for any constant, without flags.
    pub fn add_constant(&mut self, w: Width, d: R, n: R, value: i64) {
        let magnitude = value.unsigned_abs();
        if d == n && w == Width::X && self.post_index(d, value) {
            return;
        }
        if value == 0 {
            if d != n || w == Width::W {
                self.a.mov(w, d, n);
            }
        } else if fits_add_imm(magnitude) {
            if value > 0 {
                self.a.add_imm(w, d, n, magnitude);
            } else {
                self.a.sub_imm(w, d, n, magnitude);
            }
        } else {
            self.load_constant(w, SCRATCH, value as u64);
            self.a.add(w, d, n, SCRATCH);
        }
    }

    /// The address as a plain register value.
    pub fn materialize(&mut self, m: Addr) -> R {
        match m {
            Addr::Imm(R::ZR, o) => self.constant(Width::X, o as i64 as u64),
            Addr::Imm(b, 0) => b,
            Addr::Imm(b, o) => {
                let t = self.tmp();
                self.add_constant(Width::X, t, b, i64::from(o));
                t
            }
            Addr::Index(b, x, s) => {
                let t = self.tmp();
                self.a.add_lsl(Width::X, t, b, x, s);
                t
            }
        }
    }

    /// The address in one register; if that is a temporary it is the only one in use.
    pub fn single_address(&mut self, m: Addr) -> R {
        let p = self.materialize(m);
        self.free_temps();
        if p.0 >= 16 && p != FS {
            let t = self.tmp();
            if t != p {
                self.a.mov(Width::X, t, p);
            }
            return t;
        }
        p
    }

    /// The effective address of the memory operand as LEA computes it: no segment base.
    pub fn effective_address(&mut self, ins: &Instruction) -> R {
        let mut plain = *ins;
        plain.set_segment_prefix(Register::None);
        // Size 1: no scaled offsets, any index shift goes through ADD.
        let m = self.address(&plain, 1);
        self.materialize(m)
    }

    /// The address moved by a few bytes (for an access in two halves).
    pub fn displaced(&mut self, m: Addr, by: i32, size: u32) -> Addr {
        match m {
            Addr::Imm(b, o) if b != R::ZR && fits_offset(i64::from(o + by), size) => {
                Addr::Imm(b, o + by)
            }
            other => {
                let t = self.materialize(other);
                Addr::Imm(t, by)
            }
        }
    }

    /// Loads `size` bytes (1, 2, 4, 8), zero-extended.
    pub fn load(&mut self, size: u32, t: R, m: Addr) {
        self.memory_access(Access::Load, size, t, m);
    }

    /// Loads 1, 2 or 4 bytes sign-extended to the width.
    pub fn load_sx(&mut self, size: u32, w: Width, t: R, m: Addr) {
        self.memory_access(
            if w == Width::X { Access::LoadSx64 } else { Access::LoadSx32 },
            size,
            t,
            m,
        );
    }

    /// Stores the low `size` bytes (1, 2, 4, 8).
    pub fn store(&mut self, size: u32, t: R, m: Addr) {
        self.memory_access(Access::Store, size, t, m);
    }

    /// Load/store register encodings (Arm ARM C4.1.94): size in bits 31:30, opc in 23:22.
    fn memory_access(&mut self, access: Access, size: u32, t: R, m: Addr) {
        let log2 = size.trailing_zeros();
        let opc = match access {
            Access::Store => 0,
            Access::Load => 1,
            Access::LoadSx64 => 2,
            Access::LoadSx32 => 3,
        };
        let common = log2 << 30 | opc << 22 | t.n();
        if self.ordered() {
            return self.ordered_access(access, size, t, m, common);
        }
        self.plain_access(size, m, common);
    }

    /// Loads (true) or stores a whole register of 4 or 8 bytes whose address is a register and a constant, as most accesses
    /// are, if that takes but one instruction without any order. False if it does not.
    #[inline(always)]
    pub fn quick_access(&mut self, ins: &Instruction, load: bool, size: u32, t: Register) -> bool {
        let (base, o) = (ins.memory_base(), ins.memory_displacement64());
        let quick = base.is_gpr64()
            && ins.memory_index() == Register::None
            && ins.segment_prefix() == Register::None
            && o % u64::from(size) == 0
            && o / u64::from(size) < 4096
            && !self.ordered();
        if quick {
            let common = size.trailing_zeros() << 30 | u32::from(load) << 22 | host_of(t).n();
            let address = (o as u32 / size) << 10 | host_of(base).n() << 5;
            self.a.word(0x3900_0000 | common | address);
        }
        quick
    }

    /// An access without any order; `common` are the encoding's bits but for the address.
    #[inline]
    fn plain_access(&mut self, size: u32, m: Addr, common: u32) {
        match m {
            Addr::Imm(R::ZR, o) => {
                let b = self.constant(Width::X, o as i64 as u64);
                self.a.word(0x3900_0000 | common | b.n() << 5);
            }
            Addr::Imm(b, o)
                if o >= 0 && (o as u32).is_multiple_of(size) && o as u32 / size < 4096 =>
            {
                self.a.word(0x3900_0000 | common | (o as u32 / size) << 10 | b.n() << 5);
            }
            Addr::Imm(b, o) => {
                self.a.word(0x3800_0000 | common | (o as u32 & 0x1ff) << 12 | b.n() << 5);
            }
            Addr::Index(b, x, s) => {
                let scaled = u32::from(s != 0);
                self.a.word(0x3820_6800 | common | x.n() << 16 | scaled << 12 | b.n() << 5);
            }
        }
    }

    /// x86's order on a weakly ordered host: load-acquire (RCpc) and store-release. They do not take every misaligned
    /// address, see [`crate::detours`]: where that is known, plain accesses with barriers.
    #[inline(never)]
    fn ordered_access(&mut self, access: Access, size: u32, t: R, m: Addr, plain: u32) {
        if self.by_barriers {
            if access == Access::Store {
                self.a.word(DMB_ISH);
            }
            self.plain_access(size, m, plain);
            if access != Access::Store {
                self.a.word(DMB_ISHLD);
            }
            return;
        }
        let (b, o) = match m {
            Addr::Imm(R::ZR, o) => (self.constant(Width::X, o as i64 as u64), 0),
            Addr::Imm(b, o) => (b, o),
            other => (self.materialize(other), 0),
        };
        let lrcpc2 = self.config.host.lrcpc2 && (-256..256).contains(&o);
        let b = if o == 0 || lrcpc2 {
            b
        } else {
            self.add_constant(Width::X, SCRATCH, b, i64::from(o));
            SCRATCH
        };
        let common = size.trailing_zeros() << 30 | b.n() << 5 | t.n();
        self.a.word(match access {
            // STLUR, LDAPUR, LDAPURS*
            _ if lrcpc2 => {
                let opc = match access {
                    Access::Store => 0,
                    Access::Load => 1,
                    Access::LoadSx64 => 2,
                    Access::LoadSx32 => 3,
                };
                LDAPUR | common | opc << 22 | (o as u32 & 0x1ff) << 12
            }
            Access::Store => STLR | common,
            _ if self.config.host.lrcpc => LDAPR | common,
            _ => LDAR | common,
        });
        match access {
            Access::LoadSx64 if !lrcpc2 => self.a.sbfx(Width::X, t, t, 0, size * 8),
            Access::LoadSx32 if !lrcpc2 => self.a.sbfx(Width::W, t, t, 0, size * 8),
            _ => {}
        }
    }

    /// Loads a vector register of 4, 8 or 16 bytes; the rest is zeroed.
    pub fn vload(&mut self, size: u32, v: V, m: Addr) {
        self.vector_access(true, size, v, m);
        if self.ordered() {
            self.a.word(DMB_ISHLD);
        }
    }

    /// Stores the low 4, 8 or 16 bytes of a vector register.
    pub fn vstore(&mut self, size: u32, v: V, m: Addr) {
        if self.ordered() {
            self.a.word(DMB_ISH);
        }
        self.vector_access(false, size, v, m);
    }

    fn vector_access(&mut self, load: bool, size: u32, v: V, m: Addr) {
        // size:opc is 10:0x for S, 11:0x for D, 00:1x for Q.
        let (size_bits, opc) = match size {
            4 => (2, u32::from(load)),
            8 => (3, u32::from(load)),
            _ => (0, 2 | u32::from(load)),
        };
        let common = size_bits << 30 | 1 << 26 | opc << 22 | v.n();
        match m {
            Addr::Imm(R::ZR, o) => {
                let b = self.constant(Width::X, o as i64 as u64);
                self.a.word(0x3900_0000 | common | b.n() << 5);
            }
            Addr::Imm(b, o)
                if o >= 0 && (o as u32).is_multiple_of(size) && o as u32 / size < 4096 =>
            {
                self.a.word(0x3900_0000 | common | (o as u32 / size) << 10 | b.n() << 5);
            }
            Addr::Imm(b, o) if (-256..256).contains(&o) => {
                self.a.word(0x3800_0000 | common | (o as u32 & 0x1ff) << 12 | b.n() << 5);
            }
            Addr::Index(b, x, s) if s == 0 || 1 << s == size => {
                let scaled = u32::from(s != 0);
                self.a.word(0x3820_6800 | common | x.n() << 16 | scaled << 12 | b.n() << 5);
            }
            other => {
                let b = self.materialize(other);
                self.a.word(0x3900_0000 | common | b.n() << 5);
            }
        }
    }

    /// The low `size` bytes (4, 8, 16) of a vector operand: the guest's register itself, or a
    /// temporary loaded from memory.
    pub fn vread(&mut self, ins: &Instruction, op: u32, size: u32) -> V {
        if ins.op_kind(op) == OpKind::Register {
            return vec_of(ins.op_register(op));
        }
        let m = self.address(ins, size);
        let v = self.vtmp();
        self.vload(size, v, m);
        v
    }

    /// Copies all 128 bits.
    pub fn vmov(&mut self, d: V, n: V) {
        dynasm!(self.a; .arch aarch64; mov V(d.0).b16, V(n.0).b16);
    }
}

/// LDAPUR, STLUR and their kin (FEAT_LRCPC2): opc in 23:22.
const LDAPUR: u32 = 0x1900_0000;
const LDAPR: u32 = 0x38bf_c000;
const LDAR: u32 = 0x08df_fc00;
const STLR: u32 = 0x089f_fc00;
/// LDUR and STUR, with the fields of [`LDAPUR`].
const LDUR: u32 = 0x3800_0000;
/// The bits of [`LDUR`] and [`LDAPUR`] that are not fields.
const LDUR_MASK: u32 = 0x3f20_0c00;
/// Orders a load before everything behind it.
pub const DMB_ISHLD: u32 = 0xd503_39bf;
/// Orders everything before a store.
pub const DMB_ISH: u32 = 0xd503_3bbf;

/// A plain access in place of an ordered one that faulted on a misaligned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relaxed {
    /// The instruction instead.
    pub word: u32,
    /// The barrier for its order.
    pub barrier: u32,
    /// A store: the barrier comes before it.
    pub store: bool,
}

/// What an ordered access is to be replaced with; None for any other instruction.
pub fn relaxed(word: u32) -> Option<Relaxed> {
    let fields = word & 0xc000_03ff;
    let (word, store) = if word & LDUR_MASK == LDAPUR {
        (word ^ LDAPUR ^ LDUR, word >> 22 & 3 == 0)
    } else if [LDAPR, LDAR].contains(&(word & 0x3fff_fc00)) {
        (LDUR | 1 << 22 | fields, false)
    } else if word & 0x3fff_fc00 == STLR {
        (LDUR | fields, true)
    } else {
        return None;
    };
    Some(Relaxed { word, barrier: if store { DMB_ISH } else { DMB_ISHLD }, store })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Load,
    LoadSx32,
    LoadSx64,
    Store,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_accesses_in_place_of_ordered_ones() {
        // LDAPUR x1, [x2, #-8]: LDUR; STLUR w1, [x2, #4]: STUR; LDAPURSH x1, [x2]: LDURSH.
        for (ordered, plain, store) in [
            (0xd95f_8041, 0xf85f_8041, false),
            (0x9900_4041, 0xb800_4041, true),
            (0x5980_0041, 0x7880_0041, false),
            // LDAPR x1, [x2]; LDAR w1, [x2]; STLR x1, [x2]
            (0xf8bf_c041, 0xf840_0041, false),
            (0x88df_fc41, 0xb840_0041, false),
            (0xc89f_fc41, 0xf800_0041, true),
        ] {
            let r = relaxed(ordered).map(|r| (r.word, r.store));
            assert_eq!(r, Some((plain, store)), "{ordered:#x}");
        }
        // LDUR; LDADDAL; CASAL; LDAXR
        for other in [0xf85f_8041, 0xf8e1_0041, 0xc8e1_fc41, 0xc85f_fc41] {
            assert_eq!(relaxed(other), None, "{other:#x}");
        }
    }
}
