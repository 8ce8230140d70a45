//! What runs the translator where the processor cannot: an emulator's command.

use std::{path::Path, process::Command};

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
}
