//! The agent's end: starts the thread, hands events and calls over to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::connection::{self, Broker};
use super::session::{Answer, Outgoing};
use super::{Notice, UbusError};
use crate::api::call::Call;

/// Events and calls that may wait for the thread; what is more is dropped or refused.
const WAITING: usize = 256;

/// What the agent asks of the thread.
pub(super) enum Command {
    Event { id: &'static str, data: Value },
    Call(Outgoing),
}

/// A running connection to ubus; it ends with the last of its clones.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    connected: Arc<AtomicBool>,
}

/// Starts the thread. Calls from the bus go into `calls`, what others tell into `notices`; when that is full, notices are
/// dropped. The broker at `socket` may come and go.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(socket: PathBuf, calls: mpsc::Sender<Call>, notices: mpsc::Sender<Notice>) -> Result<Handle, UbusError> {
    let (commands, receiver) = mpsc::channel(WAITING);
    let connected = Arc::new(AtomicBool::new(false));
    let broker = Broker { socket, calls, notices, connected: connected.clone() };
    let failed = |e: std::io::Error| UbusError::Thread(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let run = move || runtime.block_on(connection::run(broker, receiver));
    std::thread::Builder::new().name("ubus".to_owned()).spawn(run).map_err(failed)?;
    Ok(Handle { commands, connected })
}

impl Handle {
    /// Whether the object is on the bus.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The same, after waiting for it as long as this; not for threads that others wait for.
    #[must_use]
    pub fn wait_until_connected(&self, patience: Duration) -> bool {
        const GLANCES: u32 = 50;
        for _ in 0..GLANCES {
            if self.is_connected() {
                return true;
            }
            std::thread::sleep(patience / GLANCES);
        }
        self.is_connected()
    }

    /// Broadcasts an event, and notifies the subscribers of `piboot` of the same. Never waits: without a broker, or when it
    /// is too slow, the event is lost.
    pub fn event(&self, id: &'static str, data: Value) {
        if self.is_connected() && self.commands.try_send(Command::Event { id, data }).is_err() {
            log::debug!("the broker is slow: event {id} was not sent");
        }
    }

    /// Calls a method of another object and waits for its answer; not for threads that others wait for.
    ///
    /// # Errors
    /// When there is no broker, no such object or method, no answer within `timeout`, or the answer is an error.
    pub fn call(&self, object: &str, method: &str, args: &Value, timeout: Duration) -> Result<Value, UbusError> {
        let (reply, answer) = sync_channel::<Answer>(1);
        let outgoing = Outgoing::new(object, method, args, timeout, reply)?;
        self.commands.try_send(Command::Call(outgoing)).map_err(|_| UbusError::Busy)?;
        answer.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => UbusError::Timeout,
            RecvTimeoutError::Disconnected => UbusError::NotConnected,
        })?
    }
}
