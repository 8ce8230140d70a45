//! `cargo xtask run`: an x86_64 program under Demotic.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::{
    root,
    setup::{self, For},
    toolchain::{self, Toolchain},
};

/// The options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Options {
    /// The x86_64 root the program finds its libraries in.
    #[arg(long, default_value = "/")]
    sysroot: PathBuf,
    /// The program and its arguments; without them, the demo of the pidfd calls.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// Runs the program in place of this one, so that signals and the exit status are its own.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::ensure(For::Run);
    let demotic = Toolchain::find(false)?.build()?;
    let sysroot = ["--sysroot".into(), options.sysroot.clone().into_os_string()];
    let mut command = toolchain::translated(&demotic, sysroot);
    match options.program.as_slice() {
        [] => command.arg(root().join("tests/demo/demo")),
        [program, arguments @ ..] => command.arg(find(program)).args(arguments),
    };
    let error = command.exec();
    Err(error).with_context(|| format!("{} could not be started", command.get_program().display()))
}

/// Where a program is, when it is named without a path.
pub fn find(program: &OsStr) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let bare = !program.as_encoded_bytes().contains(&b'/');
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    found.filter(|_| bare).unwrap_or_else(|| program.into())
}
