//! Where the Pis mount their trees from: this router, or the admin's own NFS server.

use std::net::Ipv4Addr;

use super::Fleet;
use crate::config::NfsMode;

/// Somewhere that has a root and a boot export for each device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedAt {
    /// The address.
    pub server: Ipv4Addr,
    /// What comes before a device's id in an export; empty for this router's.
    pub prefix: String,
}

impl ExportedAt {
    /// Where they are while this router is `router`.
    #[must_use]
    pub fn of(nfs: &NfsMode, router: Ipv4Addr) -> Self {
        match nfs.external() {
            None => Self { server: router, prefix: String::new() },
            // As `storage::Layout` has them below data_dir.
            Some(external) => Self { server: external.server, prefix: format!("{}/devices", external.path) },
        }
    }

    /// The name of a device's root export.
    #[must_use]
    pub fn root(&self, id: &str) -> String {
        format!("{}/{id}/root", self.prefix)
    }

    /// The name of the export of a device's boot directory.
    #[must_use]
    pub fn boot(&self, id: &str) -> String {
        format!("{}/{id}/boot", self.prefix)
    }
}

impl Fleet {
    /// Where Pis mount their trees from, once an interface has an address.
    #[must_use]
    pub fn exported(&self) -> Option<ExportedAt> {
        self.server.map(|router| ExportedAt::of(&self.config.main.nfs, router))
    }
}
