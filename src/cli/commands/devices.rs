//! Commands about Pis.

use argh::FromArgs;

use super::{await_job, shown};
use crate::api::types::{
    DeviceDetail, EditRequest, Edited, EnrollRequest, Enrolled, IdRequest, ResetRequest, Started, SwitchRequest,
    UnenrollRequest, Unenrolled,
};
use crate::cli::args::{
    DEVICE_VERBS, DeviceCommand, DeviceEdit, DeviceReset, DeviceSwitch, DeviceVerb, Enroll, Unenroll,
};
use crate::cli::client::Client;
use crate::cli::password::{self, PasswordSource};
use crate::cli::{CliError, say, say_line, show};

/// `device ID`, or a verb with what it takes.
pub(super) fn device(words: Vec<String>, client: &Client, now_ms: i64) -> Result<(), CliError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [id] if !DEVICE_VERBS.contains(id) => {
            let detail = client.ask::<DeviceDetail>("device", IdRequest { id: (*id).to_owned() })?;
            shown(detail, |d| show::device(&d, now_ms))
        }
        [verb, ..] if DEVICE_VERBS.contains(verb) => match DeviceVerb::from_args(&["piboot device"], &words) {
            Ok(verb) => change(verb.verb, client),
            Err(early) if early.status.is_ok() => {
                say(&early.output);
                Ok(())
            }
            Err(early) => Err(CliError::Failed(early.output.trim_end().to_owned())),
        },
        _ => Err(CliError::Failed(
            "name one device: 'piboot device ID'; 'piboot device --help' says what else".to_owned(),
        )),
    }
}

fn change(command: DeviceCommand, client: &Client) -> Result<(), CliError> {
    let started = match command {
        DeviceCommand::Edit(edit) => return self::edit(edit, client),
        DeviceCommand::Switch(switch) => {
            let DeviceSwitch { id, image, keep, force, root, no_wait } = switch;
            let request = SwitchRequest { id, image, keep, force, root };
            (client.ask::<Started>("device_switch", request)?, no_wait)
        }
        DeviceCommand::Reset(reset) => {
            let DeviceReset { id, keep, force, root, no_wait } = reset;
            let request = ResetRequest { id, keep, force, root };
            (client.ask::<Started>("device_reset", request)?, no_wait)
        }
    };
    match started {
        (Some(started), no_wait) => await_job(client, Some(started.job), no_wait),
        (None, _) => Ok(()),
    }
}

fn edit(edit: DeviceEdit, client: &Client) -> Result<(), CliError> {
    if edit.disable && edit.enable || edit.no_ssh_keys && !edit.ssh_key.is_empty() {
        return Err(CliError::Failed("two of these contradict each other".to_owned()));
    }
    let ssh_keys = (edit.no_ssh_keys || !edit.ssh_key.is_empty()).then_some(edit.ssh_key);
    let request = EditRequest {
        id: edit.id,
        hostname: edit.hostname,
        ip: edit.ip,
        ssh_keys,
        user: edit.user,
        password: None,
        password_hash: password::hash(PasswordSource::from(edit.password_stdin, edit.password_hash))?,
        disabled: (edit.disable || edit.enable).then_some(edit.disable),
        image: edit.image,
        rollback_after: edit.rollback_after,
        quota: edit.quota,
        force: edit.force,
    };
    let Some(edited) = client.ask::<Edited>("device_edit", request)? else { return Ok(()) };
    say_line(&format!("{} is changed", edited.id));
    edited.notes.iter().for_each(|note| say_line(note));
    await_job(client, edited.job, false)
}

pub(super) fn enroll(enroll: Enroll, client: &Client) -> Result<(), CliError> {
    let Enroll { mac, serial, hostname, image, ip, ssh_key, root, user, password_stdin, password_hash, quota, no_wait } =
        enroll;
    let password_hash = password::hash(PasswordSource::from(password_stdin, password_hash))?;
    let (ssh_keys, password) = (ssh_key, None);
    let request =
        EnrollRequest { mac, serial, hostname, image, ip, ssh_keys, root, user, password, password_hash, quota };
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
