//! An emulated Raspberry Pi.
