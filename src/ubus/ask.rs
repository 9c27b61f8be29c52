//! One call of another object, by a process that is on the bus for nothing else: waits for its answer.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ubus_zero::MsgType;
use ubus_zero::envelope::{EnvBuilder, UbusAttr};

use super::message::{self, Message};
use super::object::MAX_ANSWER;
use super::{UbusError, value};

/// Bytes read at once.
const CHUNK: usize = 4096;
/// Longest message; the broker sends none that is longer.
const MAX_MESSAGE: usize = 2 << 20;

/// Calls `method` of `object` over the broker at `socket`; each step may take `timeout`.
///
/// # Errors
/// [`UbusError::NotConnected`] without a broker, [`UbusError::Status`] with the answer of who was called: 4 where there is
/// no such object.
pub fn ask(socket: &Path, object: &str, method: &str, args: &Value, timeout: Duration) -> Result<Value, UbusError> {
    let args = value::encode(args, MAX_ANSWER)?;
    let stream = UnixStream::connect(socket).map_err(|_| UbusError::NotConnected)?;
    let limit = Some(timeout);
    stream.set_read_timeout(limit).and_then(|()| stream.set_write_timeout(limit)).map_err(|e| failed(&e))?;
    let mut bus = Bus { stream, read: Vec::new() };
    // The broker greets first.
    bus.next(|message| (message.kind == MsgType::Hello).then_some(()))?;
    let mut lookup = EnvBuilder::new();
    lookup.push_str(UbusAttr::ObjPath, object);
    bus.send(MsgType::Lookup, 1, 0, lookup)?;
    let mut found = None;
    bus.answer(1, |message| found = found.or(message.attributes.object))?;
    let Some(id) = found else { return Err(UbusError::Status(NOT_FOUND)) };
    let mut invoke = EnvBuilder::new();
    invoke.push_u32(UbusAttr::ObjId, id);
    invoke.push_str(UbusAttr::Method, method);
    invoke.push_data(args.contents());
    bus.send(MsgType::Invoke, 2, id, invoke)?;
    let mut said = Ok(Value::Null);
    bus.answer(2, |message| {
        if let Some(data) = message.attributes.data {
            said = value::decode(data);
        }
    })?;
    Ok(said?)
}

/// `UBUS_STATUS_NOT_FOUND`
const NOT_FOUND: u32 = 4;

struct Bus {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Bus {
    fn send(&mut self, kind: MsgType, seq: u16, peer: u32, envelope: EnvBuilder) -> Result<(), UbusError> {
        let mut bytes = Vec::new();
        message::write(&mut bytes, kind, seq, peer, envelope);
        self.stream.write_all(&bytes).map_err(|e| failed(&e))
    }

    /// Takes data of the answer to request `seq`, until its status.
    fn answer(&mut self, seq: u16, mut data: impl FnMut(&Message<'_>)) -> Result<(), UbusError> {
        let status = self.next(|message| match message.kind {
            _ if message.seq != seq => None,
            MsgType::Data => {
                data(message);
                None
            }
            MsgType::Status => Some(message.attributes.status.unwrap_or_default()),
            _ => None,
        })?;
        if status == 0 { Ok(()) } else { Err(UbusError::Status(status)) }
    }

    /// Reads messages until one is what `wanted` looks for.
    fn next<T>(&mut self, mut wanted: impl FnMut(&Message<'_>) -> Option<T>) -> Result<T, UbusError> {
        loop {
            let parsed = message::next(&self.read).map_err(|_| UbusError::NotConnected)?;
            if let Some((message, length)) = parsed {
                let found = message.as_ref().and_then(&mut wanted);
                self.read.drain(..length);
                if let Some(found) = found {
                    return Ok(found);
                }
                continue;
            }
            let mut chunk = [0; CHUNK];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(UbusError::NotConnected),
                Ok(_) if self.read.len() > MAX_MESSAGE => return Err(UbusError::NotConnected),
                Ok(length) => self.read.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

fn failed(error: &io::Error) -> UbusError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => UbusError::Timeout,
        _ => UbusError::NotConnected,
    }
}
