//! A real browser without a screen, driven over the DevTools protocol.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running Chromium with a profile of its own. Dropping it kills it.
pub(crate) struct Browser {
    child: Child,
    socket: RefCell<WebSocket<TcpStream>>,
    last: Cell<u64>,
    events: RefCell<Vec<Value>>,
    _profile: TempDir,
}

impl Browser {
    /// None where there is no Chromium, and tests may be skipped.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// The same with these flags.
    pub(crate) fn with(flags: &[&str]) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                // Root, as which CI runs, has none.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                // It asks for nothing but what a test opens.
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-quic",
                "--remote-debugging-port=0",
                "about:blank",
            ])
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var_os("ETAGD_NO_SKIP").is_none(),
                    "chromium: {error}"
                );
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("skipped: no chromium: {error}");
                }
                return None;
            }
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("DevTools listening on ")?.to_owned()))
            .expect("a browser that listens");
        // It must not wait for somebody to read its other output.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.strip_prefix("ws://").unwrap();
        let stream = TcpStream::connect(address.split('/').next().unwrap()).unwrap();
        let (socket, _) = tungstenite::client(url.as_str(), stream).unwrap();
        Some(Self {
            child,
            socket: RefCell::new(socket),
            last: Cell::new(0),
            events: RefCell::default(),
            _profile: profile,
        })
    }

    /// A new tab on a page, and what happens there.
    pub(crate) fn open(&self, url: &str) -> Page<'_> {
        let new = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let target = new["targetId"].clone();
        let flat = json!({ "targetId": target, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", flat)["sessionId"].clone();
        let page = Page {
            browser: self,
            session: session.as_str().unwrap().to_owned(),
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Page.navigate", json!({ "url": url }));
        page.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
        page
    }

    fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut socket = self.socket.borrow_mut();
        socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let Message::Text(text) = socket.read().unwrap() else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] != id {
                self.events.borrow_mut().push(message);
                continue;
            }
            // A page that is being replaced at this moment answers with an error.
            return message["result"].clone();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tab.
pub(crate) struct Page<'b> {
    browser: &'b Browser,
    session: String,
}

impl Page<'_> {
    fn call(&self, method: &str, parameters: Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters)
    }

    /// The value of an expression; null where it has none, or throws.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
        });
        self.call("Runtime.evaluate", parameters)["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_for(&self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            if Instant::now() > until {
                let page = self.value("document.documentElement.outerHTML");
                panic!("not so: {expression}\n{page:#}\n{:#?}", self.errors());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives the page a window of this width, on a system with this colour scheme.
    pub(crate) fn emulate(&self, width: u32, scheme: &str) {
        let window = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", window);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    /// The whole page, as PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let size = self
            .value("[document.documentElement.clientWidth, document.documentElement.scrollHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let page = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", page);
        let data = picture["data"].as_str().expect("a picture");
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).expect("base64")
    }

    /// Everything that the console shows: what scripts print, what they throw, what the browser
    /// complains about.
    pub(crate) fn console(&self) -> Vec<String> {
        const SHOWN: [&str; 3] = [
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
        ];
        let events = self.browser.events.borrow();
        events
            .iter()
            .filter(|event| event["sessionId"] == *self.session)
            .filter(|event| SHOWN.contains(&event["method"].as_str().unwrap_or_default()))
            .map(|event| event["params"].to_string())
            .collect()
    }

    /// What the console shows in red, and what was answered with an error.
    pub(crate) fn errors(&self) -> Vec<String> {
        let events = self.browser.events.borrow();
        let own = events
            .iter()
            .filter(|event| event["sessionId"] == *self.session);
        let is_error = |event: &&Value| {
            let parameters = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => parameters["type"] == "error",
                "Log.entryAdded" => parameters["entry"]["level"] == "error",
                "Network.responseReceived" => {
                    parameters["response"]["status"].as_u64() >= Some(400)
                }
                _ => false,
            }
        };
        own.filter(is_error).map(ToString::to_string).collect()
    }
}
