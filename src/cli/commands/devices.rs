//! Commands about Pis.

use super::await_job;
use crate::api::types::{EnrollRequest, Enrolled, UnenrollRequest, Unenrolled};
use crate::cli::args::{Enroll, Unenroll};
use crate::cli::client::Client;
use crate::cli::{CliError, say_line};

pub(super) fn enroll(enroll: Enroll, client: &Client) -> Result<(), CliError> {
    let Enroll { mac, serial, hostname, image, ip, ssh_key, root, no_wait } = enroll;
    let request = EnrollRequest { mac, serial, hostname, image, ip, ssh_keys: ssh_key, root };
    enrolled(client, client.call("enroll", request)?, no_wait)
}

/// Says what became of a new device, and waits for its root.
pub(super) fn enrolled(client: &Client, enrolled: Enrolled, no_wait: bool) -> Result<(), CliError> {
    if client.json {
        say_line(&format!("{:#}", serde_json::to_value(&enrolled).unwrap_or_default()));
        return if enrolled.why.is_some() { Err(CliError::Said) } else { Ok(()) };
    }
    say_line(&format!("enrolled as {}", enrolled.id));
    for warning in &enrolled.warnings {
        say_line(&format!("warning: {warning}"));
    }
    if let Some(why) = enrolled.why {
        return Err(CliError::Failed(format!("{} cannot boot yet: {why}", enrolled.id)));
    }
    await_job(client, enrolled.job, no_wait)
}

pub(super) fn unenroll(unenroll: Unenroll, client: &Client) -> Result<(), CliError> {
    let request = UnenrollRequest { id: unenroll.id, delete: unenroll.delete };
    let Some(gone) = client.ask::<Unenrolled>("unenroll", request)? else { return Ok(()) };
    say_line(&format!("{} is unenrolled", gone.id));
    if let Some(kept) = gone.kept {
        say_line(&format!("its files are kept in {kept}; enrolling it under the same name uses them again"));
    }
    await_job(client, gone.job, false)
}
