//! The freshly built translator in a machine.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use rustix::fs::{FlockOperation, flock};

use super::{machine::Machine, request};

const LIMIT: Duration = Duration::from_secs(60);

/// Puts the translator into the machine's own root and registers it with the kernel, unless it is there already.
pub fn install(machine: &Machine, demotic: &Path) -> Result<()> {
    // One at a time.
    let lock = File::create(machine.file("install.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let (there, fresh) = (machine.share().join("demotic"), fs::read(demotic)?);
    let installed = machine.file("installed");
    if installed.exists() && fs::read(&there).is_ok_and(|there| there == fresh) {
        return Ok(());
    }
    let new = machine.share().join("demotic.new");
    fs::copy(demotic, &new)?;
    fs::rename(&new, &there)?;
    request::output(machine, include_bytes!("guest/install"), LIMIT)?;
    Ok(fs::write(installed, "")?)
}
