//! The `dvr` program.

fn main() {}
