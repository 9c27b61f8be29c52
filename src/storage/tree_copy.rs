//! Full copies of a tree.
