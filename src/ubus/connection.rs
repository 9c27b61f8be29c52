//! The thread: keeps a connection to the broker, and carries bytes, calls and answers while it lasts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::handle::Command;
use super::message::{self, MessageError};
use super::session::{Caller, Invocation, Session, SessionError};
use super::{Notice, UbusError};
use crate::api::ApiError;
use crate::api::call::{self, Call};

/// Between two attempts to reach the broker.
const RETRY: Duration = Duration::from_secs(1);
/// The broker has so long to let us register.
const REGISTRATION: Duration = Duration::from_secs(10);
/// A broker that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(30);
/// How often the time is looked at while something waits.
const TICK: Duration = Duration::from_secs(1);
/// Calls being answered at once; more wait with the broker.
const MAX_CALLS: usize = 32;
/// While so many bytes wait for the broker, nothing is read and nothing answered; an answer is at most as much again.
const MAX_WAITING: usize = 1 << 20;
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Buffers that grew beyond this for one message shrink again.
const KEPT: usize = 64 * 1024;

/// The broker, and where to go with what comes from it.
pub(super) struct Broker {
    pub(super) socket: PathBuf,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) connected: Arc<AtomicBool>,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Ended {
    #[error("the agent is stopping")]
    Stopped,
    #[error("there is no broker at {0}")]
    Absent(PathBuf),
    #[error("the broker: {0}")]
    Io(String),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker does not answer")]
    Silent,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Connects, again and again, until the agent lets go of its handle.
pub(super) async fn run(broker: Broker, mut commands: mpsc::Receiver<Command>) {
    let mut said = None;
    loop {
        let ended = match connect(&broker.socket).await {
            Ok(stream) => serve(&broker, stream, &mut commands).await,
            Err(ended) => ended,
        };
        let was_connected = broker.connected.swap(false, Ordering::Relaxed);
        if ended == Ended::Stopped {
            return;
        }
        // Once for each reason: the next attempt is a second away.
        if was_connected || said.as_ref() != Some(&ended) {
            log::info!("not on ubus: {ended}");
            said = Some(ended);
        }
        if !pause(&mut commands).await {
            return;
        }
    }
}

async fn connect(socket: &PathBuf) -> Result<UnixStream, Ended> {
    let connected = timeout(REGISTRATION, UnixStream::connect(socket)).await.map_err(|_| Ended::Silent)?;
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ended::Absent(socket.clone()),
        _ => error.into(),
    })
}

/// Waits before the next attempt; false when there is to be none.
async fn pause(commands: &mut mpsc::Receiver<Command>) -> bool {
    let until = Instant::now() + RETRY;
    loop {
        tokio::select! {
            () = sleep_until(until) => return true,
            command = commands.recv() => match command {
                None => return false,
                Some(Command::Call(call)) => call.refuse(UbusError::NotConnected),
                Some(Command::Event { .. }) => {}
            },
        }
    }
}

/// An answer that is ready.
type Answered = (Caller, String, Result<Value, ApiError>);

struct Connection<'a> {
    broker: &'a Broker,
    session: Session,
    unread: Vec<u8>,
    answers: JoinSet<Answered>,
    /// When the broker last took something, or had nothing to take.
    moved: Instant,
    since: Instant,
}

async fn serve(broker: &Broker, stream: UnixStream, commands: &mut mpsc::Receiver<Command>) -> Ended {
    let now = Instant::now();
    let session = Session::new(broker.notices.clone());
    let (unread, answers) = (Vec::new(), JoinSet::new());
    let mut connection = Connection { broker, session, unread, answers, moved: now, since: now };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match connection.step(&stream, commands, &mut tick).await {
            Ok(()) => {}
            Err(ended) => return ended,
        }
    }
}

impl Connection<'_> {
    async fn step(
        &mut self,
        stream: &UnixStream,
        commands: &mut mpsc::Receiver<Command>,
        tick: &mut tokio::time::Interval,
    ) -> Result<(), Ended> {
        let has_room = self.has_room();
        let had_nothing = self.session.out.is_empty();
        let is_waiting = !self.session.out.is_empty() || self.session.is_waiting() || !self.session.is_registered();
        tokio::select! {
            ready = stream.readable(), if has_room && self.answers.len() < MAX_CALLS => {
                ready?;
                self.read(stream)?;
            }
            ready = stream.writable(), if !self.session.out.is_empty() => {
                ready?;
                self.write(stream)?;
            }
            Some(answered) = self.answers.join_next(), if has_room => {
                // Tasks are neither cancelled nor do they panic.
                if let Ok((caller, method, result)) = answered {
                    self.session.answer(caller, &method, result);
                }
            }
            command = commands.recv(), if has_room => match command {
                None => return Err(Ended::Stopped),
                Some(Command::Event { id, data }) => self.session.event(id, &data),
                Some(Command::Call(call)) => self.session.call(call),
            },
            now = tick.tick(), if is_waiting => self.look_at_the_time(now)?,
        }
        // What was read just now, or before there was room for its answers.
        self.take_messages()?;
        if had_nothing {
            self.moved = Instant::now();
        }
        Ok(())
    }

    fn look_at_the_time(&mut self, now: Instant) -> Result<(), Ended> {
        self.session.expire(now);
        let is_late = !self.session.is_registered() && now.saturating_duration_since(self.since) > REGISTRATION;
        let is_stuck = !self.session.out.is_empty() && now.saturating_duration_since(self.moved) > STALL;
        if is_late || is_stuck { Err(Ended::Silent) } else { Ok(()) }
    }

    fn read(&mut self, stream: &UnixStream) -> Result<(), Ended> {
        let mut chunk = [0; CHUNK];
        match stream.try_read(&mut chunk) {
            Ok(0) => return Err(Ended::Closed),
            Ok(count) => self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.session.out.len() < MAX_WAITING
    }

    /// Takes the messages that are complete, until there is enough to do.
    fn take_messages(&mut self) -> Result<(), Ended> {
        let mut read = 0;
        while self.has_room() && self.answers.len() < MAX_CALLS {
            let Some((message, length)) = message::next(self.unread.get(read..).unwrap_or_default())? else { break };
            if let Some(message) = message
                && let Some(invocation) = self.session.take(&message)?
            {
                answer(&mut self.answers, &mut self.session, self.broker, invocation);
            }
            read += length;
        }
        self.unread.drain(..read);
        if self.unread.len() < KEPT {
            self.unread.shrink_to(KEPT);
        }
        if self.session.is_registered() && !self.broker.connected.swap(true, Ordering::Relaxed) {
            log::info!("the ubus object 'piboot' is there");
        }
        Ok(())
    }

    fn write(&mut self, stream: &UnixStream) -> Result<(), Ended> {
        match stream.try_write(&self.session.out) {
            Ok(count) => {
                self.session.out.drain(..count);
                self.moved = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if self.session.out.is_empty() {
            self.session.out.shrink_to(KEPT);
        }
        Ok(())
    }
}

fn answer(answers: &mut JoinSet<Answered>, session: &mut Session, broker: &Broker, invocation: Invocation) {
    let Invocation { caller, method, params } = invocation;
    match params {
        Ok(params) => {
            let calls = broker.calls.clone();
            answers.spawn(async move {
                let result = call::ask(&calls, method.clone(), params).await;
                (caller, method, result)
            });
        }
        Err(error) => session.answer(caller, &method, Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Outgoing;
    use super::*;

    #[tokio::test]
    async fn a_broker_that_never_registers_us_or_takes_nothing_is_given_up() {
        let (calls, notices) = (mpsc::channel(1).0, mpsc::channel(1).0);
        let broker = Broker { socket: PathBuf::new(), calls, notices: notices.clone(), connected: Arc::default() };
        let (since, session) = (Instant::now(), Session::new(notices));
        let (unread, answers) = (Vec::new(), JoinSet::new());
        let mut connection = Connection { broker: &broker, session, unread, answers, moved: since, since };
        let brief = Duration::from_millis(1);
        assert_eq!(connection.look_at_the_time(since + REGISTRATION), Ok(()));
        assert_eq!(connection.look_at_the_time(since + REGISTRATION + brief), Err(Ended::Silent));
        connection.since += 2 * STALL;
        assert_eq!(connection.look_at_the_time(since + STALL + brief), Ok(()), "nothing is there to be taken");
        connection.session.out.push(0);
        assert_eq!(connection.look_at_the_time(since + STALL), Ok(()));
        assert_eq!(connection.look_at_the_time(since + STALL + brief), Err(Ended::Silent));

        // The time in which there was nothing to take does not count.
        connection.session.out.clear();
        let (stream, _broker) = UnixStream::pair().unwrap();
        let (commands, mut receiver) = mpsc::channel(1);
        let until = Duration::from_secs(1);
        let call = Outgoing::new("a", "b", &Value::Null, until, std::sync::mpsc::sync_channel(1).0);
        let mut tick = interval(TICK);
        tick.tick().await;
        commands.try_send(Command::Call(call.unwrap())).unwrap();
        connection.step(&stream, &mut receiver, &mut tick).await.unwrap();
        assert!(!connection.session.out.is_empty() && connection.moved > since);
    }
}
