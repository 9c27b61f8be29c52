//! The volume that holds images and devices.

pub mod tree_copy;
