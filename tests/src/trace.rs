//! What `--strace` wrote: which calls were made, and whether the lines are those of strace(1).

use std::collections::{HashMap, HashSet};

/// A record of system calls: lines of processes and threads, in the order they were written.
pub struct Trace<'a> {
    lines: Vec<(u32, &'a str)>,
}

/// Calls that fail with this were not made.
const NOT_THERE: &str = "= -1 ENOSYS";

impl<'a> Trace<'a> {
    /// Reads lines that begin with `[pid N] ` (ours) or `N ` (strace's in a file); those without are process 0's.
    pub fn read(text: &'a str) -> Self {
        let lines = text.lines().map(|line| {
            let ours = line.strip_prefix("[pid").and_then(|rest| rest.split_once("] "));
            let (number, rest) = ours.or_else(|| line.split_once(' ')).unwrap_or(("", line));
            match number.trim().parse() {
                Ok(pid) => (pid, rest.trim_start()),
                Err(_) => (0, line),
            }
        });
        Self { lines: lines.collect() }
    }

    /// The names of the calls that were answered.
    pub fn calls(&self) -> HashSet<&'a str> {
        let answered = self.lines.iter().filter(|(_, line)| !line.contains(NOT_THERE));
        answered.filter_map(|(_, line)| Some(line.split_once('(')?.0)).collect()
    }

    /// What must be the same in every record of one program: from the first line with `mark` on, the lines of each
    /// process by themselves, without what differs from run to run. Lines of processes from before the mark are left
    /// out, and so is news of children, which the translator does not see where the program wants none.
    pub fn comparable(&self, mark: &str) -> Vec<String> {
        let start = self.lines.iter().position(|(_, line)| line.contains(mark));
        let (before, lines) = self.lines.split_at(start.unwrap_or(self.lines.len()));
        let main = lines.first().map_or(0, |line| line.0);
        let strangers: HashSet<u32> =
            before.iter().map(|line| line.0).filter(|pid| *pid != main).collect();
        let mut order: Vec<u32> = Vec::new();
        let mut texts: HashMap<u32, Vec<String>> = HashMap::new();
        for &(pid, line) in lines.iter().filter(|(pid, _)| !strangers.contains(pid)) {
            if line.starts_with("--- SIGCHLD") {
                continue;
            }
            if !order.contains(&pid) {
                order.push(pid);
            }
            let of_process = texts.entry(pid).or_default();
            match (line.split_once(" resumed>"), of_process.last_mut()) {
                (Some((_, rest)), Some(last)) if line.starts_with("<... ") => {
                    *last = last.replace(" <unfinished ...>", "") + rest;
                }
                _ => of_process.push(line.to_owned()),
            }
        }
        let all = order.iter().flat_map(|pid| texts.remove(pid).unwrap_or_default());
        all.map(|line| plain(&line, &order)).collect()
    }
}

/// A line without addresses, numbers of processes, remarks on times, and padding.
fn plain(line: &str, processes: &[u32]) -> String {
    let line = line.split("  ").filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    let mut rest = line.as_str();
    while !rest.is_empty() {
        if let Some((remark, after)) = time_remark(rest) {
            debug_assert!(remark.ends_with("*/"));
            rest = after;
            continue;
        }
        let word =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (token, after) = rest.split_at(word.max(rest.chars().next().map_or(1, char::len_utf8)));
        let process =
            token.parse().ok().and_then(|pid| processes.iter().position(|p| *p == pid && pid != 0));
        match process {
            _ if text.ends_with("si_utime=") || text.ends_with("si_stime=") => text += "TIME",
            Some(index) => text += &format!("P{index}"),
            None if token.starts_with("0x") && token.len() >= 8 => text += "ADDRESS",
            None => text += token,
        }
        rest = after;
    }
    text.replace("  =", " =")
}

/// A remark ` /* 1970-01-01T… */` or ` /* 0.05 s */` at the beginning, and what follows.
fn time_remark(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix(" /* ")?;
    let end = inner.find(" */")?;
    let time = inner[..end].contains('T') || inner[..end].ends_with(" s");
    (time && inner.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| text.split_at(" /* ".len() + end + " */".len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_were_answered() {
        let trace = Trace::read(
            "open(\"a\", 0) = 3\n[pid    7] close(3) = -1 EBADF (Bad)\n7  io_setup(1) = -1 ENOSYS (Not)\n",
        );
        assert_eq!(trace.calls(), HashSet::from(["open", "close"]));
    }

    #[test]
    fn two_runs_compare() {
        let strace = "5 access(\"/mark\", F_OK) = 0\n5  fork( <unfinished ...>\n6  getpid()    = 6\n\
                      5 <... fork resumed>) = 6\n6  +++ exited with 1 +++\n\
                      5 --- SIGCHLD {} ---\n5 brk(0x55550000) = 0x55550000\n";
        let ours = "[pid    4] wait4(-1) = 8\n[pid   18] x() = 1\n[pid   18] access(\"/mark\", F_OK)  = 0\n\
                    [pid   19] getpid() = 19\n[pid   18] fork() = 19\n[pid   19] +++ exited with 1 +++\n\
                    [pid   18] brk(0x7777770000) = 0x7777770000\n[pid    4] wait4(-1) = 18\n";
        let expected = [
            "access(\"/mark\", F_OK) = 0",
            "fork() = P1",
            "brk(ADDRESS) = ADDRESS",
            "getpid() = P1",
            "+++ exited with 1 +++",
        ];
        assert_eq!(Trace::read(strace).comparable("/mark"), expected);
        assert_eq!(Trace::read(ours).comparable("/mark"), expected);
        assert_eq!(plain("f({1} /* 1970-01-01T00:00:01+0000 */) = 0", &[]), "f({1}) = 0");
        assert_eq!(plain("f(0x1 /* 3 vars */) = 0", &[]), "f(0x1 /* 3 vars */) = 0");
    }
}
