//! DHCP as a netboot server needs it: recognise Pis, watch the conversation, say which options make them boot, and have a
//! dnsmasq send those to enrolled Pis only, or send them beside whatever DHCP server there is.

pub mod conflicts;
pub mod drop_in;
pub mod fingerprint;
pub mod interest;
pub mod observe;
pub mod openwrt;
pub mod options;
pub mod proxy;
pub mod respond;
pub mod sections;
mod trial;
