//! Benchmarks of Demotic.
