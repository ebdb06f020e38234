//! Placement that follows changes.
