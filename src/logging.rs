//! Log lines to standard error, where procd and systemd pick them up.

use std::io::Write;

use crate::printable::printable;
use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Names from the network must not forge log lines.
            let line = format!(
                "{}: {}\n",
                record.level().as_str().to_ascii_lowercase(),
                printable(record.args().to_string().as_bytes())
            );
            // Nobody is left to tell if standard error is gone.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Starts logging; does nothing the second time.
pub fn init(level: LevelFilter) {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(crate::printable::printable(b"a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(crate::printable::printable("grün".as_bytes()), "grün");
    }
}
