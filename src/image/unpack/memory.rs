//! How much memory a decoder may take.

/// pi-gen compresses with `xz -6`, which needs 9 MiB; `xz -9` needs 65.
const MOST: u64 = 48 << 20;

/// At most 48 MiB, and on a small router half of what is available: it must not be pushed out of memory.
pub(super) fn limit() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available(&text).map_or(MOST, |bytes| MOST.min(bytes / 2))
}

/// `MemAvailable` of `/proc/meminfo` (proc_meminfo(5)) in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let text = "MemTotal:       24683520 kB\nMemFree:         3610624 kB\nMemAvailable:   65536 kB\n";
        assert_eq!(available(text), Some(64 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert!((1 << 20..=MOST).contains(&limit()));
    }
}
