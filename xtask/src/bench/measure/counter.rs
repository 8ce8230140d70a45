//! The instrument on an x86_64 machine: a qemu-aarch64 that takes plugins, and the project's plugin,
//! `benches/plugin/a64count.c`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Launch, Measured, finish};
use crate::root;

/// Counts the arm64 instructions that programs execute.
pub struct Counter {
    /// The command that runs an arm64 program counted; children are run by it too.
    runner: PathBuf,
    /// Where the plugin writes a line for each process image.
    lines: PathBuf,
}

impl Counter {
    /// Builds the plugin for the qemu unpacked in `qemu`, and works in `folder`; `options` are more options for the
    /// plugin, each with a comma before it.
    pub fn new(folder: &Path, qemu: &Path, options: &str) -> Result<Self> {
        let plugin = folder.join("a64count.so");
        let built = Command::new("gcc")
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"])
            .arg(&plugin)
            .arg(root().join("benches/plugin/a64count.c"))
            .status()
            .context("gcc")?;
        if !built.success() {
            bail!("the plugin could not be built");
        }
        let (runner, lines) = (folder.join("runner"), folder.join("images.json"));
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={0}/usr/lib/x86_64-linux-gnu exec {0}/usr/bin/qemu-aarch64 \
             -U LD_LIBRARY_PATH -plugin {1},out={2}{options} \"$@\"\n",
            qemu.display(),
            plugin.display(),
            lines.display(),
        );
        fs::write(&runner, script)?;
        fs::set_permissions(&runner, fs::Permissions::from_mode(0o755))?;
        Ok(Self { runner, lines })
    }

    /// The command that runs an arm64 program counted.
    pub fn runner(&self) -> &Path {
        &self.runner
    }

    /// Runs a program and adds up all processes of its tree.
    pub fn run(&self, home: &Path, launch: &Launch) -> Result<Measured> {
        let _ = fs::remove_file(&self.lines);
        let mut command = Command::new(&self.runner);
        if let Some(root) = &launch.root {
            command.arg("-L").arg(root);
        }
        command.arg(&launch.program).args(&launch.arguments);
        let (printed, seconds) = finish(&mut command, home, launch)?;
        let text = fs::read_to_string(&self.lines).context("nothing was counted")?;
        let images = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let sum = |name: &str| images.iter().map(|image| image[name].as_u64()).sum::<Option<u64>>();
        let instructions = sum("instructions");
        let outside = instructions.zip(sum("jit")).map(|(all, translated)| all - translated);
        Ok(Measured { instructions, outside, cost: sum("cost"), seconds, printed, images })
    }
}
