//! Who may call what, by the package's own acl.d, as rpcd's sessions know it.

use std::fs;

use serde_json::Value;

const PAGES: &str = "luci-app-piboot";
const SETTINGS: &str = "luci-app-piboot-settings";

/// A login: what it may do with the groups of rights in [`Rights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Read and write, both groups.
    Admin,
    /// Read what `luci-app-piboot` lets read, as a login that may look and not configure.
    Reader,
    /// Read, both groups.
    Auditor,
    /// Nothing of it.
    Stranger,
}

impl Login {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Reader, Self::Auditor, Self::Stranger];

    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Reader => "reader",
            Self::Auditor => "auditor",
            Self::Stranger => "stranger",
        }
    }

    /// Its session: 32 hexadecimal digits.
    pub fn session(self) -> String {
        format!("{:032x}", 0x5e55_1011 + self as u128)
    }

    /// The groups of rights it has, and what of them.
    fn grants(self) -> &'static [(&'static str, &'static str)] {
        let all = &[(PAGES, "read"), (SETTINGS, "read"), (PAGES, "write"), (SETTINGS, "write")];
        match self {
            Self::Admin => all,
            Self::Reader => &all[..1],
            Self::Auditor => &all[..2],
            Self::Stranger => &[],
        }
    }

    /// Whether it has anything of a group: what LuCI's menu asks.
    pub fn has_of(self, group: &str) -> bool {
        self.grants().iter().any(|(granted, _)| *granted == group)
    }

    pub fn of_session(session: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|login| login.session() == session)
    }
}

/// The file that grants rights.
#[derive(Debug)]
pub struct Rights(Value);

impl Rights {
    pub fn load() -> Self {
        let path = format!("{}/root/usr/share/rpcd/acl.d/luci-app-piboot.json", super::APP);
        Self(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    }

    /// `session access` in the scope ubus. What every login has comes from luci-base.
    pub fn may_call(&self, login: Login, object: &str, method: &str) -> bool {
        let base = matches!(
            (object, method),
            ("session", "access") | ("luci", "getFeatures") | ("uci", "get" | "changes" | "state")
        );
        let write = object == "uci" && login == Login::Admin;
        base || write || login.grants().iter().any(|(group, kind)| has(&self.0[group][kind]["ubus"][object], method))
    }

    /// The same in the scope uci.
    pub fn may_uci(&self, login: Login, package: &str, write: bool) -> bool {
        let base = package == "luci" && !write;
        let wanted = if write { "write" } else { "read" };
        base || login.grants().iter().any(|(group, kind)| *kind == wanted && has(&self.0[group][kind]["uci"], package))
    }
}

fn has(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|names| names.iter().any(|known| known == name))
}
