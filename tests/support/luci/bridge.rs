//! What stands between a browser and the agent on a router: files of the web server, and uhttpd's `/ubus` with rpcd's
//! sessions. Calls of `piboot` go to the real agent over the real bus.

use std::collections::HashMap;
use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use ubus_zero::client::UbusClient;
use ubus_zero::envelope::{EnvBuilder, UbusAttr, try_find};
use ubus_zero::json::{blobmsg_to_json, json_to_blobmsg};
use ubus_zero::unix::UnixUbusTransport;
use ubus_zero::{MsgType, UbusError, UbusObject};

use super::cgi::{self, Cgi};
use super::http::{self, Answer, Request};
use super::rights::{Login, Rights};
use super::{page, uci};
use crate::openwrt::ubus::Served;
use crate::openwrt::{Entrance, OpenWrt, PATIENCE};

/// The web server of a router; it answers until the process ends.
pub struct Bridge {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// rpcd's object, for programs that ask it themselves.
    _session: Served,
}

struct Shared {
    router: Entrance,
    ubus: PathBuf,
    roots: Vec<PathBuf>,
    rights: Rights,
    expired: AtomicBool,
    /// Answers that are given instead of the agent's, by method.
    instead: Mutex<HashMap<String, Value>>,
    /// Methods of `piboot` that nobody may call, whatever the package grants.
    denied: Mutex<Vec<String>>,
    /// The program behind `/cgi-bin/piboot-upload`, and how many of its requests from now on break off.
    cgi: Cgi,
    failing_uploads: AtomicUsize,
    /// Calls by method, and those that were denied.
    calls: Mutex<HashMap<String, usize>>,
}

/// LuCI's client: the double, or the real one of a checkout named by `LUCI`.
fn client() -> Vec<PathBuf> {
    match std::env::var_os("LUCI") {
        Some(luci) => ["modules/luci-base", "modules/luci-mod-status", "themes/luci-theme-bootstrap"]
            .map(|part| Path::new(&luci).join(part).join("htdocs"))
            .to_vec(),
        None => vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/luci/double")],
    }
}

/// Whether the client is LuCI's own.
pub fn is_real() -> bool {
    std::env::var_os("LUCI").is_some()
}

impl Bridge {
    pub fn start(router: &OpenWrt) -> Self {
        let mut roots = vec![Path::new(super::APP).join("htdocs")];
        roots.extend(client());
        let shared = Arc::new(Shared {
            router: router.inside(),
            ubus: router.net.scratch().join("tmp/run/ubus/ubus.sock"),
            roots,
            rights: Rights::load(),
            expired: AtomicBool::new(false),
            instead: Mutex::default(),
            denied: Mutex::default(),
            cgi: Cgi::install(router),
            failing_uploads: AtomicUsize::new(0),
            calls: Mutex::default(),
        });
        let asked = shared.clone();
        let session = Served::new(&router.bus, move || asked.session_object());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = server.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    let Some(head) = http::read_head(&mut reader) else { return };
                    if head.path == cgi::UPLOAD {
                        shared.count(cgi::UPLOAD);
                        let fails = &shared.failing_uploads;
                        // Without a job there is nothing to go on with.
                        let failing = head.query.contains("job=")
                            && fails
                                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                                .is_ok();
                        return shared.cgi.run(&head, &mut reader, &stream, failing);
                    }
                    if let Some(request) = http::read_body(head, &mut reader) {
                        http::write(&stream, &shared.answer(&request));
                    }
                });
            }
        });
        Self { address, shared, _session: session }
    }

    /// The address of a page, for a login.
    pub fn page(&self, path: &str, login: Login, scheme: &str) -> String {
        format!("http://{}/cgi-bin/luci/{path}?login={}&scheme={scheme}", self.address, login.name())
    }

    /// From now on no session is known; or they are again.
    pub fn expire(&self, expired: bool) {
        self.shared.expired.store(expired, Ordering::Relaxed);
    }

    /// Answers a method of `piboot` with this instead of asking the agent; or asks it again.
    pub fn instead(&self, method: &str, answer: Option<Value>) {
        let mut instead = self.shared.instead.lock().unwrap();
        match answer {
            Some(answer) => instead.insert(method.to_owned(), answer),
            None => instead.remove(method),
        };
    }

    /// So many of the next pieces that are uploaded break off in the middle.
    pub fn fail_uploads(&self, count: usize) {
        self.shared.failing_uploads.store(count, Ordering::Relaxed);
    }

    /// How often the program for uploads was asked.
    pub fn uploads(&self) -> usize {
        self.calls(cgi::UPLOAD)
    }

    /// From now on nobody may call a method of `piboot`.
    pub fn deny(&self, method: &str) {
        self.shared.denied.lock().unwrap().push(method.to_owned());
    }

    /// How often a method of `piboot` was called; `denied` counts what was not let through.
    pub fn calls(&self, method: &str) -> usize {
        self.shared.calls.lock().unwrap().get(method).copied().unwrap_or_default()
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        let parameter = |name: &str| {
            let mut pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        // What a page fetches is fetched for whom the page is for.
        let page = format!("login={}", parameter("login"));
        let is_for = |login: &Login| {
            [page.as_str(), &request.referer].iter().any(|q| q.contains(&format!("login={}", login.name())))
        };
        let login = Login::ALL.into_iter().find(is_for).unwrap_or(Login::Admin);
        if request.path.trim_end_matches('/') == "/ubus" {
            return Answer::ok("application/json", self.ubus(&request.body).to_string());
        }
        if let Some(file) = request.path.strip_prefix("/luci-static/") {
            return self.file(file);
        }
        match request.path.strip_prefix("/cgi-bin/luci/") {
            Some("admin/translations/en") => Answer::ok("text/javascript", "window.TR = {};"),
            Some("admin/menu") => Answer::ok("application/json", page::menu(login).to_string()),
            Some("admin/uci/apply_rollback" | "admin/uci/apply_unchecked") => {
                self.apply();
                Answer::ok("application/json", r#"{"token":"0"}"#)
            }
            Some("admin/uci/confirm") => Answer { status: "204 No Content", kind: "text/plain", body: Vec::new() },
            Some(path) => match page::render(path, login, &parameter("scheme")) {
                Some(page) => Answer::ok("text/html; charset=UTF-8", page),
                None => Answer::not_found(),
            },
            None => Answer::not_found(),
        }
    }

    fn file(&self, path: &str) -> Answer {
        let kind = match path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=UTF-8",
            Some("css") => "text/css",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        };
        let whole = self.roots.iter().map(|root| root.join("luci-static").join(path)).find(|path| path.is_file());
        match whole.filter(|_| !path.contains("..")) {
            Some(whole) => Answer::ok(kind, std::fs::read(whole).unwrap()),
            None => Answer::not_found(),
        }
    }

    fn apply(&self) {
        uci::apply(self.router);
        let event = json!({ "type": "config.change", "data": { "package": "piboot" } });
        let mut client = self.client().unwrap();
        let service = client.lookup("service").unwrap();
        client.invoke(service, "event", &json_to_blobmsg(&event).unwrap()).unwrap();
    }

    // --- JSON-RPC, as uhttpd-mod-ubus has it

    fn ubus(&self, body: &[u8]) -> Value {
        match serde_json::from_slice(body) {
            Ok(Value::Array(calls)) => calls.iter().map(|call| self.message(call)).collect(),
            Ok(call) => self.message(&call),
            Err(_) => json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32700, "message": "Parse error" } }),
        }
    }

    fn message(&self, call: &Value) -> Value {
        let said = match (call["method"].as_str(), call["params"].as_array().map(Vec::as_slice)) {
            (Some("list"), _) => Ok(json!({})),
            (
                Some("call"),
                Some([Value::String(session), Value::String(object), Value::String(method), Value::Object(params)]),
            ) if !params.contains_key("ubus_rpc_session") => self.call(session, object, method, params),
            _ => Err((-32600, "Invalid request")),
        };
        match said {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": code, "message": message } })
            }
        }
    }

    fn call(
        &self,
        session: &str,
        object: &str,
        method: &str,
        params: &Map<String, Value>,
    ) -> Result<Value, (i32, &'static str)> {
        // uhttpd looks for the object first, then asks whether the session may.
        let known = matches!(object, "session" | "uci" | "luci" | "file");
        let agent = if object == "piboot" { self.find(object) } else { None };
        if !known && agent.is_none() {
            return Err((-32000, "Object not found"));
        }
        let login = Login::of_session(session).filter(|_| !self.expired.load(Ordering::Relaxed));
        let Some(login) = login.filter(|login| self.may_call(*login, object, method)) else {
            self.count("denied");
            return Err((-32002, "Access denied"));
        };
        let (status, data) = match object {
            "piboot" => {
                self.count(method);
                let instead = self.instead.lock().unwrap().get(method).cloned();
                match instead {
                    Some(answer) => (0, Some(answer)),
                    None => self.invoke(object, method, params, session).ok_or((-32000, "Object not found"))?,
                }
            }
            "session" => (0, Some(json!({ "access": self.access(login, params) }))),
            "luci" => (0, Some(json!({}))),
            "file" => match method {
                "list" => (0, Some(json!({ "entries": [{ "name": "60_piboot.js", "type": "file" }] }))),
                _ => (4, None),
            },
            _ => {
                let package = params.get("config").and_then(Value::as_str).unwrap_or_default();
                let write = matches!(method, "set" | "delete" | "add");
                if package == "luci" {
                    (0, Some(json!({ "values": {} })))
                } else if method == "changes" || self.rights.may_uci(login, package, write) {
                    uci::call(self.router, method, &Value::Object(params.clone()))
                } else {
                    (6, None)
                }
            }
        };
        // As uhttpd: an empty table is none.
        Ok(match data.filter(|data| *data != json!({})) {
            Some(data) => json!([status, data]),
            None => json!([status]),
        })
    }

    /// `session access`: forms ask whether they may change their configuration.
    fn access(&self, login: Login, params: &Map<String, Value>) -> bool {
        let parameter = |name: &str| params.get(name).and_then(Value::as_str).unwrap_or_default();
        let (object, function) = (parameter("object"), parameter("function"));
        match parameter("scope") {
            "uci" => self.rights.may_uci(login, object, function == "write"),
            "ubus" => self.may_call(login, object, function),
            _ => false,
        }
    }

    /// rpcd's `session`, as far as a program asks it (its session.c, rpc_handle_access).
    fn session_object(self: Arc<Self>) -> UbusObject {
        UbusObject::new("session").method("access", move |args| {
            let args = blobmsg_to_json(args)?;
            let session = args["ubus_rpc_session"].as_str().unwrap_or_default();
            let login = Login::of_session(session).filter(|_| !self.expired.load(Ordering::Relaxed));
            let Some(login) = login else { return Err(UbusError::Status(4)) };
            json_to_blobmsg(&json!({ "access": self.access(login, args.as_object().unwrap()) }))
        })
    }

    fn may_call(&self, login: Login, object: &str, method: &str) -> bool {
        let denied = object == "piboot" && self.denied.lock().unwrap().iter().any(|denied| denied == method);
        !denied && self.rights.may_call(login, object, method)
    }

    fn count(&self, method: &str) {
        *self.calls.lock().unwrap().entry(method.to_owned()).or_default() += 1;
    }

    // --- ubus

    fn client(&self) -> Option<UbusClient<UnixUbusTransport>> {
        let mut transport = UnixUbusTransport::connect(self.ubus.to_str().unwrap()).ok()?;
        transport.set_deadline(Some(PATIENCE));
        UbusClient::connect(transport).ok()
    }

    fn find(&self, object: &str) -> Option<u32> {
        self.client()?.lookup(object).ok()
    }

    /// Status and data: uhttpd passes on both, whatever the status.
    fn invoke(
        &self,
        object: &str,
        method: &str,
        params: &Map<String, Value>,
        session: &str,
    ) -> Option<(i32, Option<Value>)> {
        let mut client = self.client()?;
        let id = client.lookup(object).ok()?;
        let mut params = params.clone();
        params.insert("ubus_rpc_session".into(), session.into());
        let mut envelope = EnvBuilder::new();
        envelope.push_u32(UbusAttr::ObjId, id);
        envelope.push_str(UbusAttr::Method, method);
        envelope.push_data(json_to_blobmsg(&Value::Object(params)).unwrap().contents());
        let mut said = None;
        let ended = client.request(MsgType::Invoke, id, envelope, |frame| {
            if let Some(data) = try_find(&frame.payload, UbusAttr::Data)? {
                said = Some(blobmsg_to_json(data.payload)?);
            }
            Ok(())
        });
        match ended {
            Ok(()) => Some((0, said)),
            Err(UbusError::Status(status)) => Some((status, said)),
            Err(_) => Some((10, None)),
        }
    }
}
