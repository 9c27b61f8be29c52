//! A ubus broker in this process and clients of it, none of which share code with the agent's side but the wire format's
//! lowest layer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ubus_zero::blobmsg::BlobMsgTable;
use ubus_zero::client::UbusClient;
use ubus_zero::envelope::{EnvBuilder, UbusAttr, try_find};
use ubus_zero::json::{blobmsg_to_json, json_to_blobmsg};
use ubus_zero::unix::UnixUbusTransport;
use ubus_zero::{MsgType, UbusError};

use super::PATIENCE;

/// How long the broker waits before it looks whether it is to go on.
const TURN_MS: i32 = 10;

/// A broker; dropped, it is gone with all its connections.
pub struct Broker {
    socket: PathBuf,
    ends: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    pub fn start(socket: &Path) -> Self {
        let config = ubusd::Config { socket_path: socket.to_str().unwrap().to_owned(), ..Default::default() };
        let mut broker = ubusd::Broker::bind(config).unwrap();
        let (ends, hangs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_over, is_hung) = (ends.clone(), hangs.clone());
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                if is_hung.load(Ordering::Relaxed) {
                    std::thread::park_timeout(PATIENCE);
                } else {
                    broker.poll_once(TURN_MS).unwrap();
                }
            }
        });
        Self { socket: socket.to_owned(), ends, hangs, thread: Some(thread) }
    }

    /// Has it do nothing any more, with all its connections open; or go on.
    pub fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
        self.thread.as_ref().unwrap().thread().unpark();
        // It ends the turn that it is in.
        std::thread::sleep(Duration::from_millis(3 * TURN_MS.cast_unsigned() as u64));
    }

    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        thread.join().unwrap();
        // Nobody finds it.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What a client is told: event or notification, with its data.
pub type Told = (String, Value);

pub struct Client(pub UbusClient<UnixUbusTransport>);

impl Client {
    pub fn new(socket: &Path) -> Self {
        let transport = UnixUbusTransport::connect(socket.to_str().unwrap()).unwrap();
        Self(UbusClient::connect(transport).unwrap())
    }

    /// Number and signature of an object, once it is there.
    pub fn wait_for(&mut self, path: &str) -> (u32, Value) {
        let begun = Instant::now();
        loop {
            let objects = match self.0.lookup_objects(Some(path)) {
                Ok(objects) => objects,
                Err(UbusError::Status(4)) => Vec::new(),
                Err(error) => panic!("{error}"),
            };
            if let Some(object) = objects.into_iter().find(|object| object.path == path) {
                return (object.id, blobmsg_to_json(&object.signature).unwrap());
            }
            assert!(begun.elapsed() < PATIENCE, "no object '{path}'");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Status and data of a call of `piboot`.
    pub fn call(&mut self, method: &str, params: &Value) -> (i32, Value) {
        self.call_raw(method, json_to_blobmsg(params).unwrap().contents())
    }

    /// The same with bytes for parameters.
    pub fn call_raw(&mut self, method: &str, params: &[u8]) -> (i32, Value) {
        let (id, _) = self.wait_for("piboot");
        let mut envelope = EnvBuilder::new();
        envelope.push_u32(UbusAttr::ObjId, id);
        envelope.push_str(UbusAttr::Method, method);
        envelope.push_data(params);
        let mut said = Value::Null;
        let ended = self.0.request(MsgType::Invoke, id, envelope, |frame| {
            assert_eq!(said, Value::Null, "two answers");
            let data = try_find(&frame.payload, UbusAttr::Data)?.unwrap();
            said = blobmsg_to_json(data.payload)?;
            Ok(())
        });
        match ended {
            Ok(()) => (0, said),
            Err(UbusError::Status(status)) => (status, said),
            Err(error) => panic!("{method}: {error}"),
        }
    }

    /// Hears events of a pattern, or the notifications of an object, from now on.
    pub fn listen(&mut self, pattern: &str) {
        let object = self.0.add_anonymous_object().unwrap();
        self.0.register_event(object, pattern).unwrap();
    }

    pub fn subscribe(&mut self, path: &str) {
        let (id, _) = self.wait_for(path);
        let object = self.0.add_anonymous_object().unwrap();
        self.0.subscribe(object, id).unwrap();
    }

    /// Waits until something is told that satisfies `until`; all that was told so far.
    pub fn hear(&mut self, what: &str, until: impl Fn(&str, &Value) -> bool) -> Vec<Told> {
        let (begun, mut told) = (Instant::now(), Vec::new());
        loop {
            assert!(begun.elapsed() < PATIENCE, "{what}: only {told:#?}");
            let Some(frame) = self.0.recv_frame().unwrap() else {
                self.0.transport_mut().set_deadline(Some(PATIENCE));
                ubus_zero::Transport::wait_recv(self.0.transport_mut());
                continue;
            };
            if frame.hdr.ty != MsgType::Invoke {
                continue;
            }
            let method = try_find(&frame.payload, UbusAttr::Method).unwrap().and_then(|a| a.as_str()).unwrap();
            let data = try_find(&frame.payload, UbusAttr::Data).unwrap().map(|a| a.payload).unwrap_or_default();
            told.push((method.to_owned(), blobmsg_to_json(data).unwrap()));
            if until(method, &told[told.len() - 1].1) {
                return told;
            }
        }
    }

    /// Registers an object without methods, which others can subscribe to.
    pub fn publish(&mut self, path: &str) -> u32 {
        let mut envelope = EnvBuilder::new();
        envelope.push_str(UbusAttr::ObjPath, path);
        envelope.push_signature(&[]);
        let mut id = None;
        let registered = self.0.request(MsgType::AddObject, 0, envelope, |frame| {
            id = try_find(&frame.payload, UbusAttr::ObjId)?.and_then(|a| a.as_u32());
            Ok(())
        });
        registered.unwrap();
        id.unwrap()
    }

    /// Waits until an object of ours has a subscriber.
    pub fn wait_for_subscriber(&mut self, id: u32) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "nobody subscribed");
            let Some(frame) = self.0.recv_frame().unwrap() else {
                self.0.transport_mut().set_deadline(Some(PATIENCE));
                ubus_zero::Transport::wait_recv(self.0.transport_mut());
                continue;
            };
            let number = |attribute| try_find(&frame.payload, attribute).unwrap().and_then(|a| a.as_u32());
            let active = try_find(&frame.payload, UbusAttr::Active).unwrap().is_some_and(|a| a.as_bool_int8());
            if frame.hdr.ty == MsgType::Notify && number(UbusAttr::ObjId) == Some(id) && active {
                return;
            }
        }
    }

    /// Notifies the subscribers of an object of ours.
    pub fn notify(&mut self, id: u32, what: &str, data: &Value) {
        let mut envelope = EnvBuilder::new();
        envelope.push_u8(UbusAttr::NoReply, 1);
        envelope.push_u32(UbusAttr::ObjId, id);
        envelope.push_str(UbusAttr::Method, what);
        envelope.push_data(json_to_blobmsg(data).unwrap().contents());
        let frame = ubus_zero::wire::Frame::to_broker(MsgType::Notify, 0x7000, envelope.finish());
        ubus_zero::Transport::send(self.0.transport_mut(), &frame).unwrap();
    }

    pub fn send_event(&mut self, id: &str, data: &Value) {
        let table: BlobMsgTable = json_to_blobmsg(data).unwrap();
        self.0.send_event(id, &table).unwrap();
    }
}

/// The error of an answer, as both transports word it.
pub fn error(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}
