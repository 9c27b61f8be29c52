//! Addresses on the web, checked before a program gets them.

use std::fmt;

/// Longest address that is taken.
const MAX_LENGTH: usize = 2048;

/// The address of a file on a web server: safe as an argument of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

/// Why something is no address to download from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("'{0}' is no address to download from: it has to begin with https:// or http://")]
    Scheme(String),
    /// Nothing between scheme and path.
    #[error("'{0}' names no server")]
    NoHost(String),
    /// A blank, a control character, or one that is not ASCII.
    #[error("'{0}' is no address: blanks and special characters in it have to be written as %XX")]
    Character(String),
    /// Too long.
    #[error("an address may have {MAX_LENGTH} characters at most")]
    Long,
}

impl Url {
    /// Checks an address.
    ///
    /// # Errors
    /// [`UrlError`] quoting it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_LENGTH {
            return Err(UrlError::Long);
        }
        let shown = || crate::printable::printable(text.as_bytes());
        if !is_url(text) {
            return Err(UrlError::Scheme(shown()));
        }
        // What RFC 3986 §2 leaves out, quotes and braces among it, is never needed in an address.
        if !text.bytes().all(|b| {
            b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        }) {
            return Err(UrlError::Character(shown()));
        }
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        if host.is_empty() || host.starts_with([':', '-']) {
            return Err(UrlError::NoHost(shown()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the file it leads to, by the address alone.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        path.split('/').skip(1).filter(|part| !part.is_empty()).last().unwrap_or(path)
    }

    /// Without what may be secret, user and password and everything behind the path: for people and logs.
    #[must_use]
    pub fn public(&self) -> String {
        let address = self.0.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public())
    }
}

/// Whether a source is meant as an address rather than as a file.
#[must_use]
pub fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_and_everything_else_is_named() {
        for good in [
            "https://downloads.raspberrypi.com/raspios_lite_arm64/images/x.img.xz",
            "HTTP://192.168.1.2:8000/a%20b.img?x=1#y",
            "http://[fe80::1]/x",
            "https://user:secret@host/x.zip",
            "http://host",
        ] {
            assert_eq!(Url::parse(good).unwrap().as_str(), good);
        }
        let refused = |text: &str| Url::parse(text).unwrap_err();
        for scheme in ["", "-O/etc/passwd", "ftp://host/x", "file:///etc/passwd", "/mnt/x.img", "https:/x", " http://x"]
        {
            assert!(matches!(refused(scheme), UrlError::Scheme(_)), "{scheme}");
        }
        for host in ["http://", "http:///x", "https://?x", "https://:80/", "https://-x/", "http://u@/x"] {
            assert!(matches!(refused(host), UrlError::NoHost(_)), "{host}");
        }
        for character in
            ["http://h/a b", "http://h/\n", "http://h/ä", "http://h/\0", "http://h/\u{7f}", "http://h/{1,2}"]
        {
            assert!(matches!(refused(character), UrlError::Character(_)), "{character}");
        }
        assert_eq!(refused(&format!("http://h/{}", "x".repeat(MAX_LENGTH))), UrlError::Long);
    }

    #[test]
    fn the_file_is_named_and_secrets_are_not_shown() {
        for (url, name, shown) in [
            ("https://u:p@h/a/b.img.xz?sig=1", "b.img.xz", "https://h/a/b.img.xz"),
            ("http://h/a/", "a", "http://h/a/"),
            ("http://h:80", "h:80", "http://h:80"),
            ("http://h/@x", "@x", "http://h/@x"),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!((url.file_name(), url.to_string()), (name, shown.to_owned()));
        }
    }
}
