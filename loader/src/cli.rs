//! The command line.

use crate::host_features;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use translator::engine::INTERPRET;

/// Options before those of the command line, for programs that binfmt_misc starts.
pub const OPTIONS_VARIABLE: &str = "DEMOTIC_OPTIONS";

const ABOUT: &str = "Runs x86_64 Linux programs on arm64 Linux";

const USAGE: &str = "demotic [OPTIONS] PROGRAM [ARGS]...
       demotic COMMAND";

const AFTER_HELP: &str = "\
Examples:
  demotic ./hello                               run a program
  demotic ./register                            run a program that is called like a command
  sudo demotic register                         have the kernel run all x86_64 programs with demotic
  demotic --sysroot /srv/amd64 /srv/amd64/bin/ls -l
                                                find its shared libraries under /srv/amd64
  demotic --strace=/tmp/calls ./server --port 80
                                                write its system calls to a file
  DEMOTIC_OPTIONS='--log off' ./hello           the same options when binfmt_misc runs demotic

Options end at PROGRAM; what follows is the program's. Children get the same options.
PROGRAM is a path. A COMMAND is one only as the first word: behind an option or -- it is a PROGRAM.
DEMOTIC_OPTIONS holds options, separated by blanks, that come before those of the command line;
it is ignored for setuid and setgid programs.

Exit status:
  The program's own; if a signal ends the program, the same signal ends demotic.
  2    the command line is wrong
  126  the program cannot be executed
  127  the program or its interpreter was not found";

/// The command line, parsed.
#[derive(Parser, Debug)]
#[command(
    name = "demotic",
    version,
    about = ABOUT,
    after_help = AFTER_HELP,
    override_usage = USAGE,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub program: ProgramOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub shared: SharedOptions,
    /// The x86_64 program, as a path, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_names = ["PROGRAM", "ARGS"],
        hide = true
    )]
    pub command: Vec<OsString>,
    /// What to do instead of running a program
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What `demotic` does besides running a program.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have the kernel run x86_64 programs with Demotic
    #[command(after_help = REGISTER_HELP)]
    Register(RegisterOptions),
    /// Undo what register did
    Unregister,
    /// Say what the kernel runs x86_64 programs with, and prove it by running one
    #[command(after_help = STATUS_HELP)]
    Status(ReportOptions),
    /// Check this machine for what Demotic needs and uses
    #[command(after_help = DOCTOR_HELP)]
    Doctor(ReportOptions),
    /// Print the table of system calls, and how each is answered
    Syscalls(ReportOptions),
}

const REGISTER_HELP: &str = "\
Adds an entry to the kernel's table of program formats (binfmt_misc), and writes a file of
binfmt.d(5), from which systemd-binfmt registers it again at boot. What is registered already is
left as it is. The kernel opens this very file now (flag F): after an update, register again.

Exit status: 0 when the kernel gives x86_64 programs to Demotic, else 1.";

const STATUS_HELP: &str =
    "Exit status: 0 when the kernel ran an x86_64 test program with this demotic, else 1.";

const DOCTOR_HELP: &str = "Exit status: 0 when x86_64 programs would run, else 1.";

/// Options of `demotic register`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterOptions {
    /// Turn other handlers of x86_64 programs off (Rosetta, qemu, box64), also at boot
    #[arg(long)]
    pub replace: bool,
    /// Do not come back after a reboot: write the file to /run/binfmt.d
    #[arg(long, overrides_with = "persist")]
    pub until_reboot: bool,
    /// Come back after a reboot (as is the rule): write it to /usr/lib/binfmt.d, or /etc/binfmt.d
    #[arg(long, overrides_with = "until_reboot")]
    pub persist: bool,
    /// Change nothing; print what systemd-binfmt and binfmt-support want to be told
    #[arg(long, conflicts_with = "replace")]
    pub print: bool,
}

/// Options of `demotic status`, `doctor` and `syscalls`.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportOptions {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Options for this program alone.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "The program")]
pub struct ProgramOptions {
    /// Give the program NAME as its argv[0] instead of PROGRAM
    #[arg(short = '0', long, value_name = "NAME", allow_hyphen_values = true)]
    pub argv0: Option<OsString>,
    /// Set a variable in the program's environment
    #[arg(short = 'E', long = "env", value_name = "VAR=VALUE")]
    pub set_env: Vec<OsString>,
    /// Remove a variable from the program's environment
    #[arg(short = 'U', long = "unset-env", value_name = "VAR")]
    pub unset_env: Vec<OsString>,
    /// The program is open as file descriptor N; PROGRAM is only its name
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub exec_fd: Option<i32>,
    /// Descriptors from the translator that starts this one
    #[arg(long, value_name = "NAME=N,...", hide = true)]
    pub inherit: Option<String>,
}

/// Options for this program and all that it starts.
#[derive(Args, Debug, Default)]
pub struct SharedOptions {
    /// Look for absolute paths of x86_64 files in DIR first, as for shared libraries
    #[arg(short = 'L', long, value_name = "DIR", help_heading = "Running")]
    pub sysroot: Option<PathBuf>,
    /// How the program's loads and stores are ordered
    #[arg(long, value_name = "MODEL", value_enum, default_value_t, help_heading = "Running")]
    pub memory_model: MemoryModel,
    /// Do without instruction sets of the host, for tests: `flagm=off,afp=off`
    #[arg(long, value_name = "NAME=off,...", value_delimiter = ',', hide = true, help_heading = "Running",
          value_parser = host_features::switched_off)]
    pub host_features: Vec<&'static str>,
    /// Start arm64 programs here by CMD (words separated by blanks): children are run through it
    #[arg(long, value_name = "CMD", hide_short_help = true, help_heading = "Running")]
    pub runner: Option<String>,
    /// Print system calls like strace(1), to standard error or to FILE
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        help_heading = "Diagnosis"
    )]
    pub strace: Option<Option<PathBuf>>,
    /// Say on standard error what the program asked for and Demotic does not have
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t, help_heading = "Diagnosis")]
    pub log: LogLevel,
    /// Append a line to FILE for each program started, and how
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Diagnosis")]
    pub trace_exec: Option<PathBuf>,
    /// Room for translations in bytes; when it is full they are all thrown away
    #[arg(long, value_name = "BYTES", hide = true)]
    pub cache_size: Option<usize>,
    /// How often code is interpreted before it is translated; 255 is always.
    #[arg(long, value_name = "TIMES", hide = true, default_value_t = INTERPRET)]
    pub interpret: u8,
    /// Print each piece of code and its translation to standard error
    #[arg(long, help_heading = "Diagnosis")]
    pub dump_asm: bool,
    /// Print the translator's counters to standard error at exit
    #[arg(long, help_heading = "Diagnosis")]
    pub stats: bool,
    /// Count what is executed; print the hottest regions, and what their code is spent on, at exit
    #[arg(long, help_heading = "Diagnosis")]
    pub profile: bool,
    /// Write /tmp/perf-PID.map, so that perf(1) names translated code after the program's functions
    #[arg(long, help_heading = "Diagnosis")]
    pub perf_map: bool,
    /// Write /tmp/jit-PID.dump, from which `perf inject --jit` takes translated code, to annotate it
    #[arg(long, help_heading = "Diagnosis")]
    pub jit_dump: bool,
}

/// `--memory-model`.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryModel {
    /// Plain until the program shares memory, then ordered or the processor's own x86 mode
    #[default]
    Auto,
    /// Never ordered: fast, and wrong for programs with threads
    Plain,
    /// Always ordered, by instructions
    Ordered,
    /// The processor's own x86 mode, or an error if the kernel does not offer it
    Tso,
}

/// `--log`.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing
    Off,
    /// One line for each thing that is missing
    #[default]
    Warn,
}

impl Cli {
    /// Parses arguments, argv\[0\] included, after the options of `variable`. Like
    /// [`Parser::parse`], ends the process for `--help`, `--version` and errors.
    pub fn from_arguments(arguments: Vec<OsString>, variable: Option<OsString>) -> Self {
        match Self::try_from_arguments(arguments, variable) {
            Ok(cli) => cli,
            Err(error) => error.exit(),
        }
    }

    fn try_from_arguments(
        mut arguments: Vec<OsString>,
        variable: Option<OsString>,
    ) -> Result<Self, clap::Error> {
        // The variable is for programs, also for those that are started by binfmt_misc.
        let is_action = |word: &OsString| Self::command().find_subcommand(word).is_some();
        if let Some(variable) = variable
            && !arguments.get(1).is_some_and(is_action)
        {
            let words = words(&variable.to_string_lossy());
            let at = arguments.len().min(1);
            arguments.splice(at..at, words);
        }
        Self::try_parse_from(arguments)
    }
}

/// Splits at blanks.
pub fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

impl SharedOptions {
    /// The options as arguments for a child, whose current directory may be another.
    pub fn to_arguments(&self, current_dir: &Path) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: OsString| {
            let mut argument = OsString::from(name);
            if !value.is_empty() {
                argument.push("=");
                argument.push(value);
            }
            arguments.push(argument);
        };
        let absolute = |path: &Path| current_dir.join(path).into_os_string();
        if let Some(directory) = &self.sysroot {
            option("--sysroot", absolute(directory));
        }
        if self.memory_model != MemoryModel::default() {
            option("--memory-model", value_name(self.memory_model));
        }
        if !self.host_features.is_empty() {
            let off: Vec<_> = self.host_features.iter().map(|name| format!("{name}=off")).collect();
            option("--host-features", off.join(",").into());
        }
        if let Some(command) = &self.runner {
            option("--runner", command.into());
        }
        if let Some(file) = &self.strace {
            option("--strace", file.as_deref().map_or_else(OsString::new, absolute));
        }
        if self.log != LogLevel::default() {
            option("--log", value_name(self.log));
        }
        if let Some(file) = &self.trace_exec {
            option("--trace-exec", absolute(file));
        }
        if self.interpret != INTERPRET {
            option("--interpret", self.interpret.to_string().into());
        }
        if let Some(size) = self.cache_size {
            option("--cache-size", size.to_string().into());
        }
        for (name, set) in [
            ("--dump-asm", self.dump_asm),
            ("--stats", self.stats),
            ("--profile", self.profile),
            ("--perf-map", self.perf_map),
            ("--jit-dump", self.jit_dump),
        ] {
            if set {
                option(name, OsString::new());
            }
        }
        arguments
    }
}

/// The name of a value on the command line.
fn value_name(value: impl ValueEnum) -> OsString {
    value.to_possible_value().map_or_else(OsString::new, |v| v.get_name().to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str, variable: Option<&str>) -> Result<Cli, clap::Error> {
        Cli::try_from_arguments(words(arguments), variable.map(OsString::from))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_at_the_program() {
        let cli = parse("demotic --stats ./a --strace -- --help", None).unwrap();
        assert_eq!(cli.command, words("./a --strace -- --help"));
        assert!(cli.shared.stats && cli.shared.strace.is_none());
    }

    #[test]
    fn two_dashes_end_the_options() {
        // As for a login shell.
        let cli = parse("demotic --exec-fd 5 --argv0 -bash -- -prog -a", None).unwrap();
        assert_eq!(cli.command, words("-prog -a"));
        assert_eq!(cli.program.argv0, Some("-bash".into()));
    }

    /// Only the first word can be a command; a program of that name is a path, or stands behind `--`.
    #[test]
    fn commands_and_programs_of_their_names() {
        let action = |arguments, variable| parse(arguments, variable).unwrap().action;
        let json = ReportOptions { json: true };
        assert_eq!(action("demotic status --json", None), Some(Action::Status(json)));
        assert_eq!(action("demotic doctor --json", Some("--stats")), Some(Action::Doctor(json)));
        assert_eq!(action("demotic syscalls --json", None), Some(Action::Syscalls(json)));
        assert_eq!(action("demotic unregister", Some("")), Some(Action::Unregister));
        assert!(parse("demotic unregister now", None).is_err());
        assert!(parse("demotic register --strace", None).is_err());
        for program in ["./register", "-- register", "--stats register", "-0 x status", "regist"] {
            let cli = parse(&format!("demotic {program} --json"), None).unwrap();
            assert_eq!(cli.action, None, "{program}");
            assert_eq!(cli.command.last(), Some(&"--json".into()), "{program}");
        }
        let help = parse("demotic help", None).unwrap();
        assert_eq!(help.command, words("help"));
    }

    #[test]
    fn the_last_word_on_lasting_counts() {
        let until_reboot = |arguments| match parse(arguments, None).unwrap().action {
            Some(Action::Register(options)) => options.until_reboot,
            other => panic!("{other:?}"),
        };
        assert!(!until_reboot("demotic register"));
        assert!(until_reboot("demotic register --persist --until-reboot"));
        assert!(!until_reboot("demotic register --until-reboot --persist"));
    }

    #[test]
    fn an_unknown_option_is_not_the_program() {
        assert!(parse("demotic --no-such-thing ./a", None).is_err());
        assert!(parse("demotic", None).is_err());
    }

    #[test]
    fn strace_takes_a_file_only_behind_an_equals_sign() {
        let file = |arguments| parse(arguments, None).unwrap().shared.strace;
        assert_eq!(file("demotic --strace ./a"), Some(None));
        assert_eq!(file("demotic --strace=f ./a"), Some(Some("f".into())));
    }

    #[test]
    fn the_command_line_overrides_the_variable() {
        let cli = parse("demotic --log off ./a", Some("--log warn  --stats")).unwrap();
        assert_eq!(cli.shared.log, LogLevel::Off);
        assert!(cli.shared.stats);
    }

    /// A child sees the same shared options, paths made absolute, and repeating changes nothing.
    #[test]
    fn children_get_the_shared_options() {
        let all = "--sysroot=root --memory-model=ordered --host-features=flagm=off,afp=off --runner=qemu --strace=calls --log=off \
                   --trace-exec=/t --dump-asm --stats --profile --perf-map --jit-dump";
        let cli = parse(&format!("demotic {all} -0 x ./a"), None).unwrap();
        let arguments = cli.shared.to_arguments(Path::new("/dir"));
        let expected = all.replace("=root", "=/dir/root").replace("=calls", "=/dir/calls");
        assert_eq!(arguments, words(&expected));
        let mut child = vec!["demotic".into()];
        child.extend(arguments.iter().cloned());
        child.push("./b".into());
        let child = Cli::try_from_arguments(child, None).unwrap();
        assert_eq!(child.shared.to_arguments(Path::new("/other")), arguments);
    }

    #[test]
    fn help_shows_the_groups_and_the_exit_statuses() {
        let help = Cli::command().render_long_help().to_string();
        for text in ["Usage: demotic [OPTIONS] PROGRAM", "The program:", "Running:", "Diagnosis:"] {
            assert!(help.contains(text), "{text} is missing in\n{help}");
        }
        for text in [
            "Commands:",
            "  doctor ",
            "Examples:",
            "Exit status:",
            "126",
            "127",
            "--strace[=<FILE>]",
        ] {
            assert!(help.contains(text), "{text} is missing in\n{help}");
        }
    }
}
