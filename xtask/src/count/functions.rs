//! Where the translator's own instructions go: by its functions, and by the stages of its work that those belong to.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};
use goblin::elf::{Elf, sym::STT_FUNC};

/// The stages, each with what the names of its functions contain; a function belongs to the first one that fits.
const STAGES: [(&str, &[&str]); 8] = [
    ("interpreting", &["interpret::"]),
    ("decoding", &["decode::", "iced_x86::"]),
    ("finding regions", &["region::", "Engine::translate", "engine::pages::Around"]),
    ("facts", &["facts::", "effects::", "fault_flags::"]),
    ("lowering", &["lower::", "asm::"]),
    ("linking", &["::link", "run_unless_armed"]),
    ("keeping", &["cache::", "arena::", "pages::", "Engine::publish"]),
    ("entering and leaving", &["engine::"]),
];
const REST: &str = "all else";

/// A function of the translator, and what was executed in it.
struct Function {
    name: String,
    instructions: u64,
    calls: u64,
}

/// Prints what the plugin has written of the blocks that were executed in `demotic`, of the process image in which most
/// were: the stages, and the `most` functions with most instructions.
pub fn print(blocks: &Path, demotic: &Path, most: usize) -> Result<()> {
    let image = fs::read(demotic).with_context(|| demotic.display().to_string())?;
    let symbols = Symbols::read(&image)?;
    let mut functions = symbols.count(&Block::read(blocks)?)?;
    functions.sort_by_key(|function| std::cmp::Reverse(function.instructions));
    println!("{:>10} stage of the translator's work, M instructions", "");
    let stages = STAGES.iter().map(|(stage, _)| *stage).chain([REST]);
    for stage in stages {
        let of_stage = functions.iter().filter(|function| stage_of(&function.name) == stage);
        let sum: u64 = of_stage.map(|function| function.instructions).sum();
        println!("{:10.2} {stage}", sum as f64 / 1e6);
    }
    println!("{:>10} {:>9} function", "M", "calls");
    for Function { name, instructions, calls } in functions.iter().take(most) {
        println!("{:10.2} {calls:9} {name}", *instructions as f64 / 1e6);
    }
    Ok(())
}

fn stage_of(name: &str) -> &'static str {
    let fits = |(_, parts): &&(&str, &[&str])| parts.iter().any(|part| name.contains(part));
    STAGES.iter().find(fits).map_or(REST, |(stage, _)| stage)
}

/// A block of code as the plugin counts it.
struct Block {
    address: u64,
    length: u64,
    executions: u64,
}

impl Block {
    /// Those of the image with most instructions: processes and what execve(2) makes of them are one after another.
    fn read(path: &Path) -> Result<Vec<Block>> {
        let text = fs::read_to_string(path).context("no blocks were counted")?;
        let mut images: HashMap<&str, Vec<Block>> = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let mut next = || fields.next().with_context(|| format!("not a block: {line}"));
            let process = next()?;
            let address = u64::from_str_radix(next()?, 16)?;
            let (length, executions) = (next()?.parse()?, next()?.parse()?);
            images.entry(process).or_default().push(Block { address, length, executions });
        }
        let sum = |blocks: &Vec<Block>| {
            blocks.iter().map(|block| block.length * block.executions).sum::<u64>()
        };
        images.into_values().max_by_key(sum).context("no block was executed")
    }
}

/// The functions of a position-independent executable by address.
struct Symbols {
    functions: Vec<(u64, String)>,
    entry: u64,
    end: u64,
}

impl Symbols {
    fn read(image: &[u8]) -> Result<Self> {
        let elf = Elf::parse(image)?;
        let functions = elf.syms.iter().filter(|symbol| symbol.st_type() == STT_FUNC);
        let name = |name: usize| elf.strtab.get_at(name).unwrap_or_default();
        let mut functions: Vec<_> = functions
            .map(|symbol| {
                let name = rustc_demangle::demangle(name(symbol.st_name));
                (symbol.st_value, format!("{name:#}"))
            })
            .collect();
        functions.sort();
        functions.dedup_by_key(|(address, _)| *address);
        let ends = elf.program_headers.iter().map(|header| header.p_vaddr + header.p_memsz);
        Ok(Symbols { functions, entry: elf.entry, end: ends.max().unwrap_or(0) })
    }

    /// Adds the blocks up by the functions that they are in.
    fn count(&self, blocks: &[Block]) -> Result<Vec<Function>> {
        // At the right distance from a page where the entry may be, most blocks are where functions begin.
        let begins = |address: u64, base: u64| {
            let offset = address.checked_sub(base);
            offset.is_some_and(|at| {
                self.functions.binary_search_by_key(&at, |(start, _)| *start).is_ok()
            })
        };
        let base = blocks
            .iter()
            .filter_map(|block| block.address.checked_sub(self.entry))
            .filter(|base| base.is_multiple_of(4096))
            .max_by_key(|&base| blocks.iter().filter(|b| begins(b.address, base)).count())
            .context("the program's entry was not executed")?;
        let mut functions: HashMap<usize, Function> = HashMap::new();
        for block in blocks {
            let Some(index) = self.index(block.address, base) else { continue };
            let (address, name) = &self.functions[index];
            let new = || Function { name: name.clone(), instructions: 0, calls: 0 };
            let function = functions.entry(index).or_insert_with(new);
            function.instructions += block.length * block.executions;
            if block.address - base == *address {
                function.calls += block.executions;
            }
        }
        Ok(functions.into_values().collect())
    }

    fn index(&self, address: u64, base: u64) -> Option<usize> {
        let offset = address.checked_sub(base).filter(|&offset| offset < self.end)?;
        self.functions.partition_point(|(start, _)| *start <= offset).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_belong_to_the_function_before_them() {
        let name = |name: &str| name.to_owned();
        let functions =
            vec![(0x100, name("_start")), (0x200, name("translator::region::Region::build"))];
        let symbols = Symbols { functions, entry: 0x100, end: 0x1000 };
        let block = |address, executions| Block { address, length: 3, executions };
        let blocks = [block(0x5000_0100, 1), block(0x5000_0200, 2), block(0x5000_0210, 7)];
        let mut counted = symbols.count(&blocks).unwrap();
        counted.sort_by_key(|function| function.instructions);
        let told: Vec<_> =
            counted.iter().map(|f| (stage_of(&f.name), f.instructions, f.calls)).collect();
        assert_eq!(told, [(REST, 3, 1), ("finding regions", 27, 2)]);
    }
}
