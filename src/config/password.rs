//! Passwords of the Pis' users: kept as hashes of crypt(5), never as what was typed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha_crypt::{PasswordHasher, ShaCrypt};

use crate::random;

/// Longest hash taken; those of crypt(5) have at most 120 characters or so.
const MAX_HASH: usize = 256;
/// Longest password taken. The time that hashing takes grows with it.
const MAX_PASSWORD: usize = 256;
/// Random bytes of a salt: 16 characters, the most that SHA-crypt uses.
const SALT_BYTES: usize = 12;

/// A password as /etc/shadow has it: `$6$salt$hash` or another method of crypt(5). What it is never shows in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash(String);

/// A password as somebody typed it, on its way to be hashed. It never shows in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

/// Why a password was not taken; says nothing of the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Plain text, or a method that no Pi's system knows.
    #[error(
        "this is no hash of a password ($6$…, see crypt(5)), and a password itself does not belong here: 'piboot device edit ID --password-stdin' makes one of it"
    )]
    NoHash,
    /// Nothing, or what a keyboard cannot type.
    #[error("a password has 1 to {MAX_PASSWORD} bytes, and no line break or other control character")]
    NoPassword,
    /// The kernel gave no random numbers, or the hash could not be made.
    #[error("the password cannot be hashed: the router's kernel gives no random numbers")]
    NoRandom,
}

impl PasswordHash {
    /// Hashes a password with SHA-512 and a salt of its own.
    ///
    /// # Errors
    /// When it is no password that can be typed.
    pub fn of(password: &str) -> Result<Self, PasswordError> {
        if !(1..=MAX_PASSWORD).contains(&password.len()) || password.chars().any(char::is_control) {
            return Err(PasswordError::NoPassword);
        }
        let mut salt = [0; SALT_BYTES];
        random::fill(&mut salt).map_err(|_| PasswordError::NoRandom)?;
        let hash = ShaCrypt::SHA512.hash_password_with_salt(password.as_bytes(), &salt);
        hash.map_err(|_| PasswordError::NoRandom)?.as_str().parse()
    }

    /// As it stands in /etc/shadow.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordError;

    /// Takes the methods of libxcrypt that are still good enough to be kept (crypt(5)); no colon can reach /etc/shadow.
    fn from_str(text: &str) -> Result<Self, PasswordError> {
        const METHODS: [&str; 7] = ["5", "6", "7", "y", "gy", "2b", "2y"];
        let mut parts = text.split('$');
        let is_first_empty = parts.next() == Some("");
        let is_known = parts.next().is_some_and(|method| METHODS.contains(&method));
        let is_whole = parts.clone().count() >= 2 && parts.next_back().is_some_and(|hash| hash.len() >= 22);
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'$' | b'.' | b'/' | b'=' | b',');
        let good = is_first_empty && is_known && is_whole && text.len() <= MAX_HASH && text.bytes().all(is_plain);
        if good { Ok(Self(text.to_owned())) } else { Err(PasswordError::NoHash) }
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = PasswordError;

    fn try_from(text: String) -> Result<Self, PasswordError> {
        text.parse()
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_openssl_makes_of_the_same_password_and_salt() {
        for password in ["raspberry", "Ü ben: $(reboot)", &"x".repeat(200)] {
            let hash = PasswordHash::of(password).unwrap();
            let salt = hash.as_str().split('$').rev().nth(1).unwrap();
            assert_eq!(salt.len(), 16, "{}", hash.as_str());
            let openssl =
                std::process::Command::new("openssl").args(["passwd", "-6", "-salt", salt, password]).output();
            let expected = String::from_utf8(openssl.unwrap().stdout).unwrap();
            assert_eq!(strip_rounds(hash.as_str()), expected.trim());
            assert_ne!(PasswordHash::of(password).unwrap(), hash, "a salt of its own");
        }
    }

    /// `rounds=5000` is what is meant without it.
    fn strip_rounds(hash: &str) -> String {
        hash.replace("rounds=5000$", "")
    }

    #[test]
    fn only_hashes_are_taken_and_none_is_shown() {
        let long = format!("$6$abc${}", "x".repeat(300));
        for bad in ["", "raspberry", "$6$", "$6$salt$", "$1$salt$qIDqyTyvCwm5cUnJi8gRm0", "!", "*", "$6$a:b$x", &long] {
            assert_eq!(bad.parse::<PasswordHash>(), Err(PasswordError::NoHash), "{bad}");
        }
        for method in ["$6$salt$", "$5$rounds=1000$salt$", "$y$j9T$salt$", "$2b$10$"] {
            let hash: PasswordHash = format!("{method}{}", "a".repeat(43)).parse().unwrap();
            assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
        }
        for bad in ["", "a\nb", "\u{7}", &"x".repeat(257)] {
            assert_eq!(PasswordHash::of(bad), Err(PasswordError::NoPassword));
        }
    }
}
