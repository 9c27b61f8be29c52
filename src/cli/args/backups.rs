//! About backups.

use std::path::PathBuf;

use argh::FromArgs;

/// Write a Pi's files, with all that is known of it, into one .tar.zst.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "backup")]
pub(in crate::cli) struct Backup {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// the new file, '-' for the pipe that is the standard output (default: ID.tar.zst)
    #[argh(option, short = 'o')]
    pub(in crate::cli) output: Option<PathBuf>,
    /// even if the Pi runs: what it writes meanwhile may be torn
    #[argh(switch)]
    pub(in crate::cli) live: bool,
    /// return at once instead of waiting for the end
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Make a Pi's files from a backup, and enrol it if it is not.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "restore")]
pub(in crate::cli) struct Restore {
    /// the backup; - for standard input, a pipe, which needs --id
    #[argh(positional)]
    pub(in crate::cli) file: PathBuf,
    /// the enrolled device that it is to become (default: the one that was backed up)
    #[argh(option)]
    pub(in crate::cli) id: Option<String>,
    /// replace the files that this device has; there is no way back
    #[argh(switch)]
    pub(in crate::cli) replace: bool,
    /// return at once instead of waiting for the end
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Write all images and enrolled Pis into one .tar.zst, for another router.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "export")]
pub(in crate::cli) struct Export {
    /// the new file, '-' for the pipe that is the standard output (default: piboot.tar.zst)
    #[argh(option, short = 'o')]
    pub(in crate::cli) output: Option<PathBuf>,
    /// even if Pis run: what they write meanwhile may be torn
    #[argh(switch)]
    pub(in crate::cli) live: bool,
    /// return at once instead of waiting for the end
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Take the images and Pis that this router lacks from the export of another.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "import-all")]
pub(in crate::cli) struct ImportAll {
    /// the export; - for standard input, a pipe
    #[argh(positional)]
    pub(in crate::cli) file: PathBuf,
    /// return at once instead of waiting for the end
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}
