//! Desired state: from an untrusted document to a topology in which nothing can be wrong.

pub mod view;
