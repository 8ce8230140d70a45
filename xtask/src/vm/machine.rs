//! A machine: booted, found again, and stopped. Its folder holds its share, its console's output and its channels.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
};

use super::step::{Progress, tail};
use crate::say;

/// The emulator of the machine.
const QEMU: &str = "qemu-system-aarch64";

/// The processor: all that QEMU has but what is slow to emulate and of no use here.
const PROCESSOR: &str = "max,pauth=off,sve=off,sme=off";

const MEMORY_MIB: u32 = 3072;

/// A boot takes 6 to 8 s on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What the kernel is told: to be quiet, and to leave out what protects a machine with enemies.
const KERNEL_ARGUMENTS: &str = "console=ttyAMA0 quiet loglevel=4 panic=-1 nokaslr mitigations=off apparmor=0 \
                                selinux=0 random.trust_bootloader=1 rcupdate.rcu_expedited=1";

/// What a machine is booted from.
pub struct Parts {
    /// The kernel's image.
    pub image: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The disks, by the names the initial file system knows them by.
    pub disks: [(&'static str, PathBuf); 2],
}

/// A machine, running or not.
pub struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// The machine whose folder is `folder`.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder: folder.canonicalize()? })
    }

    /// The folder that is /host in the machine.
    pub fn share(&self) -> PathBuf {
        self.folder.join("share")
    }

    /// A file beside the share, which the machine does not see.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the machine said when it was up.
    pub fn description(&self) -> String {
        fs::read_to_string(self.share().join("up")).unwrap_or_default().trim().into()
    }

    /// Is it running? QEMU inherits a locked file, so that no process number has to be trusted.
    pub fn running(&self) -> Result<bool> {
        Ok(self.lock(FlockOperation::NonBlockingLockShared)?.is_none())
    }

    /// The lock that a running machine holds for itself alone; `None` when one does.
    fn lock(&self, how: FlockOperation) -> Result<Option<File>> {
        let file = File::create(self.file("machine.lock"))?;
        match flock(&file, how) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Boots the machine from `parts` and waits until it takes requests; only waits if it is running. One that does
    /// not come up is booted once more.
    pub fn boot(&self, parts: impl FnOnce() -> Result<Parts>) -> Result<()> {
        if !self.running()? {
            let parts = parts()?;
            self.begin(&parts)?;
            let Err(error) = self.wait() else { return Ok(()) };
            say(&format!("{error:#}\n── this machine is ended, and booted once more"));
            if self.running()? {
                self.stop()?;
            }
            self.begin(&parts)?;
        }
        self.wait()
    }

    /// Begins to boot, unless someone else is quicker.
    fn begin(&self, parts: &Parts) -> Result<()> {
        // Someone may hold the lock for a moment who is only looking.
        while !self.running()? {
            if let Some(lock) = self.lock(FlockOperation::NonBlockingLockExclusive)? {
                self.prepare()?;
                return self.start(parts, &lock);
            }
        }
        Ok(())
    }

    /// Waits until the machine is up; one that is not shows the end of its console's output.
    fn wait(&self) -> Result<()> {
        if !self.description().is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let progress = Progress::new("booting");
        while self.description().is_empty() {
            if !self.running()? {
                let logs = [self.tail("qemu.log"), self.tail("console.log")].join("\n");
                bail!("the machine ended before it was up\n{logs}");
            }
            if start.elapsed() > BOOT_LIMIT {
                bail!(
                    "the machine is not up after {} s\n{}",
                    BOOT_LIMIT.as_secs(),
                    self.tail("console.log")
                );
            }
            progress.tick();
            thread::sleep(Duration::from_millis(50));
        }
        progress.done();
        Ok(())
    }

    /// The end of one of its logs.
    pub fn tail(&self, log: &str) -> String {
        tail(&self.file(log))
    }

    /// Empties the folder, and makes the channels.
    fn prepare(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if path.extension() != Some(OsStr::new("lock")) {
                fs::remove_file(path)?;
            }
        }
        fs::create_dir_all(self.share().join("requests"))?;
        for end in ["requests.in", "requests.out"] {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(
                rustix::fs::CWD,
                self.file(end),
                rustix::fs::FileType::Fifo,
                mode,
                0,
            )?;
        }
        Ok(())
    }

    /// Starts QEMU, which goes on when this program ends.
    fn start(&self, parts: &Parts, lock: &File) -> Result<()> {
        let log = File::create(self.file("qemu.log"))?;
        let mut qemu = Command::new(QEMU);
        // Names of channels are relative to the folder: those of sockets must be short.
        qemu.current_dir(&self.folder);
        qemu.args(["-machine", "virt,gic-version=3", "-cpu", PROCESSOR]);
        qemu.args(["-accel", "tcg,thread=multi,tb-size=512"]);
        let processors = thread::available_parallelism().map_or(2, |n| n.get().min(4));
        qemu.arg("-smp").arg(processors.to_string()).arg("-m").arg(MEMORY_MIB.to_string());
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.args(["-pidfile", "pid"]);
        qemu.arg("-kernel").arg(&parts.image).arg("-initrd").arg(&parts.initrd);
        qemu.args(["-append", KERNEL_ARGUMENTS]);
        for (name, disk) in &parts.disks {
            let file = disk.display();
            // What is written goes to a file without a name and is forgotten.
            qemu.arg("-drive").arg(format!(
                "file={file},format=raw,if=none,id={name},snapshot=on,cache=unsafe,aio=threads"
            ));
            qemu.arg("-device").arg(format!("virtio-blk-pci,drive={name},serial={name}"));
        }
        qemu.args(["-device", "virtio-serial-pci"]);
        qemu.args(["-chardev", "pipe,id=requests,path=requests"]);
        qemu.args(["-device", "virtserialport,chardev=requests,name=requests"]);
        qemu.args(["-chardev", "socket,id=terminal,path=terminal,server=on,wait=off"]);
        qemu.args(["-device", "virtconsole,chardev=terminal"]);
        qemu.args(["-fsdev", "local,id=share,path=share,security_model=none,multidevs=remap"]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
        qemu.args(["-object", "rng-random,id=random,filename=/dev/urandom"]);
        qemu.args(["-device", "virtio-rng-pci,rng=random", "-serial", "file:console.log"]);
        qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        fcntl_setfd(lock, FdFlags::empty())?;
        let child = qemu.spawn().with_context(|| format!("{QEMU} could not be started"));
        fcntl_setfd(lock, FdFlags::CLOEXEC)?;
        // Waited for, should it end before this program does, so that no dead process is left.
        let mut child = child?;
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// Gives the machine's agent a line.
    pub fn tell(&self, line: &str) -> Result<()> {
        let path = self.file("requests.in");
        let open =
            OpenOptions::new().write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path);
        let mut pipe = open.context("the machine takes no requests")?;
        // One write of less than PIPE_BUF bytes is not mixed with those of others.
        Ok(pipe.write_all(format!("{line}\n").as_bytes())?)
    }

    /// The machine's terminal.
    pub fn terminal(&self) -> Result<UnixStream> {
        let folder = File::open(&self.folder)?;
        let path = format!("/proc/self/fd/{}/terminal", folder.as_raw_fd());
        UnixStream::connect(path).context("the machine's terminal")
    }

    /// Switches the machine off.
    pub fn stop(&self) -> Result<()> {
        let start = Instant::now();
        let told = self.tell("off");
        while self.running()? {
            if told.is_err() || start.elapsed() > STOP_LIMIT {
                say("the machine does not switch itself off: ending it");
                return self.kill();
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn kill(&self) -> Result<()> {
        let number = fs::read_to_string(self.file("pid")).context("its process number")?;
        let process = number.trim().parse().ok().and_then(Pid::from_raw).context("a process")?;
        kill_process(process, Signal::KILL)?;
        let start = Instant::now();
        while self.running()? {
            if start.elapsed() > STOP_LIMIT {
                bail!("process {number} does not end");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// The machines that have a folder in `folder`, with their names.
pub fn all(folder: &Path) -> Result<Vec<(String, Machine)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut machines = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            machines.push((name, Machine::new(entry.path())?));
        }
    }
    machines.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(machines)
}
