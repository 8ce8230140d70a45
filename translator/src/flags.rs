//! Sets of the six status flags.

/// A set of status flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

#[allow(missing_docs)] // names are those of the Intel SDM
impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const C: Flags = Flags(1);
    pub const P: Flags = Flags(2);
    pub const A: Flags = Flags(4);
    pub const Z: Flags = Flags(8);
    pub const S: Flags = Flags(16);
    pub const O: Flags = Flags(32);
    pub const ALL: Flags = Flags(63);
    /// The four that live in NZCV.
    pub const NZCV: Flags = Flags(1 | 8 | 16 | 32);
    /// All but CF: what INC and DEC write.
    pub const ALL_BUT_C: Flags = Flags(63 & !1);

    /// Union.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
    /// Intersection.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
    /// Those not in `other`.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
    /// Whether there is any in common.
    pub const fn any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Whether all are in `other`.
    pub const fn within(self, other: Flags) -> bool {
        self.0 & !other.0 == 0
    }
}
