//! What runs the translator where the processor cannot: an emulator's command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An emulator's name and options, as one text; the translator takes it as one too, for its children.
#[derive(Clone)]
pub struct Runner(String);

impl From<String> for Runner {
    fn from(command: String) -> Self {
        Self(command)
    }
}

impl Runner {
    /// The command that has it run `translator`, which is told of it.
    pub fn command(&self, translator: &Path) -> Command {
        let mut words = self.0.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(translator).arg("--runner").arg(&self.0);
        command
    }

    /// Whether it is linked with libraries, which there are none of in a root that has but the program.
    pub fn wants_libraries(&self) -> bool {
        let name = self.0.split_whitespace().next().unwrap_or_default();
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&folders).map(|folder| folder.join(name));
        let file: Option<PathBuf> = places.find(|place| place.is_file());
        file.and_then(|file| fs::read(file).ok()).is_some_and(|file| has_interpreter(&file))
    }
}

/// Whether an ELF file of 64 bits has a program header of the type PT_INTERP (System V gABI, chapter 5).
fn has_interpreter(file: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let field = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(file.get(at..at + size)?);
        Some(u64::from_le_bytes(bytes))
    };
    let (Some(headers), Some(size), Some(count)) = (field(32, 8), field(54, 2), field(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| field((headers + index * size) as usize, 4) == Some(PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_runner_stand_before_the_translator() {
        let runner = Runner::from("emulator -cpu old".to_owned());
        let command = runner.command(Path::new("/translator"));
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "emulator");
        assert_eq!(arguments, ["-cpu", "old", "/translator", "--runner", "emulator -cpu old"]);
    }

    #[test]
    fn a_program_with_libraries_has_an_interpreter() {
        let dynamic = fs::read("/bin/sh").unwrap();
        assert!(has_interpreter(&dynamic));
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/demo");
        assert!(!has_interpreter(&fs::read(demo).unwrap()));
        assert!(!has_interpreter(b"\x7fELF"));
    }
}
