//! The consoles of Pis, as they come over the network: the bootloader's (`NETCONSOLE` in the EEPROM's configuration) and
//! the kernel's (`netconsole=`).

mod listen;
pub mod parse;

pub use listen::Listener;
