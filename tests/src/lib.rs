//! Whole-program tests of Demotic.
