//! `demotic syscalls`: the table of system calls, and how each is answered.

use std::fmt::Write;

use serde::Serialize;
use syscalls::table::{CALLS, Call};

use crate::cli::ReportOptions;
use crate::status::json;

/// A row as it is printed.
#[derive(Serialize)]
struct Row {
    number: u32,
    name: &'static str,
    /// The arm64 kernel's number, where it has the call.
    arm64: Option<u32>,
    handling: &'static str,
    /// What a call that is refused, or missing, fails with.
    error: Option<&'static str>,
    remark: &'static str,
    arguments: Vec<Argument>,
}

#[derive(Serialize)]
struct Argument {
    name: &'static str,
    kind: &'static str,
}

impl Row {
    fn of(call: &Call) -> Self {
        let argument =
            |arg: &syscalls::table::Arg| Argument { name: arg.name, kind: arg.ty.word() };
        Self {
            number: call.number,
            name: call.name,
            arm64: call.host,
            handling: call.handling.level(),
            error: call.handling.error(),
            remark: call.note,
            arguments: call.args.iter().map(argument).collect(),
        }
    }
}

/// Prints the table; gives the exit status.
pub fn run(options: ReportOptions) -> i32 {
    let rows: Vec<Row> = CALLS.iter().map(Row::of).collect();
    if options.json {
        println!("{}", json(&rows));
    } else {
        print!("{}", text(&rows));
    }
    0
}

fn text(rows: &[Row]) -> String {
    let mut text = String::from("number  arm64  handling         call\n");
    for row in rows {
        let arm64 = row.arm64.map_or("-".into(), |number| number.to_string());
        let handling =
            row.error.map_or(row.handling.into(), |error| format!("{}: {error}", row.handling));
        let arguments: Vec<_> = row.arguments.iter().map(|argument| argument.name).collect();
        let arguments = arguments.join(", ");
        let remark = if row.remark.is_empty() { "" } else { "  # " };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:6}  {arm64:>5}  {handling:15}  {}({arguments}){remark}{}",
            row.number, row.name, row.remark
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_call() {
        let rows: Vec<Row> = CALLS.iter().map(Row::of).collect();
        let text = text(&rows);
        assert_eq!(text.lines().count(), CALLS.len() + 1);
        assert!(text.contains("\n     1     64  pass             write(fd, buf, count)\n"));
        assert!(text.contains("\n   134      -  refuse: ENOSYS   uselib(library)  # not in"));
        let value: serde_json::Value = serde_json::from_str(&json(&rows)).unwrap();
        let open = &value[2];
        assert_eq!((&open["name"], &open["arm64"]), (&"open".into(), &serde_json::Value::Null));
        assert_eq!(open["arguments"][0]["kind"], "path");
    }
}
