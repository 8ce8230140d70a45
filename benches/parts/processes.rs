//! Processes: what the translator adds to fork, and a program from its start to its end.

use crate::running::Guest;
use criterion::Criterion;
use iced_x86::code_asm::*;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A process with translations forks; the child runs a translation, and ends.
pub fn fork(criterion: &mut Criterion) {
    let mut guest = Guest::new(|a| a.mov(eax, 57u32));
    guest.run();
    criterion.benchmark_group("process").bench_function("fork", |bencher| {
        bencher.iter(|| {
            let mut lock = guest.engine.lock_for_fork(&mut guest.cpu);
            // SAFETY: the only thread; the child does nothing but what is here.
            let child = unsafe { libc::fork() };
            if child == 0 {
                lock.in_child(&mut guest.cpu);
                drop(lock);
                guest.run();
                // SAFETY: it does not return.
                unsafe { libc::_exit(7) };
            }
            drop(lock);
            let mut status = 0;
            // SAFETY: the child of just now.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
        });
    });
}

/// The smallest program, by a `demotic` process of its own: nothing is there from before.
pub fn exec(criterion: &mut Criterion) {
    let Some(mut command) = demotic() else {
        eprintln!("process/exec is left out: build the demotic command with --release first");
        return;
    };
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/gate/hello")).stdout(Stdio::null());
    criterion.benchmark_group("process").bench_function("exec", |bencher| {
        bencher.iter(|| assert!(command.status().expect("it starts").success()));
    });
}

/// The command, built beside this program: two folders above it. Under an emulator, that program's path in
/// `DEMOTIC_RUNNER` comes first.
fn demotic() -> Option<Command> {
    let own = std::env::current_exe().ok()?;
    let built: PathBuf = own.parent()?.parent()?.join("demotic");
    if !built.is_file() {
        return None;
    }
    Some(match std::env::var_os("DEMOTIC_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(&runner);
            command.arg(built).arg("--runner").arg(runner);
            command
        }
        None => Command::new(built),
    })
}
