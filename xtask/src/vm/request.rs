//! Commands run in a machine: standard output, standard error and exit status come back as they are.
//!
//! A request is a folder of the share with a script in it. The machine's agent runs the script with its output
//! beside it; here the files are followed as they grow.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::machine::Machine;

/// How long the machine has for ending a command.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Which root a command runs in.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    /// The machine's own, arm64.
    Own,
    /// The x86_64 root, by chroot(2): there is no arm64 file but /host.
    X86_64,
}

/// A shell script that becomes the command.
pub fn script(place: Place, command: &[OsString]) -> Vec<u8> {
    let mut script = b"#!/bin/sh\nexec".to_vec();
    if place == Place::X86_64 {
        script.extend(b" chroot /x86");
    }
    for word in command {
        script.push(b' ');
        script.extend(quoted(word));
    }
    script.push(b'\n');
    script
}

/// A word that the shell takes as it is.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = b"'".to_vec();
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Runs a script; what it prints goes to `stdout` and `stderr`. Gives its exit status; none when it was ended at
/// the time limit.
pub fn run<'a>(
    machine: &Machine,
    script: &[u8],
    limit: Duration,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
) -> Result<Option<i32>> {
    let request = Request::send(machine, script)?;
    let mut outputs = [
        (File::open(request.folder.path().join("stdout"))?, stdout),
        (File::open(request.folder.path().join("stderr"))?, stderr),
    ];
    let start = Instant::now();
    let mut killed = false;
    loop {
        // What was printed before the status was written is complete.
        let status = request.status()?;
        for (from, to) in &mut outputs {
            copy(from, *to)?;
        }
        match status {
            Some(_) if killed => return Ok(None),
            Some(status) => return Ok(Some(status)),
            None if !machine.running()? => bail!("the machine is gone"),
            None if start.elapsed() > limit + KILL_LIMIT => {
                bail!("the machine does not end the command")
            }
            None if start.elapsed() > limit && !killed => {
                request.kill()?;
                killed = true;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Runs a script and gives what it printed; one that fails is an error.
pub fn output(machine: &Machine, script: &[u8], limit: Duration) -> Result<String> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = run(machine, script, limit, &mut stdout, &mut stderr)?;
    let stdout = String::from_utf8_lossy(&stdout);
    if status == Some(0) {
        return Ok(stdout.into());
    }
    let end = status.map_or("the time limit".into(), |status| format!("exit status {status}"));
    bail!("in the machine: {end}\n{stdout}{}", String::from_utf8_lossy(&stderr))
}

/// A request under way. Its folder goes when it is done with.
pub struct Request<'a> {
    machine: &'a Machine,
    folder: tempfile::TempDir,
}

impl<'a> Request<'a> {
    /// Asks the machine to run a script.
    pub fn send(machine: &'a Machine, script: &[u8]) -> Result<Self> {
        let requests = machine.share().join("requests");
        let folder = tempfile::Builder::new().prefix("request-").tempdir_in(&requests)?;
        for name in ["stdout", "stderr"] {
            File::create(folder.path().join(name))?;
        }
        let place = folder.path().join("script");
        fs::write(&place, script)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        let request = Self { machine, folder };
        machine.tell(&format!("run {}", request.name()?))?;
        Ok(request)
    }

    fn name(&self) -> Result<&str> {
        self.folder.path().file_name().and_then(OsStr::to_str).context("a name")
    }

    /// The exit status, when it has ended; 128 and the signal's number when a signal ended it.
    pub fn status(&self) -> Result<Option<i32>> {
        match read(&self.folder.path().join("status"))? {
            None => Ok(None),
            Some(text) => Ok(Some(text.trim().parse().context("an exit status")?)),
        }
    }

    /// Ends it, with all that it started.
    fn kill(&self) -> Result<()> {
        self.machine.tell(&format!("kill {}", self.name()?))
    }
}

/// What a file holds, if it is there.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Copies what has been added to a file.
fn copy(from: &mut File, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = [0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.flush(),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn words_arrive_as_they_are() {
        let words = ["printf", "%s|", "a b", "", "it's", "$HOME", "*", "\\n\n", "\u{e4}"];
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("script");
        fs::write(&place, script(Place::Own, &words.map(OsString::from))).unwrap();
        let printed = Command::new("sh").arg(&place).output().unwrap().stdout;
        assert_eq!(String::from_utf8(printed).unwrap(), words[2..].join("|") + "|");
    }
}
