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
