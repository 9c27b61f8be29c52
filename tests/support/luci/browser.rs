//! A headless Chromium, driven over its DevTools protocol through a pair of pipes: JSON messages with a zero byte between.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take on a loaded machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a page is asked while waiting for it.
const POLL: Duration = Duration::from_millis(25);

/// It reads commands from descriptor 3 and writes to 4.
const LAUNCH: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >&2"#;

pub struct Browser {
    process: Child,
    commands: RefCell<ChildStdin>,
    messages: Receiver<Value>,
    next: Cell<u64>,
    _profile: tempfile::TempDir,
}

/// A tab.
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
    /// What pages threw, or wrote to the console as an error.
    errors: RefCell<Vec<String>>,
}

impl Browser {
    pub fn start() -> Self {
        let found = Command::new("chromium").arg("--version").stdin(Stdio::null()).output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "chromium is not here: tests/setup.sh luci installs it"
        );
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", LAUNCH, "sh", "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
            ])
            .args(["--lang=en-US", "--hide-scrollbars", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = RefCell::new(process.stdin.take().unwrap());
        let mut reader = BufReader::new(process.stdout.take().unwrap());
        let (send, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let _ = send.send(serde_json::from_slice(&message).unwrap());
                message.clear();
            }
        });
        Self { process, commands, messages, next: Cell::new(1), _profile: profile }
    }

    /// A new tab of the given size.
    pub fn open(&self, width: u32, height: u32) -> Page<'_> {
        let errors = RefCell::default();
        let target = self.call(None, "Target.createTarget", &json!({ "url": "about:blank" }), &errors);
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call(None, "Target.attachToTarget", &attach, &errors);
        let page = Page { browser: self, session: session["sessionId"].as_str().unwrap().to_owned(), errors };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), &json!({}));
        }
        page.resize(width, height, false);
        page
    }

    fn call(&self, session: Option<&str>, method: &str, params: &Value, errors: &RefCell<Vec<String>>) -> Value {
        let id = self.next.replace(self.next.get() + 1);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.borrow_mut().write_all(&bytes).unwrap();
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            note(&message, errors);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn note(message: &Value, errors: &RefCell<Vec<String>>) {
    let params = &message["params"];
    let said = match message["method"].as_str() {
        Some("Runtime.exceptionThrown") => &params["exceptionDetails"]["exception"]["description"],
        Some("Log.entryAdded") if params["entry"]["level"] == "error" => &params["entry"]["text"],
        Some("Runtime.consoleAPICalled") if params["type"] == "error" => &params["args"],
        _ => return,
    };
    errors.borrow_mut().push(format!("{said} {}", params["entry"]["url"]));
}

impl Page<'_> {
    fn call(&self, method: &str, params: &Value) -> Value {
        self.browser.call(Some(&self.session), method, params, &self.errors)
    }

    pub fn resize(&self, width: u32, height: u32, phone: bool) {
        let metrics = json!({
            "width": width, "height": height, "screenWidth": width, "screenHeight": height,
            "deviceScaleFactor": 1, "mobile": phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
    }

    pub fn go(&self, url: &str) {
        // A page of the same address with another fragment would not be loaded anew.
        self.call("Page.navigate", &json!({ "url": "about:blank" }));
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// The value of a JavaScript expression; a promise is waited for.
    #[track_caller]
    pub fn eval(&self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let said = self.call("Runtime.evaluate", &params);
        assert!(said["exceptionDetails"].is_null(), "{expression}: {}", said["exceptionDetails"]);
        said["result"]["value"].clone()
    }

    /// Waits until an expression is true. It may throw in the meantime.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let begun = Instant::now();
        let guarded = format!("(() => {{ try {{ return !!({expression}) }} catch (e) {{ return false }} }})()");
        while self.eval(&guarded) != true {
            if begun.elapsed() > PATIENCE {
                let text = self.eval("document.body.innerText");
                panic!(
                    "it did not come about: {expression}\n{}\n{:#?}",
                    text.as_str().unwrap_or_default(),
                    self.errors
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the page shows these words.
    #[track_caller]
    pub fn wait_text(&self, words: &str) {
        self.wait(&format!("document.body.innerText.includes({})", json!(words)));
    }

    pub fn text(&self, selector: &str) -> String {
        self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector))).as_str().unwrap().to_owned()
    }

    /// Clicks in the middle of the element that an expression gives, once it is there and can be clicked.
    #[track_caller]
    pub fn click_on(&self, element: &str) {
        self.wait(&format!("{element} && !{element}.disabled"));
        let place = self.eval(&format!(
            "(() => {{ const e = {element}; e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const r = e.getBoundingClientRect(); return {{ x: r.x + r.width / 2, y: r.y + r.height / 2 }} }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    pub fn click(&self, selector: &str) {
        self.click_on(&format!("document.querySelector({})", json!(selector)));
    }

    /// Clicks the button or link with these words in the part of the page that a selector names.
    #[track_caller]
    pub fn click_button(&self, within: &str, label: &str) {
        self.click_on(&format!(
            "[...document.querySelectorAll({} + ' :is(button, a)')].find(e => e.innerText.trim() == {})",
            json!(within),
            json!(label)
        ));
    }

    /// Chooses a file in a field for files, as its dialog does.
    #[track_caller]
    pub fn choose_file(&self, selector: &str, file: &Path) {
        let params = json!({ "expression": format!("document.querySelector({})", json!(selector)) });
        let element = self.call("Runtime.evaluate", &params)["result"]["objectId"].clone();
        assert!(element.is_string(), "{selector} is not there");
        self.call("DOM.setFileInputFiles", &json!({ "files": [file], "objectId": element }));
    }

    /// Chooses an entry of a list by its value.
    #[track_caller]
    pub fn choose(&self, selector: &str, value: &str) {
        let list = format!("document.querySelector({})", json!(selector));
        self.wait(&format!("[...{list}.options].some(option => option.value == {})", json!(value)));
        self.eval(&format!(
            "{list}.value = {}; ['input', 'change'].forEach(kind => {list}.dispatchEvent(new Event(kind, {{ bubbles: true }})))",
            json!(value)
        ));
    }

    /// Puts text into a field, as typing does, instead of what is there.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.click(selector);
        self.eval(&format!("document.querySelector({}).select()", json!(selector)));
        if text.is_empty() {
            for kind in ["keyDown", "keyUp"] {
                self.call(
                    "Input.dispatchKeyEvent",
                    &json!({ "type": kind, "key": "Delete", "code": "Delete", "windowsVirtualKeyCode": 46 }),
                );
            }
        } else {
            self.call("Input.insertText", &json!({ "text": text }));
        }
    }

    /// Whether the page is seen, as when its tab is in front.
    pub fn hide(&self, hidden: bool) {
        let state = if hidden { "hidden" } else { "visible" };
        self.eval(&format!(
            "Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }}); \
             Object.defineProperty(document, 'visibilityState', {{ configurable: true, get: () => '{state}' }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        ));
    }

    /// Keeps a picture of the whole page in `target/luci-screens`.
    #[track_caller]
    pub fn screenshot(&self, name: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/luci-screens");
        fs::create_dir_all(&directory).unwrap();
        self.save(&directory.join(format!("{name}.png")));
    }

    /// Takes a picture of the whole page, once nothing fades in any more.
    #[track_caller]
    pub fn save(&self, file: &Path) {
        self.wait("!document.getAnimations().some(a => a.playState == 'running' && isFinite(a.effect.getComputedTiming().endTime))");
        let said = self.call("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        fs::write(file, decode(said["data"].as_str().unwrap())).unwrap();
    }

    /// Asserts that nothing was thrown or logged as an error, but what contains one of `but`.
    #[track_caller]
    pub fn assert_no_errors(&self, but: &[&str]) {
        self.eval("0");
        let errors = self.errors.borrow();
        let left: Vec<&String> = errors.iter().filter(|error| !but.iter().any(|words| error.contains(words))).collect();
        assert!(left.is_empty(), "{left:#?}");
    }
}

/// Base64, RFC 4648 §4.
fn decode(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        (bits, held) = (bits << 6 | u32::from(digit(c)), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
