//! The instrument: a qemu-aarch64 that takes plugins, and the project's plugin, `benches/plugin/a64count.c`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::root;

/// Counts the arm64 instructions that programs execute.
pub struct Counter {
    folder: PathBuf,
    qemu: PathBuf,
    plugin: PathBuf,
    /// More options for the plugin.
    pub options: String,
}

/// What every run finds in its environment; Python's hashes are not to differ from run to run.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("PYTHONHASHSEED", "0")];

/// A counted run.
pub struct Counted {
    /// The executed arm64 instructions of all processes.
    pub instructions: u64,
    /// What the program printed.
    pub printed: Vec<u8>,
    /// The plugin's line for each process image.
    pub images: Vec<Value>,
}

impl Counter {
    /// Builds the plugin for the qemu unpacked in `qemu`, and works in `folder`.
    pub fn new(folder: PathBuf, qemu: PathBuf) -> Result<Self> {
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
        Ok(Self { folder, qemu, plugin, options: String::new() })
    }

    /// Runs what `command` makes of the runner that counts, and adds up all processes run by it.
    /// The environment is the same for every run; `home` is where a cache may be kept.
    pub fn count(&self, home: &Path, command: impl FnOnce(&Path) -> Command) -> Result<Counted> {
        let lines = self.folder.join("images.json");
        let _ = fs::remove_file(&lines);
        let runner = self.runner(&lines)?;
        let mut command = command(&runner);
        command.env_clear().envs(ENVIRONMENT).env("HOME", home);
        let prefix = self.folder.join("native");
        if command.get_args().next().is_some_and(|program| Path::new(program).starts_with(&prefix))
        {
            command.env("QEMU_LD_PREFIX", prefix);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("ended with {}", output.status);
        }
        let text = fs::read_to_string(&lines).context("nothing was counted")?;
        let images = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let instructions = images.iter().filter_map(|image| image["instructions"].as_u64()).sum();
        Ok(Counted { instructions, printed: output.stdout, images })
    }

    /// Writes the command that runs an arm64 program counted; children are run by it too.
    fn runner(&self, lines: &Path) -> Result<PathBuf> {
        let runner = self.folder.join("runner");
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={0}/usr/lib/x86_64-linux-gnu exec {0}/usr/bin/qemu-aarch64 \
             -plugin {1},out={2}{3} \"$@\"\n",
            self.qemu.display(),
            self.plugin.display(),
            lines.display(),
            self.options
        );
        fs::write(&runner, script)?;
        fs::set_permissions(&runner, fs::Permissions::from_mode(0o755))?;
        Ok(runner)
    }
}
