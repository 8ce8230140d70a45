//! Benchmarks of Demotic: whole programs (`cargo xtask bench`, docs/bench.md) and, in `parts`, the translator's parts.
