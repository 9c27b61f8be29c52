//! `option nfs`, `nfs_server` and `nfs_path`: who serves the roots.

use std::net::Ipv4Addr;

use super::super::model::{ExternalNfs, NfsMode, Severity};
use super::super::names::check_address;
use super::{Choice, Fields, choice};

/// With a device's id it has to fit into `nfsroot=`, of which a kernel takes 1023 characters and a bootloader fewer.
const MAX_EXPORT_PATH: usize = 160;

/// `option nfs` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NfsWord {
    Builtin,
    External,
}

impl Choice for NfsWord {
    const WORDS: &'static [(&'static str, Self)] = &[("builtin", Self::Builtin), ("external", Self::External)];
}

/// A server that is not wholly described is none: what was in force before stays.
pub(super) fn read(fields: &mut Fields<'_>, before: Option<&NfsMode>) -> NfsMode {
    let is_external = before.map(|before| before.external().is_some());
    let external = fields.setting("nfs", |text| Ok(choice::<NfsWord>(text)? == NfsWord::External), false, is_external);
    let server = fields.one("nfs_server", |text| {
        let server: Ipv4Addr = text.parse().map_err(|_| format!("'{text}' is not an IPv4 address"))?;
        check_address(server).map(|()| server).map_err(|error| error.to_string())
    });
    let path = fields.one("nfs_path", export_path);
    match (external, server, path) {
        (false, ..) => NfsMode::Builtin,
        (true, Some(server), Some(path)) => NfsMode::External(ExternalNfs { server, path }),
        (true, server, _) => {
            let option = if server.is_none() { "nfs_server" } else { "nfs_path" };
            let why = "nfs 'external' needs the server's IPv4 address (nfs_server) and what data_dir is called there (nfs_path)";
            fields.problem(Severity::Error, option, why.to_owned());
            before.cloned().unwrap_or_default()
        }
    }
}

/// A path that survives the kernel's command line and fstab, and leaves room there for what follows it.
fn export_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '"' | '\'' | '\\' | '#');
    let climbs = path.split('/').any(|part| part == ".." || part == ".");
    if path.starts_with('/') && path.len() <= MAX_EXPORT_PATH && path.chars().all(plain) && !climbs {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "'{text}' is not an absolute path of at most {MAX_EXPORT_PATH} characters without blank, comma or quote"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, uci};

    fn read(options: &str, before: Option<&Config>) -> (Config, Vec<String>) {
        let sections = uci::parse(&format!("config piboot 'main'\n{options}")).unwrap();
        let (config, problems) = match before {
            None => Config::from_sections(&sections),
            Some(before) => Config::from_sections_over(&sections, before),
        };
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_server_is_described_wholly_or_not_taken() {
        let whole = "option nfs 'external'\noption nfs_server '192.0.2.5'\noption nfs_path '/srv/piboot/'\n";
        let (config, problems) = read(whole, None);
        let server = ExternalNfs { server: [192, 0, 2, 5].into(), path: "/srv/piboot".to_owned() };
        assert_eq!((&config.main.nfs, problems.len()), (&NfsMode::External(server), 0));
        assert_eq!(read("", None).0.main.nfs, NfsMode::Builtin);
        assert_eq!(read(&whole.replace("external", "builtin"), None).0.main.nfs, NfsMode::Builtin);
        for (from, to, place) in [
            ("192.0.2.5", "nas", "nfs_server"),
            ("192.0.2.5", "127.0.0.1", "nfs_server"),
            ("192.0.2.5", "", "nfs_server"),
            ("/srv/piboot/", "srv", "nfs_path"),
            ("/srv/piboot/", "/srv/my pis", "nfs_path"),
            ("/srv/piboot/", "/srv/../etc", "nfs_path"),
            ("/srv/piboot/", "/srv,ro", "nfs_path"),
            ("/srv/piboot/", "/", "nfs_path"),
            ("external", "extern", "nfs"),
        ] {
            let text = whole.replace(from, to);
            let (new, problems) = read(&text, None);
            assert_eq!(new.main.nfs, NfsMode::Builtin, "{text}");
            assert!(problems.iter().any(|p| p.starts_with(&format!("piboot.main.{place}:"))), "{text}: {problems:?}");
            // A slip of the pen takes no root from under a running Pi.
            assert_eq!(read(&text, Some(&config)).0.main.nfs, config.main.nfs, "{text}");
        }
    }
}
