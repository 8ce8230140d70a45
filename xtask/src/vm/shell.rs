//! The interactive shell: this terminal joined to the machine's.

use std::{
    io::{self, IsTerminal, Read, Write},
    net::Shutdown,
    os::fd::AsFd,
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::{machine::Machine, request::Request};

/// Ctrl-], which leaves the shell as it is.
const LEAVE: u8 = 0x1d;

/// A terminal without line editing and signals; as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}

/// Gives the person at the terminal a shell in the machine; gives its exit status, or none when it was left.
pub fn interact(machine: &Machine) -> Result<Option<i32>> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("there is no terminal here: use `cargo xtask vm run -- COMMAND`");
    }
    let size = tcgetwinsize(io::stdin())?;
    let name = std::env::var("TERM").unwrap_or("dumb".into());
    let script = format!(
        "#!/bin/sh\nexport TERM='{}'\nstty -F /dev/hvc0 sane rows {} cols {}\nclear >/dev/hvc0 2>&1\n\
         exec setsid --ctty --wait bash -i </dev/hvc0 >/dev/hvc0 2>&1\n",
        name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', ""),
        size.ws_row,
        size.ws_col
    );
    let mut from = machine.terminal()?;
    let mut to = from.try_clone()?;
    let request = Request::send(machine, script.as_bytes())?;
    let _raw = Raw::enter()?;
    // The thread ends with this program: nothing can wake it from reading the terminal.
    let input = thread::spawn(move || -> io::Result<()> {
        let mut keys = [0; 1024];
        loop {
            let length = io::stdin().read(&mut keys)?;
            if length == 0 || keys[..length].contains(&LEAVE) {
                return to.shutdown(Shutdown::Both);
            }
            to.write_all(&keys[..length])?;
        }
    });
    from.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut buffer = [0; 1 << 14];
    loop {
        // The status is asked for first: what the shell printed last is then shown before leaving.
        let status = request.status()?;
        match from.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                io::stdout().write_all(&buffer[..length])?;
                io::stdout().flush()?;
                continue;
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        if status.is_some() || input.is_finished() {
            return Ok(status);
        }
    }
}
