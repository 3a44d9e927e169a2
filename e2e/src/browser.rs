//! A real browser without a window, driven as the W3C's WebDriver protocol has it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use data_encoding::BASE64;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::ports;
use crate::process::{Process, Spec};
use crate::programs::BrowserPrograms;
use crate::run_dir::RunDir;

const START_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How long an element, or the page behind a link or form, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// Name of an element's reference in answers, which the protocol fixes.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Size of the page in a picture.
const SIZE: (u32, u32) = (1000, 700);

/// A browser with one window. Dropping it ends its driver; the browser goes with the run folder at the latest.
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts driver and browser. Certificates that nobody signed are taken, since those of tests are such.
    pub async fn start(run: &Arc<RunDir>, programs: &BrowserPrograms) -> Result<Self> {
        let folder = run.subfolder("browser")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let port = format!("--port={}", address.port());
        let home = folder.display().to_string();
        let spec = Spec::new("chromedriver", &programs.driver, &folder)
            .args([port])
            .env("HOME", home);
        let mut browser = Self {
            driver: Process::start(&spec)?,
            address,
            session: String::new(),
        };
        browser.until_ready().await?;
        let wanted = capabilities(programs, &folder.join("profile"));
        let made = browser.send(Method::POST, "/session", &wanted).await?;
        let session = made.get("sessionId").and_then(Value::as_str);
        browser.session = session.context("the driver names no session")?.to_owned();
        // A page may still be on its way when its elements are asked for.
        let patience = json!({"implicit": PATIENCE.as_millis()});
        browser.command(Method::POST, "/timeouts", &patience).await?;
        let (width, height) = SIZE;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.tell("Emulation.setDeviceMetricsOverride", &metrics).await?;
        Ok(browser)
    }

    async fn until_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            self.driver.check()?;
            let status = self.send(Method::GET, "/status", &Value::Null).await;
            if status.is_ok_and(|status| status.get("ready") == Some(&Value::Bool(true))) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < START_LIMIT,
                "chromedriver does not answer:\n{}",
                self.driver.log_tail(20)
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        tokio::time::timeout(COMMAND_LIMIT, self.exchange(method, path, body))
            .await
            .with_context(|| format!("the browser did not answer {path} within {COMMAND_LIMIT:?}"))?
    }

    async fn exchange(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        let bytes = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Host", self.address.to_string())
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).context("the driver's answer is no JSON")?;
        let value = answer.get("value").cloned().unwrap_or_default();
        if !status.is_success() {
            let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
            bail!("{path}: {}", message.lines().next().unwrap_or_default());
        }
        Ok(value)
    }

    async fn command(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        self.send(method, &format!("/session/{}{path}", self.session), body)
            .await
    }

    /// A command that only Chromium has.
    async fn tell(&self, name: &str, params: &Value) -> Result<Value> {
        let body = json!({"cmd": name, "params": params});
        self.command(Method::POST, "/goog/cdp/execute", &body).await
    }

    /// Light or dark, as people set it for all pages.
    pub async fn dark(&self, is_dark: bool) -> Result<()> {
        let value = if is_dark { "dark" } else { "light" };
        let params = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.tell("Emulation.setEmulatedMedia", &params).await?;
        Ok(())
    }

    /// Loads a page.
    pub async fn go(&self, url: &str) -> Result<()> {
        self.command(Method::POST, "/url", &json!({"url": url})).await?;
        Ok(())
    }

    /// The address of the page.
    pub async fn address(&self) -> Result<String> {
        text(&self.command(Method::GET, "/url", &Value::Null).await?)
    }

    /// Waits until the address holds this, as it does when a link or form has led there. Returns the address.
    pub async fn arrive(&self, part: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            let address = self.address().await?;
            if address.contains(part) {
                return Ok(address);
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "the browser is at {address} and not where {part} is"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The title of the page.
    pub async fn title(&self) -> Result<String> {
        text(&self.command(Method::GET, "/title", &Value::Null).await?)
    }

    /// What people read in the part of the page that a selector names.
    pub async fn read(&self, selector: &str) -> Result<String> {
        let element = self.find("css selector", selector).await?;
        let path = format!("/element/{element}/text");
        text(&self.command(Method::GET, &path, &Value::Null).await?)
    }

    async fn find(&self, by: &str, what: &str) -> Result<String> {
        let found = self
            .command(Method::POST, "/element", &json!({"using": by, "value": what}))
            .await?;
        let id = found.get(ELEMENT).and_then(Value::as_str);
        Ok(id.with_context(|| format!("{what} is no element"))?.to_owned())
    }

    /// Follows the link, or presses the button, that says this.
    pub async fn press(&self, label: &str) -> Result<()> {
        let path = format!("//*[self::a or self::button][normalize-space()=\"{label}\"]");
        self.press_at(&path).await
    }

    /// The same for the first element that an XPath names.
    pub async fn press_at(&self, path: &str) -> Result<()> {
        let element = self.find("xpath", path).await?;
        self.command(Method::POST, &format!("/element/{element}/click"), &json!({}))
            .await?;
        Ok(())
    }

    /// The field whose label says this.
    async fn field(&self, label: &str) -> Result<String> {
        let path = format!("//*[@id=//label[normalize-space()=\"{label}\"]/@for]");
        self.find("xpath", &path).await
    }

    /// Writes into the field with that label, in place of what is there.
    pub async fn write(&self, label: &str, value: &str) -> Result<()> {
        let element = self.field(label).await?;
        self.command(Method::POST, &format!("/element/{element}/clear"), &json!({}))
            .await?;
        let body = json!({"text": value});
        self.command(Method::POST, &format!("/element/{element}/value"), &body)
            .await?;
        Ok(())
    }

    /// Chooses an entry of the list with that label.
    pub async fn choose(&self, label: &str, entry: &str) -> Result<()> {
        let list = format!("//*[@id=//label[normalize-space()=\"{label}\"]/@for]");
        self.press_at(&format!("{list}/option[normalize-space()=\"{entry}\"]"))
            .await
    }

    /// What the field with that label says to who hears the page: its computed name.
    pub async fn heard(&self, label: &str) -> Result<String> {
        let element = self.field(label).await?;
        let path = format!("/element/{element}/computedlabel");
        text(&self.command(Method::GET, &path, &Value::Null).await?)
    }

    /// A picture of the page, PNG.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let encoded = text(&self.command(Method::GET, "/screenshot", &Value::Null).await?)?;
        Ok(BASE64.decode(encoded.as_bytes())?)
    }

    /// Closes the browser in good order.
    pub async fn close(self) -> Result<()> {
        self.command(Method::DELETE, "", &Value::Null).await?;
        Ok(())
    }
}

fn capabilities(programs: &BrowserPrograms, profile: &Path) -> Value {
    let args = [
        "--headless=new".to_owned(),
        // Root may not run it otherwise; only our own pages are loaded.
        "--no-sandbox".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        "--no-first-run".to_owned(),
        "--no-proxy-server".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--lang=en".to_owned(),
        format!("--user-data-dir={}", profile.display()),
    ];
    json!({"capabilities": {"alwaysMatch": {
        "acceptInsecureCerts": true,
        "goog:chromeOptions": {"binary": programs.chromium, "args": args},
    }}})
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("the driver answers no text")?.to_owned())
}
