//! The table of system calls: the single source for numbers, names, argument types, handling,
//! `--strace` output and `docs/syscalls.md`.

mod dispatch;
#[cfg(test)]
mod tests;
mod types;

pub use calls::{CALLS, guest, host};
pub use dispatch::{UNKNOWN, dispatch};
pub use types::{Count, Kind, Member, Names, Shape, Struct, Type, Width};

use crate::abi::errno;
use crate::host::{Errno, SysResult};
use crate::task::Task;

/// A system call's implementation. The arguments are extended as their types say.
pub type Handler = fn(&mut Task, [u64; 6]) -> SysResult;

/// One row of the table.
pub struct Call {
    /// x86_64 number.
    pub number: u32,
    /// Name without `sys_`.
    pub name: &'static str,
    /// arm64 number, when that kernel has the call.
    pub host: Option<u32>,
    /// Names and types of the arguments.
    pub args: &'static [Arg],
    /// Type of the result.
    pub ret: Type,
    /// What is done with the call.
    pub handling: Handling,
    /// A remark on the handling, for the reader and the documentation.
    pub note: &'static str,
    /// The arguments of which the kernel looks at the low 32 bits: signed ones, and unsigned ones.
    pub narrow: [u8; 2],
    /// The arguments that are, or may be, addresses: a bit for each.
    pub addresses: u8,
    /// The arguments that are descriptors.
    pub descriptors: u8,
    /// Whether an argument points to what is given to the kernel in another form even if the call is passed: a path
    /// that [`crate::paths`] has to see, or a vector of addresses.
    pub has_inner: bool,
}

/// A named and typed argument.
pub struct Arg {
    /// Name as in the manual page.
    pub name: &'static str,
    /// Type.
    pub ty: Type,
}

/// What is done with a system call.
pub enum Handling {
    /// The arm64 kernel's call of the same name does it.
    Pass,
    /// Goes to the arm64 kernel with arguments or results converted.
    Convert(Handler),
    /// Is answered, wholly or in some cases, without the arm64 kernel.
    Emulate(Handler),
    /// Fails as on an x86_64 kernel that lacks the feature.
    Refuse(Errno),
    /// Not there yet: ENOSYS, and a line in the log.
    Missing,
}

impl Handling {
    /// The support level's name, as in the table.
    pub fn level(&self) -> &'static str {
        match self {
            Handling::Pass => "pass",
            Handling::Convert(_) => "convert",
            Handling::Emulate(_) => "emulate",
            Handling::Refuse(_) => "refuse",
            Handling::Missing => "missing",
        }
    }

    /// The name of the error that a refused call fails with.
    pub fn error(&self) -> Option<&'static str> {
        match self {
            Handling::Refuse(error) => errno::describe(*error).map(|(name, _)| name),
            Handling::Missing => Some("ENOSYS"),
            _ => None,
        }
    }
}

/// Index into [`CALLS`] by x86_64 number, plus one; 0 where there is no row.
static INDEX: [u16; UNKNOWN as usize] = {
    let mut index = [0; UNKNOWN as usize];
    let mut i = 0;
    while i < CALLS.len() {
        index[CALLS[i].number as usize] = i as u16 + 1;
        i += 1;
    }
    index
};

/// The row of an x86_64 system call number.
pub fn lookup(number: u32) -> Option<&'static Call> {
    let index = *INDEX.get(number as usize)?;
    CALLS.get(usize::from(index).wrapping_sub(1))
}

/// The arguments of 32 bits, signed ones and unsigned ones; what is no argument is passed as it is.
const fn narrow(args: &[Arg]) -> [u8; 2] {
    let (mut bits, mut i) = ([0; 2], 0);
    while i < args.len() {
        bits[0] |= (matches!(args[i].ty.width(), Width::I32) as u8) << i;
        bits[1] |= (matches!(args[i].ty.width(), Width::U32) as u8) << i;
        i += 1;
    }
    bits
}

/// The arguments that may be addresses, and those that are descriptors.
const fn addresses_and_descriptors(args: &[Arg]) -> [u8; 2] {
    let (mut bits, mut i) = ([0; 2], 0);
    while i < args.len() {
        bits[0] |= (args[i].ty.is_address() as u8) << i;
        bits[1] |= (args[i].ty.is_descriptor() as u8) << i;
        i += 1;
    }
    bits
}

/// Whether an argument is a path or a vector of addresses.
const fn has_inner(args: &[Arg]) -> bool {
    let mut i = 0;
    while i < args.len() {
        use Shape::Iovec;
        use Type::{In, LinkPath, Out, Path};
        if matches!(args[i].ty, Path | LinkPath | In(Iovec) | Out(Iovec)) {
            return true;
        }
        i += 1;
    }
    false
}

/// Turns the rows into [`CALLS`] and the modules of numbers.
macro_rules! calls {
    ($($number:literal $host:tt $name:ident($($arg:ident: $ty:expr),*) $(-> $ret:ident)?
        $kind:ident $(($($how:tt)*))? $($note:literal)?;)*) => {
        /// Every x86_64 system call, in numerical order.
        pub static CALLS: &[Call] = &[$({
            const ARGS: &[Arg] = &[$(Arg { name: stringify!($arg), ty: $ty }),*];
            Call {
                number: $number,
                name: stringify!($name),
                host: calls!(@host $host),
                args: ARGS,
                ret: calls!(@ret $($ret)?),
                handling: calls!(@handling $kind $($($how)*)?),
                note: concat!($($note)?),
                narrow: super::narrow(ARGS),
                addresses: super::addresses_and_descriptors(ARGS)[0],
                descriptors: super::addresses_and_descriptors(ARGS)[1],
                has_inner: super::has_inner(ARGS),
            }
        }),*];

        /// x86_64 system call numbers.
        #[allow(non_upper_case_globals, missing_docs)]
        pub mod guest { $(pub const $name: u64 = $number;)* }

        /// arm64 system call numbers of the calls that both kernels have.
        #[allow(non_upper_case_globals, missing_docs)]
        pub mod host { $(calls!(@number $name $host);)* }
    };
    (@host -) => { None };
    (@host $host:literal) => { Some($host) };
    (@number $name:ident -) => {};
    (@number $name:ident $host:literal) => { pub const $name: u64 = $host; };
    (@ret) => { Type::Long };
    (@ret $ret:ident) => { Type::$ret };
    (@handling pass) => { Handling::Pass };
    (@handling convert $($handler:tt)*) => { Handling::Convert($($handler)*) };
    (@handling emulate $($handler:tt)*) => { Handling::Emulate($($handler)*) };
    (@handling refuse $($errno:tt)*) => { Handling::Refuse($($errno)*) };
    (@handling missing) => { Handling::Missing };
}

mod calls;
