//! Types of system call arguments: how wide they are, which are paths, what they point to.

/// Names of an argument's values and flags, for `--strace`.
#[derive(Debug)]
pub struct Names {
    /// The bits that hold one of `values`; the others are flags. If there are none, `values`
    /// may still name zero.
    pub mask: u64,
    /// Values below `mask`.
    pub values: &'static [(u64, &'static str)],
    /// Flags; one that holds another's bits comes first.
    pub flags: &'static [(u64, &'static str)],
    /// The bits that hold a mode of file permissions.
    pub mode: u64,
}

/// A structure, for `--strace`.
#[derive(Debug)]
pub struct Struct {
    /// Bytes from one to the next in an array.
    pub size: u16,
    /// Members, in the order they are shown.
    pub members: &'static [Member],
    /// Whether there are more that are not shown.
    pub more: bool,
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Name; empty for the only member of a structure that is shown as it.
    pub name: &'static str,
    /// Place in the structure.
    pub offset: u16,
    /// What is there.
    pub kind: Kind,
}

/// What a member is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// As wide as the type says.
    Value(Type),
    /// One byte.
    Byte(Type),
    /// Two bytes.
    Half(Type),
    /// A signed `short`.
    Short,
    /// `struct timespec`.
    Time,
    /// `struct timeval`.
    MicroTime,
    /// A string of at most so many bytes.
    Text(u16),
    /// So many values of 64 bits.
    Values(u16),
    /// A structure within.
    Within(&'static Struct),
    /// A signal set.
    Signals,
}

/// How much of an argument register the kernel looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// The low 32 bits, signed.
    I32,
    /// The low 32 bits, unsigned.
    U32,
    /// All of it.
    U64,
}

/// Type of an argument or a result.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `int`.
    Int,
    /// `unsigned int`.
    Uint,
    /// `int` or `unsigned int` holding flags without names here.
    Hex32,
    /// `long`, `off_t`.
    Long,
    /// `unsigned long`, `size_t`.
    Ulong,
    /// `unsigned long` that is best read in hexadecimal.
    Hex,
    /// A pointer that is not followed.
    Ptr,
    /// A number or a pointer, as another argument says.
    Word,
    /// File descriptor.
    Fd,
    /// File descriptor that the path in the next argument starts from, or AT_FDCWD.
    DirFd,
    /// Process, process group or thread.
    Pid,
    /// User or group.
    Uid,
    /// `mode_t`.
    Mode,
    /// `dev_t` in the system call's 32-bit form.
    Dev,
    /// Signal number.
    Signal,
    /// File name; a symbolic link at its end is followed unless AT_SYMLINK_NOFOLLOW is given.
    Path,
    /// File name; a symbolic link at its end is not followed unless AT_SYMLINK_FOLLOW is given.
    LinkPath,
    /// AT_* flags.
    AtFlags,
    /// A string that is not a file name.
    Str,
    /// Argument of fcntl(2), by its command.
    FcntlArg,
    /// Second argument of prctl(2), by its option.
    PrctlArg,
    /// Fourth argument of futex(2), by its operation.
    FutexArg,
    /// Option of a socket, by the level before it.
    SocketOption,
    /// Buffer of shmctl(2) or msgctl(2), which the command before it may fill.
    IpcArg(&'static Struct),
    /// Argument of ioctl(2), by its request.
    IoctlArg,
    /// A value, flags, or both, with names.
    Named(Width, &'static Names),
    /// Pointer to what the kernel reads.
    In(Shape),
    /// Pointer to what the kernel writes.
    Out(Shape),
}

impl Type {
    /// What kind of argument it is, in a word.
    pub const fn word(self) -> &'static str {
        match self {
            Type::Int => "int",
            Type::Uint => "unsigned int",
            Type::Long => "long",
            Type::Ulong | Type::Hex => "unsigned long",
            Type::Hex32 | Type::AtFlags | Type::Named(Width::I32 | Width::U32, _) => "flags",
            Type::SocketOption => "flags",
            Type::Named(Width::U64, _) => "long flags",
            Type::Ptr => "pointer",
            Type::Word => "by command",
            Type::Fd => "descriptor",
            Type::DirFd => "folder",
            Type::Pid => "process",
            Type::Uid => "user",
            Type::Mode => "mode",
            Type::Dev => "device",
            Type::Signal => "signal",
            Type::Path | Type::LinkPath => "path",
            Type::Str => "string",
            Type::FcntlArg | Type::PrctlArg | Type::FutexArg | Type::IoctlArg => "by command",
            Type::IpcArg(_) => "pointer",
            Type::In(_) => "pointer to read",
            Type::Out(_) => "pointer to write",
        }
    }

    /// Whether it is, or may be, an address.
    pub const fn is_address(self) -> bool {
        matches!(
            self,
            Type::Ptr
                | Type::Word
                | Type::Path
                | Type::LinkPath
                | Type::Str
                | Type::FcntlArg
                | Type::PrctlArg
                | Type::FutexArg
                | Type::IpcArg(_)
                | Type::IoctlArg
                | Type::In(_)
                | Type::Out(_)
        )
    }

    /// Whether it is a descriptor.
    pub const fn is_descriptor(self) -> bool {
        matches!(self, Type::Fd | Type::DirFd)
    }

    /// How much of the register counts.
    pub const fn width(self) -> Width {
        match self {
            Type::Int
            | Type::Fd
            | Type::DirFd
            | Type::Pid
            | Type::Signal
            | Type::AtFlags
            | Type::SocketOption => Width::I32,
            Type::Uint | Type::Hex32 | Type::Uid | Type::Mode | Type::Dev => Width::U32,
            Type::Named(width, _) => width,
            _ => Width::U64,
        }
    }
}

/// What a pointer argument points to, as far as `--strace` shows it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // names are those of the C types, or explained
pub enum Shape {
    /// A structure.
    One(&'static Struct),
    /// An array of structures.
    Many(&'static Struct, Count),
    /// An array of pointers to structures.
    Pointers(&'static Struct, Count),
    /// The value of a socket's option.
    OptionValue,
    /// `siginfo_t`.
    Siginfo,
    /// Bit map of processors or memory nodes, as long as the argument before says in bytes (in) or the call
    /// returned (out).
    BitMap,
    /// `struct linux_dirent` or `linux_dirent64`, counted.
    Directory,
    /// Random bytes: in hexadecimal.
    Random,
    /// Bytes: as many as the next argument says (in) or the call returned (out).
    Buffer,
    /// A string the kernel writes.
    Text,
    /// `struct iovec`, as many as the next argument says.
    Iovec,
    /// `struct pollfd`, as many as the next argument says.
    Pollfds,
    /// Bit map of descriptors below the first argument.
    FdSet,
    /// Two descriptors.
    FdPair,
    /// An `int`.
    Number32,
    /// A `long`.
    Number64,
    /// Strings behind a null-terminated array of pointers.
    Argv,
    /// The same, only counted.
    Envp,
    Stat,
    Statx,
    Timespec,
    /// Access and modification time.
    TimespecPair,
    Timeval,
    Utimbuf,
    /// Access and modification time.
    TimevalPair,
    Itimerval,
    Itimerspec,
    Rlimit,
    Sigset,
    Sigaction,
    /// `stack_t`.
    Stack,
    /// Address whose length is in the next argument (in) or behind it (out).
    Sockaddr,
    Msghdr,
    EpollEvent,
    /// `struct epoll_event`, as many as the call returned.
    EpollEvents,
    OpenHow,
    CloneArgs,
    Utsname,
    /// wait status.
    Wstatus,
}

/// Where the number of an array's elements stands.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// In the argument behind the pointer.
    Next,
    /// In the argument before it.
    Previous,
    /// In the result.
    Result,
}
