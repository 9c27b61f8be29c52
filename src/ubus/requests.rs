//! What we asked and have not had an answer to.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use ubus_zero::BlobMsgTable;

use super::message::Message;
use super::object::MAX_ANSWER;
use super::{UbusError, value};

/// Requests without an answer at most: a broker that leaves more unanswered is not asked anything else.
const MAX_REQUESTS: usize = 512;
/// Room that the names of object and method may take in a message.
const MAX_NAME: usize = 1024;

/// What comes of a call.
pub(super) type Answer = Result<Value, UbusError>;

/// What a request was for.
pub(super) enum Purpose {
    /// To have our object without a name.
    Listener,
    /// To have the object `piboot`.
    Object,
    /// To hear events.
    Listen(&'static str),
    /// To send an event.
    Send,
    /// To find objects worth watching.
    Lookup,
    /// To subscribe to the object with this number.
    Watch(u32),
    /// To find the object of a call.
    Resolve(Outgoing),
    /// The call.
    Invoke(Outgoing),
}

/// A call of another object.
pub(super) struct Outgoing {
    pub(super) object: String,
    pub(super) method: String,
    pub(super) args: BlobMsgTable,
    until: Instant,
    answer: Option<Answer>,
    reply: SyncSender<Answer>,
}

impl Outgoing {
    pub(super) fn new(
        object: &str,
        method: &str,
        args: &Value,
        timeout: Duration,
        reply: SyncSender<Answer>,
    ) -> Result<Self, UbusError> {
        let room = MAX_ANSWER - 2 * MAX_NAME;
        let args = value::encode(args, room)?;
        if object.len().max(method.len()) > MAX_NAME {
            return Err(value::ValueError::LongName.into());
        }
        let (object, method) = (object.to_owned(), method.to_owned());
        Ok(Self { object, method, args, until: Instant::now() + timeout, answer: None, reply })
    }

    fn reply(self, answer: Answer) {
        // Whoever asked may have given up.
        let _ = self.reply.try_send(answer);
    }

    /// The other side's last word.
    pub(super) fn end(mut self, status: u32) {
        let answer = self.answer.take();
        self.reply(match status {
            0 => answer.unwrap_or_else(|| Ok(Value::Object(serde_json::Map::new()))),
            status => Err(UbusError::Status(status)),
        });
    }

    /// The object is not to be had.
    pub(super) fn fail(self, status: u32) {
        let not_found = ubus_zero::wire::UBUS_STATUS_NOT_FOUND.cast_unsigned();
        self.reply(Err(UbusError::Status(if status == 0 { not_found } else { status })));
    }

    /// There is nobody to ask.
    pub(super) fn refuse(self, why: UbusError) {
        self.reply(Err(why));
    }
}

struct Request {
    /// To whom it went; answers come from there.
    peer: u32,
    purpose: Purpose,
    /// The object that an answer named.
    object: Option<u32>,
}

/// The requests by their number.
#[derive(Default)]
pub(super) struct Requests {
    last: u16,
    pending: BTreeMap<u16, Request>,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// A number for a request to which no answer will come.
    pub(super) fn unanswered(&mut self) -> u16 {
        // Far fewer are pending than there are numbers.
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.pending.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// A number for a request, unless too many have no answer.
    pub(super) fn begin(&mut self, peer: u32, purpose: Purpose) -> Option<u16> {
        if self.pending.len() >= MAX_REQUESTS {
            if let Purpose::Resolve(call) | Purpose::Invoke(call) = purpose {
                call.refuse(UbusError::Busy);
            }
            return None;
        }
        let seq = self.unanswered();
        self.pending.insert(seq, Request { peer, purpose, object: None });
        Some(seq)
    }

    /// What the request was for that a message answers. Who was not asked does not count.
    pub(super) fn get(&self, message: &Message<'_>) -> Option<&Purpose> {
        self.pending.get(&message.seq).filter(|request| request.peer == message.peer).map(|request| &request.purpose)
    }

    /// Takes the data of an answer.
    pub(super) fn data(&mut self, message: &Message<'_>) {
        let Some(request) = self.pending.get_mut(&message.seq).filter(|r| r.peer == message.peer) else { return };
        match &mut request.purpose {
            Purpose::Invoke(call) => {
                let data = message.attributes.data.unwrap_or_default();
                call.answer = Some(value::decode(data).map_err(UbusError::from));
            }
            _ => request.object = message.attributes.object.filter(|id| *id != 0),
        }
    }

    /// The request that a status ends, and the object that its answer named.
    pub(super) fn end(&mut self, message: &Message<'_>) -> Option<(Purpose, Option<u32>)> {
        self.get(message)?;
        let request = self.pending.remove(&message.seq)?;
        Some((request.purpose, request.object))
    }

    /// Ends the calls whose time is up.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_late = |_: &u16, request: &mut Request| match &request.purpose {
            Purpose::Resolve(call) | Purpose::Invoke(call) => call.until <= now,
            _ => false,
        };
        for (_, request) in self.pending.extract_if(.., is_late) {
            if let Purpose::Resolve(call) | Purpose::Invoke(call) = request.purpose {
                call.refuse(UbusError::Timeout);
            }
        }
    }
}
