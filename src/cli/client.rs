//! A client of the agent's local socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{CliError, say_line};

/// Where the agent is, and how its answers are shown.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    /// Print answers as JSON.
    pub(super) json: bool,
}

impl Client {
    pub(super) const fn new(socket: PathBuf, json: bool) -> Self {
        Self { socket, json }
    }

    /// Calls a verb and reads its answer as `T`.
    pub(super) fn call<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T, CliError> {
        let value = self.call_raw(method, params)?;
        serde_json::from_value(value).map_err(|e| {
            CliError::Failed(format!(
                "the agent's answer to '{method}' is not understood ({e}): is it of another version?"
            ))
        })
    }

    /// Calls a verb; with `--json` prints the answer and returns `None`.
    pub(super) fn ask<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<Option<T>, CliError> {
        if !self.json {
            return self.call(method, params).map(Some);
        }
        let value = self.call_raw(method, params)?;
        say_line(&format!("{value:#}"));
        Ok(None)
    }

    /// Calls a verb that takes bytes; they go into the connection that this answers.
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<(T, UnixStream), CliError> {
        let (value, stream) = self.exchange(method, params)?;
        let failed = |e| CliError::Failed(format!("the agent's answer to '{method}' is not understood ({e})"));
        Ok((serde_json::from_value(value).map_err(failed)?, stream))
    }

    fn call_raw(&self, method: &str, params: impl Serialize) -> Result<Value, CliError> {
        self.exchange(method, params).map(|(answer, _)| answer)
    }

    fn exchange(&self, method: &str, params: impl Serialize) -> Result<(Value, UnixStream), CliError> {
        let failed = |e: std::io::Error| {
            let socket = self.socket.display();
            CliError::Failed(format!(
                "no agent answers on {socket} ({e}): start it with 'piboot serve', and run this as root"
            ))
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        let mut line = json!({ "method": method, "params": params }).to_string();
        line.push('\n');
        stream.write_all(line.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).map_err(failed)?;
        let mut answer: Value = serde_json::from_str(&answer)
            .map_err(|e| CliError::Failed(format!("the agent's answer to '{method}' is no JSON: {e}")))?;
        match answer["error"]["message"].as_str() {
            Some(message) => Err(CliError::Failed(message.to_owned())),
            None => Ok((answer["result"].take(), stream)),
        }
    }
}
