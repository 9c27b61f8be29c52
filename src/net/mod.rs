//! Interfaces, addresses, neighbours, packet sockets: all the platform calls that speak to the network stack.

#![allow(unsafe_code, reason = "packet sockets and netlink need calls that no wrapper offers")]

mod addresses;
pub mod interface;
pub mod neighbour;
pub mod packet;

pub use addresses::AddressBook;
