//! Guest code that is executed for the first few times is interpreted: most of what a program executes before its
//! work begins is executed once, and to translate an instruction takes as long as to interpret it several times.
//!
//! What is interpreted here are the frequent instructions; any other is left to the translator, with all of its code
//! up to the next one that is known. Semantics are those of the recorded processor, checked by the same tests.
//!
//! The interpreter works on the [`CpuState`], where all guest state is while no translated code runs. An instruction
//! accesses memory before it changes anything, so a fault abandons the interpreter between two instructions:
//! `cpu.rip` is set before each. Nothing here may own a resource or hold a lock.

mod decode;
mod integer;
mod opcodes;
mod operands;
mod quick;
mod vector;
mod visits;
mod wishes;

pub use visits::Visits;

use crate::engine::GuestMemory;
use crate::facts;
use crate::helpers::HelperFn;
use crate::region::CodeReader;
use crate::repeat;
use crate::state::reg::{RCX, RSP};
use crate::state::{CpuState, ExitCode};
use decode::Decoded;
use opcodes::Action;

/// How control goes on behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// With the next one.
    Next,
    /// The same, behind a conditional branch.
    NotTaken,
    /// At [`Interpreter::target`]: a jump, a return.
    Jump,
    /// There, and comes back.
    Call,
    /// With the same instruction again.
    Again,
    /// With a system call; its address is behind the instruction.
    Syscall,
    /// With the translator: nothing has been executed.
    Translate,
}

/// Why the interpreter has stopped. `cpu.rip` says where the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The code there is the translator's: an instruction that is not interpreted, or code that has been executed often.
    Translate,
    /// Something waits for the thread.
    Interrupted,
    /// A call is to be made whose callee's flags are read behind it; none of it has been executed.
    FlagsBehindCall,
    /// No executable memory.
    NoCode,
    /// A system call.
    Syscall,
    /// A memory access has faulted.
    MemoryFault,
}

/// What a run of the interpreter needs; it lives outside of the frame that a fault abandons.
pub struct Session<'a> {
    /// Where code is read.
    pub memory: &'a dyn GuestMemory,
    /// How often code has been executed.
    pub visits: &'a Visits,
    /// Whether accesses are ordered for other threads.
    pub ordered: bool,
    /// Whether flags are exact at returns; else calls are looked at, see [`facts::reads_flags_behind`].
    pub flags_live_at_return: bool,
    /// Out.
    pub stop: Stop,
    /// Out: where the block began in which it stopped.
    pub block: u64,
}

/// Interprets from `cpu.rip` on. The trampoline `Call` calls this, see there.
///
/// # Safety
/// Both pointers are valid and exclusive.
pub unsafe extern "C" fn enter(cpu: *mut CpuState, session: *mut Session) {
    // SAFETY: the caller's.
    let (cpu, session) = unsafe { (&mut *cpu, &mut *session) };
    session.stop = Stop::MemoryFault;
    cpu.interpreting = 1;
    let stop = run(cpu, session);
    cpu.interpreting = 0;
    cpu.exit = ExitCode::Interrupt as u64;
    session.stop = stop;
}

fn run(cpu: &mut CpuState, session: &mut Session) -> Stop {
    let mut interpreter = Interpreter { cpu, ordered: session.ordered, target: 0 };
    let mut ins = Decoded::new();
    let mut known = [0; 2];
    let mut length = 0;
    session.block = interpreter.cpu.rip;
    loop {
        let rip = interpreter.cpu.rip;
        if rip.wrapping_sub(known[0]) >= length {
            known = known_code(interpreter.cpu, session.memory, rip);
            let available = known[1].saturating_sub(rip);
            if available < decode::WINDOW as u64 {
                return if available == 0 { Stop::NoCode } else { Stop::Translate };
            }
            length = known[1] - known[0] - decode::WINDOW as u64 + 1;
        }
        let (flow, next) = match interpreter.quick(rip) {
            Some(done) => done,
            None if decode::decode(interpreter.cpu, rip, &mut ins).is_some() => {
                (interpreter.execute(&ins), ins.next)
            }
            None => return Stop::Translate,
        };
        match flow {
            Flow::Next => {
                interpreter.cpu.rip = next;
                continue;
            }
            Flow::NotTaken => {
                session.visits.note(next);
                interpreter.cpu.rip = next;
                session.block = next;
                continue;
            }
            Flow::Jump => {}
            Flow::Call => {
                let code = CodeReader::knowing(session.memory, known);
                if !session.flags_live_at_return && facts::reads_flags_behind(&code, next) {
                    // Its return address is pushed again.
                    interpreter.cpu.gpr[RSP] += 8;
                    return Stop::FlagsBehindCall;
                }
            }
            Flow::Again => interpreter.target = rip,
            Flow::Syscall => {
                interpreter.cpu.rip = next;
                return Stop::Syscall;
            }
            Flow::Translate => return Stop::Translate,
        }
        interpreter.cpu.rip = interpreter.target;
        session.block = interpreter.target;
        // SAFETY: a plain field that signal handlers write.
        if unsafe { std::ptr::read_volatile(&interpreter.cpu.interrupt) } != 0 {
            return Stop::Interrupted;
        }
        if !session.visits.is_cold(interpreter.target) {
            return Stop::Translate;
        }
    }
}

/// The executable mapping around an address.
fn known_code(cpu: &mut CpuState, memory: &dyn GuestMemory, rip: u64) -> [u64; 2] {
    if let Some(known) = cpu.known_code.iter().find(|[start, end]| (start..end).contains(&&rip)) {
        return *known;
    }
    let (start, end) = memory.executable_around(rip);
    cpu.known_code.rotate_right(1);
    cpu.known_code[0] = [start, end];
    [start, end]
}

/// Executes single instructions.
struct Interpreter<'a> {
    cpu: &'a mut CpuState,
    ordered: bool,
    /// Where a jump goes.
    target: u64,
}

impl Interpreter<'_> {
    /// Executes the instruction at `cpu.rip`.
    #[inline(always)]
    fn execute(&mut self, ins: &Decoded) -> Flow {
        let done = match ins.action {
            Action::Translate | Action::Group(_) => None,
            Action::Nop => Some(()),
            Action::Move => self.mov(ins),
            Action::Lea => self.lea(ins),
            Action::Extend { signed } => self.extend(ins, signed),
            Action::Widen => self.widen(ins.size),
            Action::SignToRdx => self.sign_to_rdx(ins.size),
            Action::Arithmetic(operation) => self.arithmetic(ins, operation),
            Action::Increment => self.step_by(ins, 1),
            Action::Decrement => self.step_by(ins, -1),
            Action::Negate => self.negate(ins),
            Action::Not => self.not(ins),
            Action::Exchange => self.exchange(ins),
            Action::Shift(shift) => self.shift(ins, shift),
            Action::Imul => self.imul(ins, false),
            Action::Imul3 => self.imul(ins, true),
            Action::Multiply { signed } => self.multiply(ins, signed),
            Action::Divide { signed } => self.divide(ins, signed),
            Action::BitTest => self.bit_test(ins),
            Action::Push => self.push(ins),
            Action::Pop => self.pop(ins),
            Action::Leave => self.leave(),
            Action::Call => return self.call(ins, ins.target),
            Action::CallTo => {
                let target = self.read(ins.to);
                return self.call(ins, target);
            }
            Action::Return => return self.ret(ins),
            Action::Jump => return self.jump(ins.target),
            Action::JumpTo => {
                let target = self.read(ins.to);
                return self.jump(target);
            }
            Action::JumpIf(condition) if self.holds(condition) => return self.jump(ins.target),
            Action::JumpIf(_) => return Flow::NotTaken,
            Action::SetIf(condition) => self.set_if(ins, condition),
            Action::MoveIf(condition) => self.move_if(ins, condition),
            Action::Syscall => return Flow::Syscall,
            Action::RepeatMove => return self.repeat(ins.size, repeat::movs),
            Action::RepeatStore => return self.repeat(ins.size, repeat::stos),
            Action::VectorMove { aligned } => self.vector_move(ins, aligned),
            Action::VectorMoveLow => self.vector_move_low(ins),
            Action::VectorLoadHigh => self.vector_load_high(ins),
            Action::VectorStoreHigh => self.vector_store_high(ins),
            Action::Vector(operation) => self.vector_operation(ins, operation),
            Action::ShuffleDwords => self.shuffle_dwords(ins),
            Action::ShiftBytes { left } => self.shift_bytes(ins, left),
            Action::MoveMask => self.move_mask(ins),
        };
        if done.is_some() { Flow::Next } else { Flow::Translate }
    }

    #[inline]
    fn jump(&mut self, target: u64) -> Flow {
        self.target = target;
        Flow::Jump
    }

    /// REP MOVS and REP STOS, in portions.
    fn repeat(&mut self, size: u8, portion: HelperFn) -> Flow {
        if self.cpu.df != 0 {
            return Flow::Translate;
        }
        portion(self.cpu, u64::from(size), 0, 0);
        if self.cpu.gpr[RCX] == 0 { Flow::Next } else { Flow::Again }
    }
}
