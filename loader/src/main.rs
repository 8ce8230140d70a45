//! The `demotic` command.
fn main(){}
