//! State of the agent, and what is wrong.

use serde::{Deserialize, Serialize};

use crate::config::{Problem, Severity};

/// `status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The address Pis are told.
    pub server: Option<std::net::Ipv4Addr>,
    /// How Pis get their boot options, in words.
    pub dhcp: String,
    /// Directory, file system and space.
    pub storage: StorageStatus,
    /// TFTP load.
    pub tftp: TftpStatus,
    /// NFS load.
    pub nfs: NfsStatus,
    /// Enrolled devices.
    pub devices: usize,
    /// Devices whose trees are served.
    pub devices_ready: usize,
    /// Pis that wait to be enrolled.
    pub pending: usize,
    /// Jobs that wait or run.
    pub jobs: usize,
    /// Wire events lost because the agent was too busy.
    pub events_dropped: u32,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
}

/// Part of [`Status`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StorageStatus {
    /// `data_dir`
    pub data_dir: String,
    /// Type of its file system.
    pub file_system: Option<String>,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free bytes.
    pub free_bytes: u64,
}

/// Part of [`Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TftpStatus {
    /// Whether it runs.
    pub serving: bool,
    /// Transfers under way.
    pub active: u32,
    /// Transfers since start.
    pub transfers: u64,
    /// Bytes acknowledged since start.
    pub bytes: u64,
    /// Blocks sent again since start.
    pub retransmissions: u64,
}

/// Part of [`Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NfsStatus {
    /// Whether it runs.
    pub serving: bool,
    /// Connections open.
    pub connections: usize,
    /// Requests since start; wraps on small machines.
    pub requests: usize,
    /// Who tells clients its port, in words.
    #[serde(default)]
    pub portmapper: String,
    /// The server that has the roots instead: `address:/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
}

/// Something that may stop a boot, with its cure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What and where: `piboot.main.dhcp`, `storage`, `running_lion` …
    pub place: String,
    /// The sentence that says why and what to do.
    pub text: String,
    /// A word for programs that stays, where one may act on it: `another-disk`, `device-blocked` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Finding {
    /// A finding that no program has to know from others.
    #[must_use]
    pub const fn new(severity: Severity, place: String, text: String) -> Self {
        Self { severity, place, text, id: None }
    }

    /// The same with a word for programs.
    #[must_use]
    pub fn known_as(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        Self::new(problem.severity, problem.place, problem.why)
    }
}

/// `check`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// Everything found; empty when all is well.
    pub findings: Vec<Finding>,
}
