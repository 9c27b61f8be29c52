//! piboot: the library behind the agent and the command.
//!
//! Data flows one way: `dhcp`, `tftp` and `nfs` see the wire and emit [`events`]; `boot` makes boot sessions of them;
//! `fleet`, `storage`, `image` and `config` hold what is known and wanted; `api` answers questions; `agent` wires it all.
//! ARCHITECTURE.md is the map.

pub mod agent;
pub mod api;
pub mod archive;
mod base64;
pub mod boot;
pub mod cgi;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod dhcp;
pub mod events;
pub mod fleet;
pub mod image;
pub mod incoming;
pub mod jobs;
pub mod logging;
pub mod net;
pub mod nfs;
mod openat2;
pub mod pace;
pub mod pi;
mod printable;
pub mod progress;
pub mod quota;
mod random;
pub mod storage;
pub mod tftp;
pub mod ubus;
