//! About SD cards.

use std::path::PathBuf;

use argh::FromArgs;

/// Write the SD card with which a Pi 1, 2 or Zero boots from the network: nothing but bootcode.bin is on it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "sdcard")]
pub(in crate::cli) struct SdCard {
    /// a new file, or the card itself (/dev/sdX): everything on it is lost
    #[argh(option, short = 'o')]
    pub(in crate::cli) output: PathBuf,
    /// image whose bootcode.bin is taken (default: the first that has one)
    #[argh(option)]
    pub(in crate::cli) image: Option<String>,
    /// take this bootcode.bin instead; needs no agent then
    #[argh(option)]
    pub(in crate::cli) bootcode: Option<PathBuf>,
    /// the card's name once more, to say that what is on it may be lost
    #[argh(option)]
    pub(in crate::cli) erase: Option<PathBuf>,
}
