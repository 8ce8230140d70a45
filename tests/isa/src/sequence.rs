//! Random instruction sequences: forward jumps, counted loops, calls and returns, flags that are
//! read long after they were set, partial registers, pushes and pops.
//!
//! A sequence is kept as items that can be dropped one by one, which is how a failing one is shrunk.

use crate::{
    case::{Case, SEQUENCE, Tolerance, name},
    forms::{self, Form},
    operands::{self, Place},
    rng::{Lane, Rng, hash},
    segments,
    state::{DATA, OPERANDS_SIZE, Program, RSP, State, in_data},
    undefined::{self, Approximation, flag_effect},
};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, FlowControl, Instruction, InstructionBlock,
    InstructionInfoFactory, MemoryOperand, Mnemonic, OpAccess, Register, RflagsBits,
};
use std::sync::OnceLock;

/// What a sequence is made of, besides integer instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    Integer,
    Sse,
    X87,
}

#[derive(Clone, Debug)]
enum Body {
    /// An instruction behind the moves that set its registers up.
    Plain { setup: Vec<(Register, u64)>, instruction: Instruction },
    /// A direct branch or call.
    Branch { code: Code, target: u32 },
    /// A branch or call through a register.
    Indirect { register: Register, code: Code, target: u32 },
}

#[derive(Clone, Debug)]
struct Item {
    /// Position in the full sequence; branches name their target by it.
    id: u32,
    body: Body,
}

/// A sequence that can be assembled, whole or in part.
#[derive(Clone, Debug)]
pub struct Sequence {
    name: String,
    state: State,
    memory_seed: u64,
    items: Vec<Item>,
}

/// The `index`th sequence of a seed.
pub fn case(index: u32, seed: u64) -> Case {
    let mut sequence = Sequence::generate(index, seed);
    sequence.define_flags();
    sequence.assemble()
}

/// Forms that sequences draw from, by mix.
struct Pools {
    common: Vec<Code>,
    integer: Vec<Code>,
    sse: Vec<Code>,
    x87: Vec<Code>,
}

const COMMON: &[Mnemonic] = {
    use Mnemonic::*;
    &[
        Mov, Add, Sub, Cmp, Test, And, Or, Xor, Lea, Inc, Dec, Shl, Shr, Sar, Adc, Sbb, Movzx,
        Movsx, Movsxd, Imul, Push, Pop, Neg, Not, Bt, Cmove, Cmovne, Cmovl, Cmovb, Cmova, Cmovs,
        Cmovp, Sete, Setne, Setl, Setb, Setbe, Seto, Setp, Pushfq, Lahf, Xchg, Cdq, Cqo, Cdqe, Rol,
        Ror, Rcl,
    ]
};

/// Not in sequences: what needs prepared memory or changes how addresses are formed.
const NOT_IN_SEQUENCES: &[Mnemonic] = {
    use Mnemonic::*;
    &[
        Wrfsbase, Wrgsbase, Leave, Enter, Popf, Popfq, Maskmovq, Maskmovdqu, Fnsave, Fnstenv,
        Fxsave, Fxsave64, Fbld, Fldcw, Fldenv, Frstor, Fxrstor, Fxrstor64, Ldmxcsr, Sahf, Std, Lss,
        Lfs, Lgs, Lar, Lsl, Verr, Verw, Sgdt, Sidt, Sldt, Smsw, Str,
    ]
};

fn pools() -> &'static Pools {
    static POOLS: OnceLock<Pools> = OnceLock::new();
    POOLS.get_or_init(|| {
        let usable = |form: &Form| {
            form.untested.is_none()
                && form.code.encoding() == iced_x86::EncodingKind::Legacy
                && form.code.flow_control() == FlowControl::Next
                && !NOT_IN_SEQUENCES.contains(&form.code.mnemonic())
                && !segments::is_load(form.code)
                && undefined::approximation(form.code.mnemonic()) == Approximation::Exact
        };
        let mut pools = Pools { common: vec![], integer: vec![], sse: vec![], x87: vec![] };
        for form in forms::all().iter().filter(|form| usable(form)) {
            let pool = match form.feature().as_str() {
                "base" | "CMOV" | "CX8" => &mut pools.integer,
                "SSE" | "SSE2" | "SSE3" | "SSSE3" | "SSE4_1" | "SSE4_2" => &mut pools.sse,
                "FPU" | "FPU387" | "FPU287" | "MMX" => &mut pools.x87,
                _ => continue,
            };
            pool.push(form.code);
            if COMMON.contains(&form.code.mnemonic()) {
                pools.common.push(form.code);
            }
        }
        pools
    })
}

/// The state of generation.
struct Generator {
    rng: Rng,
    mix: Mix,
    place: Place,
    /// What instructions must not write: bases, the loop counter, the stack pointer.
    protected: Vec<Register>,
    counter: Register,
    info: InstructionInfoFactory,
    items: Vec<Item>,
    /// The furthest target of a jump so far.
    furthest: u32,
    /// First item of the loop that is open.
    open_loop: Option<u32>,
}

impl Generator {
    fn next_id(&self) -> u32 {
        self.items.len() as u32
    }

    fn push(&mut self, body: Body) {
        let id = self.next_id();
        self.items.push(Item { id, body });
    }

    fn plain(&mut self) {
        let body = self.random_instruction();
        self.push(body);
    }

    fn random_instruction(&mut self) -> Body {
        let pools = pools();
        loop {
            let pool = match (self.mix, self.rng.below(10)) {
                (Mix::Sse, 0..6) => &pools.sse,
                (Mix::X87, 0..6) => &pools.x87,
                (_, 6..9) => &pools.common,
                _ => &pools.integer,
            };
            let code = self.rng.pick(pool);
            let division = matches!(code.mnemonic(), Mnemonic::Div | Mnemonic::Idiv);
            if division && self.rng.chance(70) {
                continue;
            }
            let Some(built) = operands::build(code, &mut self.rng, &self.place, 0) else {
                continue;
            };
            let encodable =
                iced_x86::Encoder::new(64).encode(&built.instruction, crate::state::CODE).is_ok();
            let needs_protected = built.registers.iter().any(|(r, _)| self.protected.contains(r));
            let undefined = undefined::result_is_undefined(&built.instruction);
            if encodable
                && !needs_protected
                && !undefined
                && !self.writes_protected(&built.instruction)
            {
                return Body::Plain { setup: built.registers, instruction: built.instruction };
            }
        }
    }

    fn writes_protected(&mut self, instruction: &Instruction) -> bool {
        let stack = instruction.is_stack_instruction();
        self.info.info(instruction).used_registers().iter().any(|used| {
            let register = used.register().full_register();
            let reads = matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            );
            !reads
                && self.protected.contains(&register)
                && !(stack && register == Register::RSP && !names_rsp(instruction))
        })
    }

    fn free_register(&mut self) -> Register {
        loop {
            let register = Register::RAX + self.rng.below(16) as u32;
            if !self.protected.contains(&register) {
                return register;
            }
        }
    }

    fn forward_jump(&mut self) {
        let target = self.next_id() + 2 + self.rng.below(5) as u32;
        self.furthest = self.furthest.max(target);
        let body = if self.rng.chance(15) {
            Body::Indirect { register: self.free_register(), code: Code::Jmp_rm64, target }
        } else if self.rng.chance(10) {
            Body::Branch { code: self.rng.pick(&[Code::Jrcxz_rel8_64, Code::Jmp_rel32_64]), target }
        } else {
            Body::Branch { code: self.rng.pick(&JCC), target }
        };
        self.push(body);
    }

    /// A counter for a loop that `close_loop` ends.
    fn open_loop(&mut self) {
        let count = 1 + self.rng.below(4);
        let instruction =
            Instruction::with2(Code::Mov_r32_imm32, self.counter - 16, count as u32).expect("mov");
        self.push(Body::Plain { setup: Vec::new(), instruction });
        self.open_loop = Some(self.next_id());
    }

    fn close_loop(&mut self, target: u32) {
        let down = if self.rng.chance(50) {
            Instruction::with1(Code::Dec_rm64, self.counter).expect("dec")
        } else {
            Instruction::with2(Code::Sub_rm64_imm8, self.counter, 1).expect("sub")
        };
        self.push(Body::Plain { setup: Vec::new(), instruction: down });
        let code = self.rng.pick(&[
            Code::Jne_rel32_64,
            Code::Jg_rel32_64,
            Code::Jns_rel32_64,
            Code::Jne_rel32_64,
        ]);
        self.push(Body::Branch { code, target });
    }

    /// call f; jmp behind; f: ...; ret; behind:
    fn call_and_return(&mut self) {
        let function = self.next_id() + 2;
        let length = 1 + self.rng.below(4) as u32;
        let call = if self.rng.chance(30) {
            Body::Indirect {
                register: self.free_register(),
                code: Code::Call_rm64,
                target: function,
            }
        } else {
            Body::Branch { code: Code::Call_rel32_64, target: function }
        };
        self.push(call);
        self.push(Body::Branch { code: Code::Jmp_rel32_64, target: function + length + 1 });
        for _ in 0..length {
            loop {
                let body = self.random_instruction();
                // The return address must be on top at the end.
                if matches!(&body, Body::Plain { instruction, .. } if !instruction.is_stack_instruction())
                {
                    self.push(body);
                    break;
                }
            }
        }
        self.push(Body::Plain { setup: Vec::new(), instruction: Instruction::with(Code::Retnq) });
    }

    fn fill(&mut self, length: u32) {
        while self.next_id() < length {
            let nothing_pending = self.furthest <= self.next_id();
            match self.rng.below(100) {
                0..10 => self.forward_jump(),
                10..14 if nothing_pending && self.open_loop.is_none() => self.open_loop(),
                14..18 if nothing_pending => self.call_and_return(),
                18..50 if self.open_loop.is_some() && nothing_pending => {
                    let target = self.open_loop.take().expect("just seen");
                    self.close_loop(target);
                }
                _ => self.plain(),
            }
        }
    }
}

fn names_rsp(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| instruction.op_register(i).full_register() == Register::RSP)
}

const JCC: [Code; 16] = [
    Code::Jo_rel32_64,
    Code::Jno_rel32_64,
    Code::Jb_rel32_64,
    Code::Jae_rel32_64,
    Code::Je_rel32_64,
    Code::Jne_rel32_64,
    Code::Jbe_rel32_64,
    Code::Ja_rel32_64,
    Code::Js_rel32_64,
    Code::Jns_rel32_64,
    Code::Jp_rel32_64,
    Code::Jnp_rel32_64,
    Code::Jl_rel32_64,
    Code::Jge_rel32_64,
    Code::Jle_rel32_64,
    Code::Jg_rel32_64,
];

impl Sequence {
    /// The `index`th sequence of a seed: two in four of integer instructions alone, one with SSE,
    /// one with x87 and MMX.
    pub fn generate(index: u32, seed: u64) -> Self {
        let name = name(SEQUENCE, index, seed);
        let mut rng = Rng::new(hash(name.as_bytes()));
        let (mix, lane) = match index % 4 {
            0 | 1 => (Mix::Integer, Lane::Int),
            2 => (Mix::Sse, rng.pick(&[Lane::Int, Lane::F32, Lane::F64])),
            _ => (Mix::X87, rng.pick(&[Lane::Int, Lane::F80])),
        };
        let mut state = State::random(&mut rng, lane);
        state.rip = operands::code_address(&mut rng).min(crate::state::CODE + 0x2000);
        let mut special: Vec<Register> = Vec::new();
        while special.len() < 3 {
            let register = Register::RAX + rng.below(16) as u32;
            if register.number() != RSP && !special.contains(&register) {
                special.push(register);
            }
        }
        let pinned: Vec<_> = special[..2]
            .iter()
            .map(|&r| (r, DATA + 256 + 16 * rng.below(OPERANDS_SIZE / 32)))
            .collect();
        for (register, value) in &pinned {
            state.gpr[register.number()] = *value;
        }
        let place = Place {
            fs_base: state.fs_base,
            gs_base: state.gs_base,
            pinned,
            alone: false,
            misaligned: false,
        };
        let length = 5 + rng.below(36) as u32;
        let memory_seed = rng.bits();
        let mut generator = Generator {
            mix,
            place,
            protected: [&special[..], &[Register::RSP]].concat(),
            counter: special[2],
            info: InstructionInfoFactory::new(),
            items: Vec::new(),
            furthest: 0,
            open_loop: None,
            rng,
        };
        generator.fill(length);
        Self { name, state, memory_seed, items: generator.items }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The sequence without some of its items, if no undefined flag is read then.
    pub fn without(&self, range: std::ops::Range<usize>) -> Option<Self> {
        let mut shorter = self.clone();
        shorter.items.drain(range);
        shorter.flat().reader_of_undefined().is_none().then_some(shorter)
    }

    /// The item whose code lies at an address.
    pub fn item_at(&self, address: u64) -> Option<usize> {
        let starts = self.assemble().tolerance.flags;
        let instruction = starts.iter().rposition(|(start, _)| *start <= address)?;
        let item = self.flat().item_of[instruction];
        (item < self.items.len()).then_some(item)
    }

    /// Puts a comparison in the place of every item that reads an undefined flag.
    pub fn define_flags(&mut self) {
        while let Some(position) = self.flat().reader_of_undefined() {
            let instruction =
                Instruction::with2(Code::Cmp_rm64_r64, Register::RAX, Register::RDX).expect("cmp");
            self.items[position].body = Body::Plain { setup: Vec::new(), instruction };
        }
    }

    /// The program, ended by an INT3.
    pub fn assemble(&self) -> Case {
        let flat = self.flat();
        let block = InstructionBlock::new(&flat.instructions, self.state.rip);
        let result =
            BlockEncoder::encode(64, block, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)
                .expect("every instruction was encoded before");
        let addresses: Vec<u64> = result
            .new_instruction_offsets
            .iter()
            .map(|&offset| self.state.rip + u64::from(offset))
            .collect();
        let flags = addresses.into_iter().zip(flat.undefined_flags()).collect();
        let tolerance = Tolerance { flags, memory: self.ignored_memory(), ..Tolerance::default() };
        let program = Program {
            code: result.code_buffer,
            state: self.state.clone(),
            memory_seed: self.memory_seed,
            patches: Vec::new(),
        };
        Case { name: self.name.clone(), program, tolerance }
    }

    /// Saved state of the x87 unit that processors fill in differently: address and length.
    fn ignored_memory(&self) -> Vec<(u64, u64)> {
        let mut ignored = Vec::new();
        for item in &self.items {
            let Body::Plain { setup, instruction } = &item.body else { continue };
            let fields = undefined::ignored_memory(instruction.code());
            let value = |register: Register, _: usize, _: usize| {
                let full = register.full_register();
                match register {
                    Register::FS => Some(self.state.fs_base),
                    Register::GS => Some(self.state.gs_base),
                    _ if register.is_segment_register() => Some(0),
                    _ => setup
                        .iter()
                        .find(|(r, _)| *r == full)
                        .map(|(_, value)| *value)
                        .or(Some(self.state.gpr[full.number()])),
                }
            };
            if !fields.is_empty()
                && let Some(address) = instruction.virtual_address(0, 0, value)
            {
                let inside = |at: u64, length: u64| in_data(at, length as usize);
                let absolute =
                    fields.iter().map(|(at, length)| (address.wrapping_add(*at), *length));
                ignored.extend(absolute.filter(|&(at, length)| inside(at, length)));
            }
        }
        ignored
    }

    fn flat(&self) -> Flat {
        let mut flat = Flat { instructions: Vec::new(), item_of: Vec::new() };
        for (position, item) in self.items.iter().enumerate() {
            for (k, mut instruction) in self.instructions(item).into_iter().enumerate() {
                instruction.set_ip(label(item.id) + k as u64);
                flat.instructions.push(instruction);
                flat.item_of.push(position);
            }
        }
        let mut end = Instruction::with(Code::Int3);
        end.set_ip(label(END));
        flat.instructions.push(end);
        flat.item_of.push(self.items.len());
        flat
    }

    /// The label of the first remaining item at or behind an id.
    fn target(&self, id: u32) -> u64 {
        label(self.items.iter().map(|item| item.id).find(|&i| i >= id).unwrap_or(END))
    }

    fn instructions(&self, item: &Item) -> Vec<Instruction> {
        match &item.body {
            Body::Plain { setup, instruction } => setup
                .iter()
                .map(|&(register, value)| load(register, value))
                .chain([*instruction])
                .collect(),
            Body::Branch { code, target } => {
                vec![Instruction::with_branch(*code, self.target(*target)).expect("a branch")]
            }
            Body::Indirect { register, code, target } => {
                let memory =
                    MemoryOperand::with_base_displ(Register::RIP, self.target(*target) as i64);
                let lea = Instruction::with2(Code::Lea_r64_m, *register, memory).expect("lea");
                vec![lea, Instruction::with1(*code, *register).expect("an indirect branch")]
            }
        }
    }
}

/// mov r32, imm32 where the value allows it; either way the flags stay.
fn load(register: Register, value: u64) -> Instruction {
    match u32::try_from(value) {
        Ok(value) => Instruction::with2(Code::Mov_r32_imm32, register - 16, value).expect("mov"),
        Err(_) => Instruction::with2(Code::Mov_r64_imm64, register, value).expect("mov"),
    }
}

/// Id of the final INT3.
const END: u32 = u32::MAX;

/// Address by which the block encoder knows an item.
fn label(id: u32) -> u64 {
    0x4000_0000_0000 + u64::from(id) * 64
}

/// The flags an instruction reads, those of the x87 status word among them.
fn reads(instruction: &Instruction) -> u32 {
    match instruction.mnemonic() {
        Mnemonic::Fnstsw => RflagsBits::C0 | RflagsBits::C1 | RflagsBits::C2 | RflagsBits::C3,
        _ => instruction.rflags_read(),
    }
}

/// A sequence as plain instructions whose branches name labels.
struct Flat {
    instructions: Vec<Instruction>,
    item_of: Vec<usize>,
}

impl Flat {
    /// For every instruction, the flags that may be undefined before it, over all paths.
    fn undefined_flags(&self) -> Vec<u32> {
        let mut before = vec![0; self.instructions.len()];
        loop {
            let mut changed = false;
            for i in 0..self.instructions.len() {
                let effect = flag_effect(&self.instructions[i], None);
                let after = (before[i] & !effect.defined) | effect.undefined;
                for next in self.successors(i) {
                    changed |= after & !before[next] != 0;
                    before[next] |= after;
                }
            }
            if !changed {
                return before;
            }
        }
    }

    /// The item that reads an undefined flag, if one does.
    fn reader_of_undefined(&self) -> Option<usize> {
        let before = self.undefined_flags();
        let reader = (0..before.len()).find(|&i| reads(&self.instructions[i]) & before[i] != 0)?;
        Some(self.item_of[reader])
    }

    fn successors(&self, i: usize) -> Vec<usize> {
        let instruction = &self.instructions[i];
        let behind = (i + 1 < self.instructions.len()).then_some(i + 1);
        let at = |ip: u64| self.instructions.iter().position(|other| other.ip() == ip);
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch => {
                at(instruction.near_branch_target()).into_iter().collect()
            }
            FlowControl::ConditionalBranch => {
                at(instruction.near_branch_target()).into_iter().chain(behind).collect()
            }
            FlowControl::Call => at(instruction.near_branch_target()).into_iter().collect(),
            // The LEA in front names the target.
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                at(self.instructions[i - 1].memory_displacement64()).into_iter().collect()
            }
            FlowControl::Return => (1..self.instructions.len())
                .filter(|&k| {
                    matches!(
                        self.instructions[k - 1].flow_control(),
                        FlowControl::Call | FlowControl::IndirectCall
                    )
                })
                .collect(),
            FlowControl::Interrupt => Vec::new(),
            _ => behind.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sequence_reads_an_undefined_flag() {
        for index in 0..200 {
            let mut sequence = Sequence::generate(index, 7);
            sequence.define_flags();
            assert_eq!(sequence.flat().reader_of_undefined(), None);
            assert!(sequence.assemble().program.code.len() < 0x1000);
        }
    }

    #[test]
    fn items_can_be_dropped() {
        let sequence = Sequence::generate(1, 1);
        let shorter =
            (0..sequence.len()).find_map(|i| sequence.without(i..i + 1)).expect("some item can go");
        assert_eq!(shorter.len() + 1, sequence.len());
        assert_ne!(shorter.assemble().program.code, sequence.assemble().program.code);
    }
}
