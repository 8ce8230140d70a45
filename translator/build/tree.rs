//! From the meanings of an opcode to selections among nodes.

use std::collections::HashMap;

use crate::layout::{Escape, Node, key};
use crate::probe::{MOD_IS_3, Meanings};

/// The nodes.
pub struct Tree {
    /// All of them; the opcode maps come first.
    pub nodes: Vec<Node>,
    /// Where a table stands that has been needed before.
    tables: HashMap<Vec<Node>, u32>,
}

/// Those meanings whose index has these bits.
#[derive(Clone, Copy)]
struct Part {
    known: usize,
    bits: usize,
}

/// Most bits of a key in one selection.
const MOST: u32 = 5;

/// What is selected by first when one selection is not enough: whether ModRM names memory, then reg,
/// then the prefixes, then rm and the rest.
const ORDER: [(u32, u32); 6] = [
    (key::MODRM + 6, 2),
    (key::MODRM + 3, 3),
    (key::W, 4),
    (key::MODRM, 3),
    (key::ADDRESS32, 1),
    (key::B, 1),
];

impl Tree {
    /// With room for the opcode maps.
    pub fn new(maps: usize) -> Self {
        Tree { nodes: vec![Node::escape(Escape::Unknown); maps], tables: HashMap::new() }
    }

    /// The node of an opcode.
    pub fn build(&mut self, meanings: &Meanings) -> Node {
        self.node(meanings, Part { known: 0, bits: 0 })
    }

    fn node(&mut self, meanings: &Meanings, part: Part) -> Node {
        let matter: Vec<u32> =
            meanings.key_bits.iter().copied().filter(|&bit| part.depends(meanings, bit)).collect();
        let (Some(&low), Some(&high)) = (matter.first(), matter.last()) else {
            return meanings.leaves[part.bits].map_or(Node::escape(Escape::Unknown), Node::leaf);
        };
        let (low, high) = if high - low < MOST {
            (low, high)
        } else {
            // The first of ORDER that makes a difference, without the bits at its ends that do not.
            let within = |&(shift, width): &(u32, u32)| {
                let inside = |bit: &&u32| (shift..shift + width).contains(*bit);
                Some((*matter.iter().find(inside)?, *matter.iter().rev().find(inside)?))
            };
            ORDER.iter().find_map(within).expect("all bits are in ORDER")
        };
        // Both bits of mod say that it is 3.
        let shift = low.min(if high == MOD_IS_3 { MOD_IS_3 - 1 } else { low });
        let width = high - shift + 1;
        let table = (0..1 << width)
            .map(|value| self.node(meanings, part.with(meanings, shift, width, value)))
            .collect();
        Node::select(self.table(table), shift, width)
    }

    /// Where a table of nodes stands.
    fn table(&mut self, table: Vec<Node>) -> u32 {
        let nodes = &mut self.nodes;
        *self.tables.entry(table).or_insert_with_key(|table| {
            nodes.extend(table);
            (nodes.len() - table.len()) as u32
        })
    }
}

impl Part {
    /// Whether a bit of the key makes a difference.
    fn depends(self, meanings: &Meanings, key_bit: u32) -> bool {
        let Some(bit) = meanings.index_bit(key_bit).map(|bit| 1 << bit) else {
            return false;
        };
        let leaves = &meanings.leaves;
        self.known & bit == 0
            && (0..leaves.len())
                .filter(|index| index & self.known == self.bits && index & bit == 0)
                .any(|index| leaves[index] != leaves[index | bit])
    }

    /// With `width` more bits of the key known. Those that were known before stay as they are:
    /// other keys do not come here.
    fn with(mut self, meanings: &Meanings, shift: u32, width: u32, value: usize) -> Self {
        for (i, &key_bit) in meanings.key_bits.iter().enumerate() {
            let bit = 1 << i;
            if self.known & bit != 0 || !(shift..shift + width).contains(&key_bit) {
                continue;
            }
            let mask = if key_bit == MOD_IS_3 { 3 << (key_bit - 1) } else { 1 << key_bit };
            if (value << shift) & mask == mask {
                self.bits |= bit;
            }
            self.known |= bit;
        }
        self
    }
}
