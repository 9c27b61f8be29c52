//! The bus: a broker, objects on it, and calls to them.

use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use ubus_zero::client::UbusClient;
use ubus_zero::json::{blobmsg_to_json, json_to_blobmsg};
use ubus_zero::server::{DispatchOutcome, UbusConnection};
use ubus_zero::unix::UnixUbusTransport;
use ubus_zero::{Transport, UbusError, UbusObject};
use ubusd::{Broker, Config};

/// A broker that ends when dropped.
#[derive(Debug)]
pub struct Bus {
    socket: PathBuf,
    end: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Bus {
    /// A broker at this socket.
    pub fn new(socket: &Path) -> Self {
        let config = Config { socket_path: socket.to_str().unwrap().into(), ..Config::default() };
        let mut broker = Broker::bind(config).unwrap();
        let (wake, end) = std::io::pipe().unwrap();
        broker.set_wake_pipe(wake.into());
        let thread = std::thread::spawn(move || broker.run().unwrap());
        Self { socket: socket.to_owned(), end, thread: Some(thread) }
    }

    /// Calls a method.
    pub fn call(&self, object: &str, method: &str, args: &Value) -> Result<Value, UbusError> {
        let mut transport = connect(&self.socket);
        transport.set_deadline(Some(super::PATIENCE));
        let mut client = UbusClient::connect(transport)?;
        let id = client.lookup(object)?;
        blobmsg_to_json(&client.invoke(id, method, &json_to_blobmsg(args)?)?)
    }

    /// Sends an event to whoever listens for it.
    pub fn send_event(&self, name: &str, data: &Value) -> Result<(), UbusError> {
        UbusClient::connect(connect(&self.socket))?.send_event(name, &json_to_blobmsg(data)?)
    }

    /// The names of the objects on the bus.
    pub fn objects(&self) -> Vec<String> {
        let mut client = UbusClient::connect(connect(&self.socket)).unwrap();
        let found = client.lookup_objects(None).unwrap();
        found.into_iter().map(|object| object.path).collect()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // The broker's word for "terminate".
        let _ = self.end.write_all(b"T");
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn connect(socket: &Path) -> UnixUbusTransport {
    UnixUbusTransport::connect(socket.to_str().unwrap()).unwrap()
}

/// An object that is on the bus until it is dropped.
#[derive(Debug)]
pub struct Served {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Puts an object on the bus; it is made on the thread that serves it.
    pub fn new(bus: &Bus, make: impl FnOnce() -> UbusObject + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (stop, socket) = (Arc::clone(&end), bus.socket.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut connection = UbusConnection::connect_and_register(connect(&socket), make()).unwrap();
            ready.send(()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                match connection.poll_one() {
                    // It waits for the next message, but never long.
                    Ok(DispatchOutcome::Idle) => connection.transport_mut().wait_recv(),
                    Ok(_) => {}
                    Err(UbusError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        is_ready.recv().unwrap();
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
