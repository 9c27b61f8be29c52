//! Interfaces, addresses, neighbours, packet sockets: all the platform calls that speak to the network stack.

#![allow(unsafe_code, reason = "packet sockets and netlink need calls that no wrapper offers")]

mod addresses;
pub mod bridge;
pub mod console_tap;
pub mod datagram;
pub mod interface;
pub mod link;
pub mod neighbour;
mod netlink;
pub mod packet;

pub use addresses::AddressBook;
