//! The initial file system of a kernel: busybox, the modules to load, and the scripts of `guest/`.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Workshop, cache::Key, kernel::Unpacked, recipe::Recipe};
use crate::apt::output;

/// What runs first, on the initial file system.
const INIT: &str = include_str!("guest/init");

/// What goes on into the machine's root, to /vm.
const GUEST: [(&str, &str); 3] = [
    ("inittab", include_str!("guest/inittab")),
    ("setup", include_str!("guest/setup")),
    ("agent", include_str!("guest/agent")),
];

const LIMIT: Duration = Duration::from_secs(60);

/// Builds the initial file system of a kernel.
pub fn build(
    workshop: &Workshop,
    recipe: &Recipe,
    name: &str,
    kernel: &Unpacked,
) -> Result<PathBuf> {
    let mut key = Key::of(include_str!("initrd.rs")).and(INIT);
    key = key.and(kernel.root.to_string_lossy().as_bytes());
    for text in recipe.modules().map(String::as_str).chain(GUEST.map(|(_, text)| text)) {
        key = key.and(text);
    }
    let entry = workshop.cache.entry(&format!("initrd-{name}"), key, |folder| {
        let root = folder.join("root");
        lay_out(&root, recipe, kernel)?;
        let mut archive = Command::new("sh");
        archive.current_dir(&root);
        archive.args(["-euc", "find . | cpio --create --format newc --quiet > ../initrd"]);
        workshop.steps.run(&format!("initial file system for {name}"), LIMIT, &mut archive)?;
        Ok(fs::remove_dir_all(&root)?)
    })?;
    Ok(entry.join("initrd"))
}

/// Lays out the files.
fn lay_out(root: &Path, recipe: &Recipe, kernel: &Unpacked) -> Result<()> {
    for folder in ["bin", "dev", "proc", "sys", "root", "modules", "vm"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(kernel.root.join("usr/bin/busybox"), root.join("bin/busybox")).context("busybox")?;
    script(&root.join("init"), INIT)?;
    for (name, text) in GUEST {
        script(&root.join("vm").join(name), text)?;
    }
    let mut order = Vec::new();
    for module in recipe.modules() {
        for file in with_dependencies(kernel, module)? {
            let name = name_of(&file)?;
            if !order.contains(&name) {
                decompress(&file, &root.join("modules").join(&name))?;
                order.push(name);
            }
        }
    }
    Ok(fs::write(root.join("modules/order"), order.join("\n") + "\n")?)
}

fn script(place: &Path, text: &str) -> Result<()> {
    fs::write(place, text)?;
    Ok(fs::set_permissions(place, fs::Permissions::from_mode(0o755))?)
}

/// The files of a module and of what must be loaded before it; none when the kernel has it built in.
fn with_dependencies(kernel: &Unpacked, module: &str) -> Result<Vec<PathBuf>> {
    let mut modprobe = Command::new("modprobe");
    modprobe.arg("--dirname").arg(&kernel.root).arg("--set-version").arg(kernel.version()?);
    let shown = output(modprobe.args(["--show-depends", module]))
        .with_context(|| format!("the kernel has no module {module}"))?;
    let files = shown.lines().filter_map(|line| line.strip_prefix("insmod "));
    Ok(files.map(|file| file.trim().into()).collect())
}

/// `ext4.ko` of `…/ext4.ko.xz`.
fn name_of(file: &Path) -> Result<String> {
    let name = file.file_name().context("a module")?.to_string_lossy();
    let end = name.find(".ko").context("a module ends in .ko")? + ".ko".len();
    Ok(name[..end].into())
}

fn decompress(file: &Path, place: &Path) -> Result<()> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(fs::copy(file, place).map(drop)?),
    };
    let plain = Command::new(program).args(["--decompress", "--stdout"]).arg(file).output();
    let plain = plain.with_context(|| program.to_owned())?;
    if !plain.status.success() {
        bail!("{}: {program} failed", file.display());
    }
    Ok(File::create(place)?.write_all(&plain.stdout)?)
}
