//! About images.

use std::path::PathBuf;

use argh::FromArgs;

/// List images.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "images")]
pub(in crate::cli) struct Images {}

/// Import, inspect or remove an image.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "image")]
pub(in crate::cli) struct Image {
    #[argh(subcommand)]
    pub(in crate::cli) command: ImageCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum ImageCommand {
    Import(ImageImport),
    ListOnline(ImageListOnline),
    Disks(ImageDisks),
    Capture(ImageCapture),
    Inspect(ImageInspect),
    Remove(ImageRemove),
}

/// Import an image: a file, a disk such as /dev/sda, an address on the web, or - for standard input.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "import")]
pub(in crate::cli) struct ImageImport {
    /// file, disk, http:// or https:// address, or -
    #[argh(positional)]
    pub(in crate::cli) source: String,
    /// SHA-256 that a download has to have
    #[argh(option)]
    pub(in crate::cli) sha256: Option<String>,
    /// name the image gets
    #[argh(option)]
    pub(in crate::cli) name: String,
    /// return at once instead of waiting for the import
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// List the systems that can be downloaded, as Raspberry Pi Imager knows them.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "list-online")]
pub(in crate::cli) struct ImageListOnline {
    /// only those for this board, for example pi4 or "Raspberry Pi Zero 2 W"
    #[argh(option)]
    pub(in crate::cli) board: Option<String>,
    /// address of another list (default: option os_list)
    #[argh(option)]
    pub(in crate::cli) list: Option<String>,
}

/// Make an image of a Pi that runs, by its own tar over ssh.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "capture")]
pub(in crate::cli) struct ImageCapture {
    /// where ssh reaches it: [user@]host; root, or a user with sudo without a password
    #[argh(option)]
    pub(in crate::cli) from: String,
    /// port of its ssh
    #[argh(option)]
    pub(in crate::cli) port: Option<u16>,
    /// name the image gets
    #[argh(option)]
    pub(in crate::cli) name: String,
    /// return when all is sent instead of waiting for the import
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// List the disks that an image can be read from.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "disks")]
pub(in crate::cli) struct ImageDisks {}

/// Say what is in an image file, or which boards an imported image boots and why it does not boot the others.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "inspect")]
pub(in crate::cli) struct ImageInspect {
    /// the file, for which no agent is needed, or the name of an imported image
    #[argh(positional)]
    pub(in crate::cli) file: PathBuf,
}

/// Remove an image that nobody uses.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "remove")]
pub(in crate::cli) struct ImageRemove {
    /// its name
    #[argh(positional)]
    pub(in crate::cli) name: String,
}
