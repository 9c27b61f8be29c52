//! Commands about images.

use std::path::Path;

use serde_json::json;

use super::{await_job, shown};
use crate::api::types::{Disks, Images, ImportRequest, NameRequest, Removed, Started};
use crate::cli::args::ImageCommand;
use crate::cli::client::Client;
use crate::cli::{CliError, STANDARD_INPUT, capture, online, say, say_line, show, upload};
use crate::config::check_image_name;
use crate::image;
use crate::incoming::url::is_url;

/// The agent runs elsewhere in the tree.
fn absolute(source: &str) -> Result<String, CliError> {
    let failed = |why: String| CliError::Failed(format!("cannot use {source}: {why}"));
    let path = Path::new(source).canonicalize().map_err(|e| failed(e.to_string()))?;
    path.into_os_string().into_string().map_err(|_| failed("its path is no UTF-8".to_owned()))
}

pub(super) fn image(command: ImageCommand, client: &Client) -> Result<(), CliError> {
    match command {
        ImageCommand::Import(import) => {
            if import.sha256.is_some() && !is_url(&import.source) {
                return Err(CliError::Failed(
                    "--sha256 is for downloads: what a file is can be seen by sha256sum".to_owned(),
                ));
            }
            if import.source == STANDARD_INPUT {
                let job = upload::standard_input(client, import.name, !import.no_wait)?;
                return await_job(client, job, import.no_wait);
            }
            let source = if is_url(&import.source) { import.source } else { absolute(&import.source)? };
            let request = ImportRequest { source, name: import.name, sha256: import.sha256, size: None };
            let Some(started) = client.ask::<Started>("image_import", request)? else { return Ok(()) };
            await_job(client, Some(started.job), import.no_wait)
        }
        ImageCommand::ListOnline(wanted) => online::list(client, wanted.list, wanted.board),
        ImageCommand::Capture(wanted) => {
            let job = capture::pi(client, &wanted)?;
            await_job(client, job, wanted.no_wait)
        }
        ImageCommand::Disks(_) => shown(client.ask::<Disks>("disks", json!({}))?, |disks| online::disks(&disks)),
        ImageCommand::Remove(remove) => {
            let Some(started) = client.ask::<Removed>("image_remove", NameRequest { name: remove.name })? else {
                return Ok(());
            };
            await_job(client, started.job, false)
        }
        ImageCommand::Inspect(inspect) => {
            if let Some(name) = inspect.file.to_str().filter(|name| check_image_name(name).is_ok())
                && !inspect.file.exists()
            {
                return imported(name, client);
            }
            let found = image::inspect(&inspect.file).map_err(|e| CliError::Failed(e.to_string()))?;
            let value = serde_json::to_value(&found).map_err(|e| CliError::Failed(e.to_string()))?;
            if client.json {
                say_line(&format!("{value:#}"));
            } else {
                say(&show::members(&value));
            }
            Ok(())
        }
    }
}

/// What an imported image boots.
fn imported(name: &str, client: &Client) -> Result<(), CliError> {
    let Images { images } = client.call("images", serde_json::json!({}))?;
    let Some(found) = images.into_iter().find(|image| image.info.name == name) else {
        return Err(CliError::Failed(format!("there is no file '{name}' and no image of that name")));
    };
    let value = serde_json::to_value(&found.info).map_err(|e| CliError::Failed(e.to_string()))?;
    if client.json {
        say_line(&format!("{value:#}"));
        return Ok(());
    }
    let plain = value.as_object().map(|members| {
        members.iter().filter(|(key, _)| *key != "fits" && *key != "boot_files").map(|(k, v)| (k.clone(), v.clone()))
    });
    say(&show::members(&serde_json::Value::Object(plain.into_iter().flatten().collect())));
    match found.info.fits {
        Some(fits) => say(&format!("\n{}", show::fits(&fits))),
        None => say_line("which boards it boots is not known yet: 'piboot jobs' says when that is looked at"),
    }
    Ok(())
}
