//! One connection's worth of protocol, without the connection: messages go in, bytes come out.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use ubus_zero::blobmsg::lookup;
use ubus_zero::envelope::{EnvBuilder, UbusAttr};
use ubus_zero::wire::{UBUS_STATUS_INVALID_ARGUMENT, UBUS_STATUS_METHOD_NOT_FOUND, UBUS_STATUS_NOT_FOUND};
use ubus_zero::{BlobMsgTable, MsgType};

use super::message::{self, Message};
pub(super) use super::requests::{Answer, Outgoing};
use super::requests::{Purpose, Requests};
use super::{Notice, object, value};
use crate::api::ApiError;

/// The broker's own object for events (UBUS_SYSTEM_OBJECT_EVENT).
const EVENTS: u32 = 1;
/// Events listened for.
const PATTERNS: [&str; 2] = ["ubus.object.add", "network.interface"];
/// Objects whose notifications are listened to: procd's, and those of each dnsmasq (`dnsmasq`, `dnsmasq.cfg01411c`).
const PUBLISHERS: [&str; 2] = ["service", "dnsmasq*"];
/// Instances of dnsmasq subscribed to at most, besides the two that have fixed names; a router has a handful. Whose an object
/// is the broker does not tell, only its ACLs decide who may have which name: root any, user dnsmasq `dnsmasq`.
const MAX_INSTANCES: usize = 32;
/// Longest name of an object that is subscribed to.
const MAX_PATH: usize = 128;
/// Whose word on the configuration counts, procd's. The broker lets any user of the system call an object that has no
/// name, and says who it is.
const CONFIG_USER: &str = "root";
/// Whose word on leases counts.
const LEASE_USERS: [&str; 2] = ["root", "dnsmasq"];
/// Longest parameters of a call, as on the local socket.
const MAX_PARAMS: usize = 256 * 1024;
/// Longest name of a method that is looked at.
const MAX_METHOD: usize = 256;
/// Longest data of an event.
const MAX_EVENT: usize = 64 * 1024;

/// Why a connection is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the ubus object 'piboot' is another process's, or the broker's ACLs do not let this user publish it")]
    Taken,
    #[error("the ubus broker refuses the object 'piboot' (status {0}): see its ACLs")]
    Refused(u32),
    #[error("the ubus broker gave an object no number")]
    NoNumber,
}

/// Who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    peer: u32,
    seq: u16,
    object: u32,
    no_reply: bool,
}

/// A call of a method of `piboot`.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) caller: Caller,
    pub(super) method: String,
    pub(super) params: Result<Value, ApiError>,
}

/// Who tells something, as far as the broker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender<'a> {
    /// The broker passes an event on, or tells of an object (such events nobody else can send).
    Broker,
    /// A client that notifies its subscribers, or called by itself, with the name of its user.
    User(Option<&'a str>),
}

/// What is known on one connection.
pub(super) struct Session {
    /// Bytes for the broker.
    pub(super) out: Vec<u8>,
    requests: Requests,
    /// Our object without a name, which hears events and notifications; 0 before it has a number.
    listener: u32,
    /// The object `piboot`; likewise.
    object: u32,
    has_subscribers: bool,
    /// Numbers of the objects subscribed to, by their names: no two have the same.
    watched: BTreeMap<String, u32>,
    notices: mpsc::Sender<Notice>,
}

impl Session {
    pub(super) fn new(notices: mpsc::Sender<Notice>) -> Self {
        let (requests, watched) = (Requests::default(), BTreeMap::new());
        Self { out: Vec::new(), requests, listener: 0, object: 0, has_subscribers: false, watched, notices }
    }

    /// Whether `piboot` is on the bus.
    pub(super) const fn is_registered(&self) -> bool {
        self.object != 0
    }

    /// Whether a call of ours waits for its answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Gives up on calls that took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.requests.expire(now);
    }

    /// Takes a message; a call of ours comes back out.
    pub(super) fn take(&mut self, message: &Message<'_>) -> Result<Option<Invocation>, SessionError> {
        let attributes = &message.attributes;
        match message.kind {
            MsgType::Hello if self.listener == 0 => {
                self.request(MsgType::AddObject, 0, EnvBuilder::new(), Purpose::Listener);
            }
            MsgType::Data => {
                if let Some(Purpose::Lookup) = self.requests.get(message)
                    && let (Some(path), Some(id)) = (attributes.path, attributes.object)
                {
                    self.watch(path, id);
                } else {
                    self.requests.data(message);
                }
            }
            MsgType::Status => self.ended(message)?,
            MsgType::Invoke => return Ok(self.invoked(message)),
            MsgType::Notify if attributes.object == Some(self.object) => {
                self.has_subscribers = attributes.active.unwrap_or(self.has_subscribers);
            }
            MsgType::Unsubscribe => self.watched.retain(|_, id| Some(*id) != attributes.target),
            _ => {}
        }
        Ok(None)
    }

    // === what we ask of the broker ===

    fn request(&mut self, kind: MsgType, peer: u32, envelope: EnvBuilder, purpose: Purpose) {
        if let Some(seq) = self.requests.begin(peer, purpose) {
            message::write(&mut self.out, kind, seq, peer, envelope);
        }
    }

    fn invoke(&mut self, object: u32, method: &str, args: &BlobMsgTable, purpose: Purpose) {
        let mut envelope = EnvBuilder::new();
        envelope.push_u32(UbusAttr::ObjId, object);
        envelope.push_str(UbusAttr::Method, method);
        envelope.push_data(args.contents());
        self.request(MsgType::Invoke, object, envelope, purpose);
    }

    fn ended(&mut self, message: &Message<'_>) -> Result<(), SessionError> {
        let status = message.attributes.status.unwrap_or_default();
        let Some((purpose, id)) = self.requests.end(message) else { return Ok(()) };
        match purpose {
            Purpose::Listener if status == 0 => {
                self.listener = id.ok_or(SessionError::NoNumber)?;
                for pattern in PATTERNS {
                    // The number goes as the bits it has: blobmsg does not know unsigned.
                    let args = BlobMsgTable::build(|table| {
                        table.put_i32(Some("object"), self.listener.cast_signed());
                        table.put_str(Some("pattern"), pattern);
                    });
                    self.invoke(EVENTS, "register", &args, Purpose::Listen(pattern));
                }
                for publisher in PUBLISHERS {
                    let mut envelope = EnvBuilder::new();
                    envelope.push_str(UbusAttr::ObjPath, publisher);
                    self.request(MsgType::Lookup, 0, envelope, Purpose::Lookup);
                }
                let mut envelope = EnvBuilder::new();
                envelope.push_str(UbusAttr::ObjPath, object::PATH);
                envelope.push_signature(&object::signature());
                self.request(MsgType::AddObject, 0, envelope, Purpose::Object);
            }
            Purpose::Object if status == 0 => {
                self.object = id.ok_or(SessionError::NoNumber)?;
                self.tell(Notice::Connected);
            }
            // ubusd has one status for both.
            Purpose::Object if status == UBUS_STATUS_INVALID_ARGUMENT.cast_unsigned() => {
                return Err(SessionError::Taken);
            }
            Purpose::Listener | Purpose::Object => return Err(SessionError::Refused(status)),
            Purpose::Listen(pattern) if status != 0 => {
                log::warn!("the ubus broker does not let piboot listen for {pattern} (status {status})");
            }
            Purpose::Watch(target) if status != 0 => self.watched.retain(|_, id| *id != target),
            Purpose::Resolve(call) => match id {
                Some(id) if status == 0 => {
                    let Outgoing { method, args, .. } = &call;
                    let (method, args) = (method.clone(), args.clone());
                    self.invoke(id, &method, &args, Purpose::Invoke(call));
                }
                _ => call.fail(status),
            },
            Purpose::Invoke(call) => call.end(status),
            Purpose::Listen(_) | Purpose::Send | Purpose::Lookup | Purpose::Watch(_) => {}
        }
        Ok(())
    }

    /// Calls another object.
    pub(super) fn call(&mut self, call: Outgoing) {
        let mut envelope = EnvBuilder::new();
        envelope.push_str(UbusAttr::ObjPath, &call.object);
        self.request(MsgType::Lookup, 0, envelope, Purpose::Resolve(call));
    }

    /// Broadcasts an event, and notifies subscribers of it.
    pub(super) fn event(&mut self, id: &str, data: &Value) {
        if !self.is_registered() {
            return;
        }
        let data = match value::encode(data, MAX_EVENT) {
            Ok(data) => data,
            Err(error) => return log::debug!("event {id} was not sent: {error}"),
        };
        let args = BlobMsgTable::build(|table| {
            table.put_str(Some("id"), id);
            table.put_table(Some("data"), &data);
        });
        self.invoke(EVENTS, "send", &args, Purpose::Send);
        if self.has_subscribers {
            let mut envelope = EnvBuilder::new();
            envelope.push_u8(UbusAttr::NoReply, 1);
            envelope.push_u32(UbusAttr::ObjId, self.object);
            envelope.push_str(UbusAttr::Method, id);
            envelope.push_data(data.contents());
            let seq = self.requests.unanswered();
            message::write(&mut self.out, MsgType::Notify, seq, 0, envelope);
        }
    }

    // === what others ask and tell ===

    fn invoked(&mut self, message: &Message<'_>) -> Option<Invocation> {
        let attributes = &message.attributes;
        let object = attributes.object?;
        let caller = Caller { peer: message.peer, seq: message.seq, object, no_reply: attributes.no_reply };
        let Some(method) = attributes.method else {
            self.status(caller, UBUS_STATUS_INVALID_ARGUMENT);
            return None;
        };
        if object == self.listener && object != 0 {
            let sender = if message.peer == 0 { Sender::Broker } else { Sender::User(attributes.user) };
            self.told(method, attributes.data.unwrap_or_default(), sender);
            self.status(caller, 0);
            return None;
        }
        if object != self.object {
            self.status(caller, UBUS_STATUS_NOT_FOUND);
            return None;
        }
        let data = attributes.data.unwrap_or_default();
        let params = if data.len() > MAX_PARAMS {
            Err(ApiError::InvalidArgument(format!("the parameters are longer than {MAX_PARAMS} bytes")))
        } else {
            value::decode(data).map_err(|e| ApiError::InvalidArgument(format!("the parameters: {e}")))
        };
        if method.len() > MAX_METHOD {
            self.status(caller, UBUS_STATUS_METHOD_NOT_FOUND);
            return None;
        }
        Some(Invocation { caller, method: method.to_owned(), params })
    }

    /// Answers a call.
    pub(super) fn answer(&mut self, caller: Caller, method: &str, result: Result<Value, ApiError>) {
        if caller.no_reply {
            return;
        }
        let (table, status) = object::answer(method, result);
        let mut envelope = EnvBuilder::new();
        envelope.push_u32(UbusAttr::ObjId, caller.object);
        envelope.push_data(table.contents());
        message::write(&mut self.out, MsgType::Data, caller.seq, caller.peer, envelope);
        self.status(caller, status);
    }

    fn status(&mut self, caller: Caller, status: i32) {
        // Events come from nobody.
        if caller.no_reply || caller.peer == 0 {
            return;
        }
        let mut envelope = EnvBuilder::new();
        envelope.push_i32(UbusAttr::Status, status);
        envelope.push_u32(UbusAttr::ObjId, caller.object);
        message::write(&mut self.out, MsgType::Status, caller.seq, caller.peer, envelope);
    }

    fn told(&mut self, what: &str, data: &[u8], sender: Sender<'_>) {
        let text = |name| lookup(data, name).and_then(|attribute| attribute.as_str());
        let notice = match (what, sender) {
            ("ubus.object.add", Sender::Broker) => {
                let id = lookup(data, "id").and_then(|attribute| attribute.as_i32());
                if let (Some(id), Some(path)) = (id, text("path")) {
                    self.watch(path, id.cast_unsigned());
                }
                None
            }
            // Who may send events is decided by the broker's ACLs: nobody but root, unless they say so.
            ("network.interface", Sender::Broker) => {
                text("interface").zip(text("action")).and_then(|(name, action)| {
                    let up = match action {
                        "ifup" => true,
                        "ifdown" => false,
                        _ => return None,
                    };
                    Some(Notice::Interface { name: name.to_owned(), up })
                })
            }
            ("config.change", Sender::User(Some(CONFIG_USER))) => {
                text("config").map(|package| Notice::ConfigChanged { package: package.to_owned() })
            }
            ("dhcp.ack" | "dhcp.release", Sender::User(Some(user))) if LEASE_USERS.contains(&user) => {
                let mac = text("mac").and_then(|mac| mac.parse().ok());
                let ip = text("ip").and_then(|ip| ip.parse().ok());
                let (interface, present) = (text("interface").unwrap_or_default().to_owned(), what == "dhcp.ack");
                mac.zip(ip).map(|(mac, ip)| Notice::Lease { mac, ip, interface, present })
            }
            _ => None,
        };
        if let Some(notice) = notice {
            self.tell(notice);
        }
    }

    fn tell(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            log::debug!("nobody had time for what ubus told: {error}");
        }
    }

    /// Subscribes to an object, if it is one that tells what we want to know.
    fn watch(&mut self, path: &str, id: u32) {
        let is_instance = |path: &str| path.starts_with("dnsmasq.") && path.len() <= MAX_PATH;
        let has_place = || {
            matches!(path, "service" | "dnsmasq")
                || self.watched.contains_key(path)
                || is_instance(path) && self.watched.keys().filter(|path| is_instance(path)).count() < MAX_INSTANCES
        };
        if self.watched.get(path) == Some(&id) || !has_place() {
            return;
        }
        // Another number under the same name: the object from before is gone.
        self.watched.insert(path.to_owned(), id);
        let mut envelope = EnvBuilder::new();
        envelope.push_u32(UbusAttr::ObjId, self.listener);
        envelope.push_u32(UbusAttr::Target, id);
        self.request(MsgType::Subscribe, 0, envelope, Purpose::Watch(id));
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
