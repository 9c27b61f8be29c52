//! What images can be had from: systems on the web, disks in the router.

use std::fmt::Write;
use std::time::Duration;

use super::client::Client;
use super::show::{megabytes, table};
use super::{CliError, say, say_line};
use crate::api::types::{Disks, ListState, OsListAnswer, OsListRequest};

/// How often the agent is asked whether the list is there, and how often at most: the program that fetches it gives up by
/// itself before.
const POLL: Duration = Duration::from_millis(300);
const POLLS: u32 = 600;

/// Prints the systems that can be downloaded, once the agent has fetched their list.
pub(super) fn list(client: &Client, url: Option<String>, board: Option<String>) -> Result<(), CliError> {
    let request = OsListRequest { url, board };
    for _ in 0..POLLS {
        let answer: OsListAnswer = client.call("os_list", &request)?;
        match answer.state {
            ListState::Loading => std::thread::sleep(POLL),
            ListState::Failed => {
                let why = answer.why.unwrap_or_default();
                return Err(CliError::Failed(format!("the list of systems cannot be had from {}: {why}", answer.url)));
            }
            ListState::Ready if client.json => {
                let value = serde_json::to_value(&answer).map_err(|e| CliError::Failed(e.to_string()))?;
                say_line(&format!("{value:#}"));
                return Ok(());
            }
            ListState::Ready => {
                say(&systems(&answer));
                return Ok(());
            }
        }
    }
    Err(CliError::Failed("the list of systems did not come in time: try again".to_owned()))
}

fn systems(answer: &OsListAnswer) -> String {
    let (mut text, mut groups): (String, &[String]) = (String::new(), &[]);
    for system in &answer.systems {
        if system.groups != groups {
            groups = &system.groups;
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "\n{}", groups.join(" ▸ "));
        }
        let facts = [system.released.clone(), system.download_bytes.map(megabytes)];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        let _ = writeln!(text, "  {} ({})", system.name, facts.join(", "));
        let _ = writeln!(text, "    {}", system.url);
        if let Some(sum) = &system.sha256 {
            let _ = writeln!(text, "    --sha256 {sum}");
        }
    }
    if answer.systems.is_empty() {
        text.push_str("nothing in the list fits\n");
    }
    let _ = writeln!(
        text,
        "\n'piboot image import ADDRESS --name NAME' downloads and imports one. Boards: {}",
        answer.boards.join(", ")
    );
    text
}

/// The disks of the router.
pub(super) fn disks(disks: &Disks) -> String {
    let rows: Vec<Vec<String>> = disks
        .disks
        .iter()
        .map(|disk| {
            let used = match (disk.is_data, disk.mounted.is_empty()) {
                (true, _) => "data_dir is on it".to_owned(),
                (false, true) => "not mounted".to_owned(),
                (false, false) => format!("mounted at {}", disk.mounted.join(", ")),
            };
            let model = if disk.model.is_empty() { "-".to_owned() } else { disk.model.clone() };
            vec![disk.path.display().to_string(), model, megabytes(disk.bytes), disk.partitions.len().to_string(), used]
        })
        .collect();
    match table(&["DISK", "MODEL", "SIZE", "PARTITIONS", "USE"], &rows) {
        text if text.is_empty() => "there is no disk\n".to_owned(),
        text => text,
    }
}
