//! NFS version 3 over TCP, with MOUNT and a portmapper: roots and boot trees for Pis.
//!
//! RFC 1813 (NFS, MOUNT), RFC 5531 (RPC), RFC 4506 (XDR), RFC 1833 (portmap). A message goes from [`connection`] through
//! [`dispatch`] to [`ops`], which act on [`fs`] as the caller ([`creds`]); [`exports`] and [`access`] say who may. Plain
//! threads and system calls: the kernel's thread identity is what makes permissions real, and a hop through an
//! asynchronous runtime costs more than most requests.

mod access;
pub mod acl;
mod activity;
pub mod args;
pub mod attr;
mod buffers;
mod client;
mod connection;
pub mod creds;
mod dispatch;
mod drc;
mod exports;
mod files;
mod fs;
mod hall;
pub mod handle;
mod identity;
mod key;
mod known;
mod listen;
pub mod mount;
mod objects;
mod ops;
mod outbox;
mod pool;
pub mod portmap;
pub mod proto;
mod registration;
pub mod rpc;
pub mod rpcbind;
mod server;
mod shared;
mod space;
pub mod xdr;

pub use client::{ClientError, probe};
pub use exports::{AddressRange, Export, ParseRangeError, RootIs, Unavailable, Who};
pub use fs::{HandleSupport, SupportError, handle_support};
pub(crate) use fs::{subvolume, trial};
pub use key::{KeyError, load_or_create_key};
pub use rpcbind::RpcbindError;
pub use server::{Error, Handle, NFS_PORT, PORTMAP_PORT, PortmapState, Ports, Server, ServerConfig, Stats};
pub use shared::Limits;
