//! Who may call what, by the package's own acl.d, as rpcd's sessions know it.

use std::fs;

use serde_json::Value;

/// A login: what it may do with `luci-app-piboot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Read and write.
    Admin,
    /// Read.
    Reader,
    /// Nothing of it.
    Stranger,
}

impl Login {
    pub const ALL: [Self; 3] = [Self::Admin, Self::Reader, Self::Stranger];

    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Reader => "reader",
            Self::Stranger => "stranger",
        }
    }

    /// Its session: 32 hexadecimal digits.
    pub fn session(self) -> String {
        format!("{:032x}", 0x5e55_1011 + self as u128)
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
        base || write || self.groups(login).any(|group| has(&self.0["luci-app-piboot"][group]["ubus"][object], method))
    }

    /// The same in the scope uci.
    pub fn may_uci(&self, login: Login, package: &str, write: bool) -> bool {
        let base = package == "luci" && !write;
        let ours = |group: &str| (group == "write" || !write) && has(&self.0["luci-app-piboot"][group]["uci"], package);
        base || self.groups(login).any(ours)
    }

    fn groups(&self, login: Login) -> impl Iterator<Item = &'static str> + use<> {
        let groups: &[&str] = match login {
            Login::Admin => &["read", "write"],
            Login::Reader => &["read"],
            Login::Stranger => &[],
        };
        groups.iter().copied()
    }
}

fn has(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|names| names.iter().any(|known| known == name))
}
