//! A page in the browser, used as a person does: by pointer and keyboard, read by what it shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chrome::{Chrome, Wire};

/// For what a page shows sooner or later.
const LONG: Duration = Duration::from_secs(90);

pub struct Page {
    wire: Arc<Wire>,
    session: String,
}

impl Page {
    pub async fn open(chrome: &Chrome, url: &str) -> Self {
        let target = chrome.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session =
            chrome.call("Target.attachToTarget", attach).await["sessionId"].as_str().unwrap().to_string();
        let page = Self { wire: chrome.wire(), session };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.resize(1360, 900).await;
        page.go(url).await;
        page
    }

    pub async fn call(&self, method: &str, params: Value) -> Value {
        self.wire.call(Some(&self.session), method, params).await
    }

    pub async fn go(&self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        let there = format!("location.href.startsWith({}) && document.readyState === 'complete'", json!(url));
        self.until(&there).await;
    }

    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// What the system of the user prefers.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// The value of an expression, promises awaited.
    pub async fn eval(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", params).await;
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, without touching the page, and above all without loading it again.
    #[track_caller]
    pub fn until<'a>(&'a self, expression: &'a str) -> impl Future<Output = Value> + 'a {
        let asker = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                let value = self.eval(expression).await;
                let is_true =
                    !matches!(&value, Value::Null | Value::Bool(false)) && value != "" && value != 0;
                if is_true {
                    return value;
                }
                if begun.elapsed() > LONG {
                    let text = self.eval("document.body.innerText").await;
                    let errors = self.errors();
                    panic!(
                        "{asker}: never came: {expression}\nerrors: {errors:?}\n{}",
                        text.as_str().unwrap_or_default()
                    );
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
    }

    /// What the first element of `selector` shows; waits until there is one.
    #[track_caller]
    pub fn text<'a>(&'a self, selector: &'a str) -> impl Future<Output = String> + 'a {
        let there = format!("document.querySelector({})?.innerText ?? null", json!(selector));
        let asker = std::panic::Location::caller();
        async move {
            let value = self.until(&there).await;
            value.as_str().unwrap_or_else(|| panic!("{asker}: {selector} shows no text")).to_string()
        }
    }

    /// Clicks in the middle of the first element of `selector`, once it is there, stands still and can be clicked.
    #[track_caller]
    pub fn click<'a>(&'a self, selector: &'a str) -> impl Future<Output = ()> + 'a {
        let find = format!(
            "(() => {{ const node = document.querySelector({}); if (!node || node.disabled) return null;
              node.scrollIntoView({{ block: 'center', inline: 'center', behavior: 'instant' }});
              const box = node.getBoundingClientRect(); const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
              const hit = document.elementFromPoint(x, y);
              return hit && (node.contains(hit) || hit.contains(node)) ? {{ x, y }} : null; }})()",
            json!(selector)
        );
        async move {
            let mut place = self.until(&find).await;
            // what moves is clicked where it comes to rest
            loop {
                let next = self.until(&find).await;
                if std::mem::replace(&mut place, next.clone()) == next {
                    break;
                }
            }
            let (x, y) = (place["x"].as_f64().unwrap(), place["y"].as_f64().unwrap());
            self.mouse("mousePressed", x, y).await;
            self.mouse("mouseReleased", x, y).await;
        }
    }

    pub async fn drag(&self, from: (f64, f64), to: (f64, f64)) {
        self.mouse("mousePressed", from.0, from.1).await;
        self.mouse("mouseMoved", (from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0).await;
        self.mouse("mouseMoved", to.0, to.1).await;
        self.mouse("mouseReleased", to.0, to.1).await;
    }

    async fn mouse(&self, kind: &str, x: f64, y: f64) {
        let event = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event).await;
    }

    /// One key, by its name: `Tab`, `Enter`, `ArrowLeft`, `+`, …
    pub async fn press(&self, key: &str) {
        self.press_with(key, 0).await;
    }

    /// With modifiers: 8 is shift.
    pub async fn press_with(&self, key: &str, modifiers: u8) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            " " => (32, " "),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            one => (0, one),
        };
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers});
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Addresses of all requests that the page has made.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.wire.events(&self.session, "Network.requestWillBeSent");
        sent.iter().map(|event| event["request"]["url"].as_str().unwrap().to_string()).collect()
    }

    /// What the console has complained about: exceptions, errors, refusals of the security policy.
    pub fn errors(&self) -> Vec<String> {
        let thrown = self.wire.events(&self.session, "Runtime.exceptionThrown");
        let said = self.wire.events(&self.session, "Runtime.consoleAPICalled");
        let logged = self.wire.events(&self.session, "Log.entryAdded");
        let said = said.iter().filter(|event| event["type"] == "error" || event["type"] == "warning");
        let logged = logged.iter().filter(|event| event["entry"]["level"] == "error");
        thrown.iter().chain(said).chain(logged).map(Value::to_string).collect()
    }

    /// Of what can be seen, as PNG; kept where the build keeps its temporary files.
    pub async fn picture(&self, name: &str) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let png = decode(shot["data"].as_str().unwrap());
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(file, &png).unwrap();
        png
    }

    /// Roles and names as assistive technology sees them; what it passes over is left out.
    pub async fn seen_by_readers(&self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().unwrap();
        let word = |node: &Value, what: &str| node[what]["value"].as_str().unwrap_or_default().to_string();
        let seen = nodes.iter().filter(|node| node["ignored"] != true);
        seen.map(|node| (word(node, "role"), word(node, "name"))).collect()
    }
}

/// Base64 of the standard alphabet.
fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|known| *known == letter).unwrap();
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
