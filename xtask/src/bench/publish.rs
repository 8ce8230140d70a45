//! Where tables go: target/bench, and with `--publish` the documentation.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{picture, table::Table};
use crate::{root, say};

/// Writes the table as text, JSON and a picture.
pub fn write(table: &Table, folder: &Path) -> Result<()> {
    fs::write(folder.join("bench.txt"), table.text())?;
    write_data(table, folder)?;
    say(&format!("written to {}/bench.txt, bench.json and bench.svg", folder.display()));
    Ok(())
}

fn write_data(table: &Table, folder: &Path) -> Result<()> {
    fs::write(folder.join("bench.json"), serde_json::to_string_pretty(table)? + "\n")?;
    fs::write(folder.join("bench.svg"), picture::draw(table, &shown(table)))?;
    Ok(())
}

/// The translators that README and picture show: Demotic as it is by default, and the peers.
fn shown(table: &Table) -> Vec<&str> {
    let options = |name: &str| name.strip_prefix("Demotic").is_some_and(|rest| !rest.is_empty());
    let all = table.translators();
    let defaults: Vec<_> = all.iter().copied().filter(|name| !options(name)).collect();
    if defaults.is_empty() { all } else { defaults }
}

/// Writes the table into docs and README.
pub fn publish(table: &Table) -> Result<()> {
    let docs = root().join("docs");
    write_data(table, &docs)?;
    let date = format!("Measured on {}.\n\n", table.date);
    let all = table.translators();
    replace(
        &docs.join("bench.md"),
        &format!(
            "{date}{}\n![the same as a picture](bench.svg)\n{}\n## Every figure\n\n{}",
            table.ratios(&all),
            table.sections(),
            table.markdown()
        ),
    )?;
    let readme = format!(
        "{date}{}\n![the same as a picture](docs/bench.svg)\n",
        table.ratios(&shown(table))
    );
    replace(&root().join("README.md"), &readme)
}

/// Replaces what stands between the marks of a file.
fn replace(path: &Path, section: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text =
        replaced(&text, section).with_context(|| format!("no marks in {}", path.display()))?;
    Ok(fs::write(path, text)?)
}

/// What stands between the marks is written by `cargo xtask bench --publish`.
const MARKS: [&str; 2] = ["<!-- bench -->\n", "<!-- end of bench -->\n"];

fn replaced(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}{section}{}{after}", MARKS[0], MARKS[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n";
        let expected = "before\n<!-- bench -->\nnew\n<!-- end of bench -->\nafter\n";
        assert_eq!(replaced(text, "new\n").unwrap(), expected);
        assert_eq!(replaced("no marks", "new\n"), None);
    }

    #[test]
    fn the_documents_have_their_marks() {
        for document in ["README.md", "docs/bench.md"] {
            let text = fs::read_to_string(root().join(document)).unwrap();
            assert!(replaced(&text, "").is_some(), "{document}");
        }
    }
}
