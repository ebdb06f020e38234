//! The kernel's side: observe and apply.
