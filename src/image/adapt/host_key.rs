//! A host key for a device that cannot keep one of its own: one that it makes at each boot would be another each time.

use ed25519_compact::{KeyPair, Seed};

use crate::base64;

/// Ed25519 is what every OpenSSH since 6.5 knows.
const KIND: &[u8] = b"ssh-ed25519";
/// Characters in a line of the private key.
const LINE: usize = 70;

/// The two files of a host key.
pub(super) struct HostKey {
    /// `ssh_host_ed25519_key`
    pub(super) private: String,
    /// `ssh_host_ed25519_key.pub`
    pub(super) public: String,
}

/// The key that belongs to a seed, which is none if it is all zeros; `check` is any number, `comment` names the host.
pub(super) fn host_key(seed: [u8; 32], check: u32, comment: &str) -> Option<HostKey> {
    // The crate panics at it.
    if seed == [0; 32] {
        return None;
    }
    let pair = KeyPair::from_seed(Seed::new(seed));
    let mut public = Vec::new();
    put(&mut public, KIND);
    put(&mut public, pair.pk.as_ref());
    // PROTOCOL.key of OpenSSH: no cipher, one key.
    let mut secret = [check.to_be_bytes(), check.to_be_bytes()].concat();
    put(&mut secret, KIND);
    put(&mut secret, pair.pk.as_ref());
    put(&mut secret, pair.sk.as_ref());
    put(&mut secret, comment.as_bytes());
    secret.extend((1..8).take(secret.len().next_multiple_of(8) - secret.len()));
    let mut all = b"openssh-key-v1\0".to_vec();
    for part in [&b"none"[..], b"none", b""] {
        put(&mut all, part);
    }
    all.extend(1_u32.to_be_bytes());
    put(&mut all, &public);
    put(&mut all, &secret);
    let text = base64::encode(&all);
    let mut private = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
    for line in text.as_bytes().chunks(LINE) {
        private.push_str(&String::from_utf8_lossy(line));
        private.push('\n');
    }
    private.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    Some(HostKey { private, public: format!("ssh-ed25519 {} {comment}\n", base64::encode(&public)) })
}

/// A string as SSH has them (RFC 4251 §5); none here is long.
fn put(out: &mut Vec<u8>, string: &[u8]) {
    out.extend(u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn openssh_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        // Every length of padding.
        for comment in ["", "a", "ab", "abc", "root@lion", "root@running-lion"] {
            let key = host_key([comment.len() as u8 + 1; 32], 0x0102_0304, comment).unwrap();
            std::fs::write(&path, &key.private).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let output = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().expect("ssh-keygen");
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(said.trim(), key.public.trim(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(host_key([0; 32], 0, "").is_none());
        // RFC 8032 §7.1, TEST 1.
        let seed = *b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
        assert!(
            host_key(seed, 0, "")
                .unwrap()
                .public
                .contains("AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea")
        );
    }
}
