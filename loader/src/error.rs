//! Why a program could not be started, in words for the person who asked for it.

use goblin::elf::header::{et_to_str, machine_to_str};
use std::io;
use std::path::PathBuf;

/// The program was found but cannot be executed (as in the shell).
pub const STATUS_CANNOT_EXECUTE: i32 = 126;
/// The program, or its interpreter, was not found (as in the shell).
pub const STATUS_NOT_FOUND: i32 = 127;

/// Why a program could not be started: what was wrong; what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum LoadError {
    #[error("cannot open it: {0}; check the path and its permissions")]
    Open(#[source] io::Error),
    #[error("cannot read it: {0}; check that it is a regular file")]
    Read(#[source] io::Error),
    #[error("is a directory; give a program")]
    Directory,
    #[error("is a script, not an x86_64 program; run its interpreter: demotic INTERPRETER SCRIPT")]
    Script,
    #[error("is not an ELF file; give an x86_64 Linux program")]
    NotElf,
    #[error("is a 32-bit x86 program; Demotic runs 64-bit programs, use the x86_64 build")]
    I386,
    #[error("uses the x32 ABI; Demotic runs 64-bit programs, use the x86_64 build")]
    X32,
    #[error("is built for {}, not for x86_64; run it without demotic on such a machine", machine_to_str(*.0))]
    Machine(u16),
    #[error("is an ELF file of type {}, not a program; link it into one", et_to_str(*.0))]
    NotProgram(u16),
    #[error("is cut short: it has {has} bytes and its headers speak of {needs}; fetch it again")]
    Truncated { needs: u64, has: u64 },
    #[error("is a malformed ELF file: {0}; build it again or fetch a fresh copy")]
    Malformed(&'static str),
    #[error(
        "needs a processor of level x86-64-v{needs} and Demotic offers x86-64-v{has}; \
         use a build for that level"
    )]
    Isa { needs: u32, has: u32 },
    #[error(
        "its interpreter {} was not found; install the x86_64 libraries, \
         or name the directory they are in with --sysroot", .0.display()
    )]
    NoInterpreter(PathBuf),
    #[error("is cut short: the path of its interpreter lies behind its end; fetch it again")]
    NoInterpreterPath(#[source] io::Error),
    #[error("its interpreter {} {}", .0.display(), .1)]
    Interpreter(PathBuf, #[source] Box<LoadError>),
    #[error(
        "{what} cannot be placed in memory: {error}; check `ulimit -v` and vm.overcommit_memory"
    )]
    Map { what: &'static str, error: io::Error },
    #[error("the processor's x86 memory model is not available: {0}; use --memory-model auto")]
    NoTso(#[source] io::Error),
    #[error("its arguments and environment take {has} bytes, more than {limit}; raise `ulimit -s`")]
    ArgumentsTooLong { has: u64, limit: u64 },
}

impl LoadError {
    /// The exit status of `demotic` for it.
    pub fn status(&self) -> i32 {
        match self {
            Self::Open(error) if error.kind() == io::ErrorKind::NotFound => STATUS_NOT_FOUND,
            Self::NoInterpreter(_) => STATUS_NOT_FOUND,
            _ => STATUS_CANNOT_EXECUTE,
        }
    }

    /// What execve(2) says of it (load_elf_binary in fs/binfmt_elf.c).
    pub fn errno(&self) -> i32 {
        match self {
            Self::Open(error) | Self::Read(error) | Self::NoInterpreterPath(error) => {
                error.raw_os_error().unwrap_or(libc::EIO)
            }
            Self::NoInterpreter(_) => libc::ENOENT,
            Self::Interpreter(_, error) => match **error {
                Self::Open(_) | Self::Read(_) => error.errno(),
                _ => libc::ELIBBAD,
            },
            _ => libc::ENOEXEC,
        }
    }
}
