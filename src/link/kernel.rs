//! The kernel's side: reading and writing.
