//! The SD card for old Pis.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::api::types::{Images, Status};
use crate::cli::args::SdCard;
use crate::cli::client::Client;
use crate::cli::{CliError, say_line};
use crate::image::sdcard::{CARD_BYTES, MAX_BOOTCODE, beginning};
use crate::storage::Layout;
use crate::storage::card::{self, Place};

pub(super) fn sdcard(wanted: SdCard, client: &Client) -> Result<(), CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let output = std::path::absolute(&wanted.output).map_err(|e| failed(&e))?;
    let shown = output.display().to_string();
    let place = card::look(&output).map_err(|e| failed(&e))?;
    let from = match wanted.bootcode {
        Some(path) => path,
        None => of_image(wanted.image.as_deref(), client)?,
    };
    let content = beginning(&read(&from)?).map_err(|e| CliError::Failed(format!("{}: {e}", from.display())))?;
    if let Place::Disk(what) = &place
        && wanted.erase.as_deref() != Some(wanted.output.as_path())
    {
        let name = wanted.output.display();
        return Err(CliError::Failed(format!(
            "everything on {name} ({what}) would be lost: if that is the card, add --erase {name}"
        )));
    }
    card::write(&output, &place, &content, CARD_BYTES).map_err(|e| failed(&e))?;
    say_line(&match place {
        Place::NewFile => format!("{shown} written, with {}: copy it to a card, all of it", from.display()),
        Place::Disk(_) => format!("{shown} written and read back, with {}: put it into the Pi", from.display()),
    });
    Ok(())
}

/// The bootcode.bin of an imported image. The agent knows where images are; reading them takes root, as it does.
fn of_image(name: Option<&str>, client: &Client) -> Result<PathBuf, CliError> {
    let status: Status = client.call("status", json!({}))?;
    let layout = Layout::new(PathBuf::from(status.storage.data_dir));
    let images: Images = client.call("images", json!({}))?;
    let path = |image: &str| layout.image(image).join("boot/bootcode.bin");
    let mut names = images.images.iter().map(|image| image.info.name.as_str());
    match name {
        Some(name) if !names.any(|other| other == name) => {
            Err(CliError::Failed(format!("there is no image '{name}': 'piboot images' lists them")))
        }
        Some(name) if path(name).is_file() => Ok(path(name)),
        Some(name) => {
            Err(CliError::Failed(format!("image '{name}' has no bootcode.bin: it is for newer boards alone")))
        }
        None => names.map(path).find(|path| path.is_file()).ok_or_else(|| {
            let what =
                "no image with a bootcode.bin was imported: import Raspberry Pi OS, or name a file by --bootcode";
            CliError::Failed(what.to_owned())
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_BOOTCODE as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| CliError::Failed(format!("cannot read {}: {e}", path.display())))?;
    Ok(bytes)
}
