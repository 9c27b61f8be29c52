//! Commands about images.

use super::await_job;
use crate::api::types::{ImportRequest, NameRequest, Removed, Started};
use crate::cli::args::ImageCommand;
use crate::cli::client::Client;
use crate::cli::{CliError, say, say_line, show};
use crate::image;

pub(super) fn image(command: ImageCommand, client: &Client) -> Result<(), CliError> {
    match command {
        ImageCommand::Import(import) => {
            let source = import
                .file
                .canonicalize()
                .map_err(|e| CliError::Failed(format!("cannot use {}: {e}", import.file.display())))?;
            let request = ImportRequest { source, name: import.name };
            let Some(started) = client.ask::<Started>("image_import", request)? else { return Ok(()) };
            await_job(client, Some(started.job), import.no_wait)
        }
        ImageCommand::Remove(remove) => {
            let Some(started) = client.ask::<Removed>("image_remove", NameRequest { name: remove.name })? else {
                return Ok(());
            };
            await_job(client, started.job, false)
        }
        ImageCommand::Inspect(inspect) => {
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
