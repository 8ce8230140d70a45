//! Whole-program tests of Demotic: x86_64 programs run on an x86_64 processor and translated, which must not differ.
//!
//! `programs.toml` says what is run ([`list`]); each program runs in a fresh folder under a time limit ([`sandbox`]);
//! what it printed, its exit status and the files it wrote are compared ([`compare`]); and the translator's own
//! record of the programs it loaded proves that children were translated too ([`case`]). What it writes of system calls
//! is looked at where a program is there for them ([`trace`]). On another processor an emulator runs the translator
//! ([`runner`]).

pub mod case;
pub mod compare;
pub mod list;
pub mod runner;
pub mod sandbox;
pub mod trace;
