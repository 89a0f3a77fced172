//! The one way out: every HTTP request of the broker is sent here.
//!
//! # Invariants
//!
//! 1. Only https; a redirect is an answer, never followed (threat T10); cookies are not kept, bodies
//!    are not decompressed, and the environment names no proxy: what is not configured does not happen.
//! 2. Every answer arrives within its deadline, body included, and within its size, or not at all (P8).
//! 3. An error shows neither URL nor body: both may carry secrets.
//!
//! What an answer means is the business of `entra` and `devops` (azure.md 1.8, 3.7). Nothing is
//! repeated here: whoever asks knows what may be asked twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::{Client, Proxy, RequestBuilder, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

/// How the world is reached.
#[derive(Clone, Default)]
pub struct OutgoingConfig {
    /// Every request goes through this proxy. May hold a password.
    pub proxy: Option<Url>,
    /// Trusted instead of the bundled Mozilla roots.
    pub ca_pem: Option<Vec<u8>>,
}

/// The one HTTP client. Cheap to clone: clones share its connections.
#[derive(Clone, Debug)]
pub struct Outgoing {
    client: Client,
}

/// What one request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte sent to the last byte read.
    pub deadline: Duration,
    pub body_bytes_max: usize,
}

/// What came back, complete.
pub struct Answer {
    pub status: u16,
    /// In lower case, without parameters: `application/json`.
    pub content_type: Option<String>,
    /// `Retry-After` in either form, at most an hour.
    pub retry_after: Option<Duration>,
    /// The other side's clock.
    pub date: Option<Timestamp>,
    /// Wiped on drop, because tokens arrive in bodies.
    pub body: Zeroizing<Vec<u8>>,
    headers: HeaderMap,
}

/// An answer whose body is still to come, for bodies too large to hold.
pub struct Arriving {
    head: Answer,
    response: Response,
    limits: Limits,
    until: Instant,
    arrived: usize,
}

/// Why there is no answer, or no client.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("the answer is larger than {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the CA bundle holds no usable certificate")]
    CaBundle,
    /// Nothing of the request was sent.
    #[error("could not connect")]
    Connect(#[source] reqwest::Error),
    #[error("could not set up the HTTP client")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other side may have acted on the request.
    #[error("no complete answer within {deadline:?}")]
    Timeout { deadline: Duration },
    /// The other side may have acted on the request.
    #[error("the exchange broke off")]
    Transport(#[source] reqwest::Error),
    /// Nothing of the request was sent.
    #[error("the request could not be made")]
    Unsendable(#[source] reqwest::Error),
}

impl fmt::Debug for OutgoingConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = self.proxy.as_ref().and_then(Url::host_str);
        f.debug_struct("OutgoingConfig").field("proxy", &proxy).finish_non_exhaustive()
    }
}

impl Outgoing {
    pub fn new(config: &OutgoingConfig) -> Result<Self, OutgoingError> {
        let mut tls = client_tls(config.ca_pem.as_deref())?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE)
            .pool_idle_timeout(CONNECTION_IDLE_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_DEADLINE)
            .user_agent(USER_AGENT);
        if let Some(proxy) = &config.proxy {
            let proxy = Proxy::all(proxy.clone()).map_err(|error| OutgoingError::Setup(error.into()))?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| OutgoingError::Setup(error.into()))?;
        Ok(Self { client })
    }

    pub fn get(&self, url: Url) -> RequestBuilder {
        self.client.get(url)
    }

    pub fn post(&self, url: Url) -> RequestBuilder {
        self.client.post(url)
    }

    /// Sends `request` and reads its whole answer, whatever its status.
    pub async fn send(&self, request: RequestBuilder, limits: Limits) -> Result<Answer, OutgoingError> {
        self.open(request, limits).await?.read().await
    }

    /// Sends `request` and returns as soon as it is answered; the deadline holds for the body too.
    pub async fn open(&self, request: RequestBuilder, limits: Limits) -> Result<Arriving, OutgoingError> {
        let until = Instant::now() + limits.deadline;
        let request = request.build().map_err(OutgoingError::from_reqwest)?;
        let response = in_time(until, limits, self.client.execute(request)).await?;
        let announced = response.content_length().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        if limits.body_bytes_max < announced {
            return Err(OutgoingError::BodyTooLarge { max: limits.body_bytes_max });
        }
        let body = Zeroizing::new(Vec::with_capacity(announced.clamp(BODY_LEN_FIRST, BODY_LEN_BELIEVED)));
        let head = Answer::new(response.status().as_u16(), response.headers().clone(), body);
        Ok(Arriving { head, response, limits, until, arrived: 0 })
    }
}

impl Arriving {
    /// The answer so far: all but its body.
    pub fn head(&self) -> &Answer {
        &self.head
    }

    /// The next piece of the body; `None` after the last one.
    pub async fn piece(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, OutgoingError> {
        let piece = in_time(self.until, self.limits, self.response.chunk()).await?;
        let max = self.limits.body_bytes_max;
        let len = piece.as_ref().map_or(0, tokio_util::bytes::Bytes::len);
        if max - self.arrived < len {
            return Err(OutgoingError::BodyTooLarge { max });
        }
        self.arrived += len;
        Ok(piece)
    }

    /// The answer with what is left of its body.
    pub async fn read(mut self) -> Result<Answer, OutgoingError> {
        while let Some(piece) = self.piece().await? {
            append(&mut self.head.body, piece.as_ref());
        }
        Ok(self.head)
    }
}

async fn in_time<T>(
    until: Instant,
    limits: Limits,
    exchange: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, OutgoingError> {
    match tokio::time::timeout_at(until, exchange).await {
        Ok(done) => done.map_err(OutgoingError::from_reqwest),
        Err(_) => Err(OutgoingError::Timeout { deadline: limits.deadline }),
    }
}

impl Answer {
    fn new(status: u16, headers: HeaderMap, body: Zeroizing<Vec<u8>>) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let date = text(DATE).and_then(parse_date);
        Self {
            status,
            content_type: text(CONTENT_TYPE).map(essence),
            retry_after: text(RETRY_AFTER).and_then(|value| parse_retry_after(value, date)),
            date,
            body,
            headers,
        }
    }

    #[cfg(test)]
    pub(crate) fn made(status: u16, headers: &[(&'static str, &str)], body: &str) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Self::new(status, headers, Zeroizing::new(body.as_bytes().to_vec()))
    }

    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Every line of a header that may stand several times.
    pub fn header_values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn is_json(&self) -> bool {
        self.content_type.as_deref().is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"))
    }

    pub fn is_html(&self) -> bool {
        matches!(self.content_type.as_deref(), Some("text/html" | "application/xhtml+xml"))
    }

    /// The body without the byte order mark some of Microsoft's services send.
    pub fn text_bytes(&self) -> &[u8] {
        self.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.body)
    }
}

impl OutgoingError {
    fn from_reqwest(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() {
            Self::Connect(error)
        } else if error.is_builder() {
            Self::Unsendable(error)
        } else {
            Self::Transport(error)
        }
    }
}

/// How this program verifies servers: rustls on aws-lc, with `ca_pem` or else the bundled Mozilla
/// roots. Never the platform's store, so that a container image decides nothing.
pub fn client_tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, OutgoingError> {
    let roots = match ca_pem {
        Some(pem) => parse_roots(pem)?,
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OutgoingError::Setup(error.into()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `base` with `segments` appended to its path, each as one segment whatever it holds (threat T11).
pub fn under(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // A URL that cannot have a path is not https, and is refused when it is sent.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// A name an upstream gave, fit to be shown to people: no control characters, not endless.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_LEN_MAX).collect()
}

fn parse_roots(pem: &[u8]) -> Result<RootCertStore, OutgoingError> {
    let certificates: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| OutgoingError::CaBundle)?;
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(OutgoingError::CaBundle),
        _ => Ok(roots),
    }
}

/// Grows by moving into a new buffer, so that the old one is wiped; `Vec` would just free it.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if body.capacity() < needed {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * body.capacity())));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn parse_date(text: &str) -> Option<Timestamp> {
    rfc2822::parse(text).ok().map(|date| date.timestamp())
}

/// Seconds, or a date: that one is measured against the `Date` of the same answer, so that our
/// clock and theirs need not agree.
fn parse_retry_after(text: &str, date: Option<Timestamp>) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits for a number are still a very long wait.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        crate::clock::between(date?, parse_date(text)?)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

const USER_AGENT: &str = concat!("azdo-broker/", env!("CARGO_PKG_VERSION"));
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A host in reach answers within one or two round trips; more is a black hole (F10).
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Shorter than the idle limit of common load balancers, which drop silently.
const CONNECTION_IDLE_MAX: Duration = Duration::from_mins(1);
/// A dead HTTP/2 connection would else swallow every request until TCP gives up after minutes.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(5);
/// The longest wait anybody may impose on us (azure.md 1.10).
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Holds most token answers without growing.
const BODY_LEN_FIRST: usize = 16 * 1024;
/// An announced length is believed up to here; beyond it the bytes must come first.
const BODY_LEN_BELIEVED: usize = 1024 * 1024;
/// Longer than any real name, short enough for a page and a log line.
const SHOWN_LEN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMITS: Limits = Limits { deadline: Duration::from_secs(5), body_bytes_max: 1000 };

    /// A TLS server that gives every connection the same bytes and then keeps it open.
    struct Server {
        url: Url,
        outgoing: Outgoing,
        _tasks: JoinSet<()>,
    }

    async fn serve(answer: impl Into<String>) -> Server {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], signing_key.serialize_der().try_into().unwrap())
            .unwrap();
        let (acceptor, answer) = (TlsAcceptor::from(Arc::new(tls)), answer.into());
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = Vec::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let _request = stream.read(&mut [0; 4096]).await;
                let _sent = stream.write_all(answer.as_bytes()).await;
                let _flushed = stream.flush().await;
                open.push(stream);
            }
        });
        let config = OutgoingConfig { proxy: None, ca_pem: Some(cert.pem().into_bytes()) };
        let outgoing = Outgoing::new(&config).unwrap();
        Server { url: url.parse().unwrap(), outgoing, _tasks: tasks }
    }

    impl Server {
        async fn ask(&self, limits: Limits) -> Result<Answer, OutgoingError> {
            self.outgoing.send(self.outgoing.get(self.url.clone()), limits).await
        }
    }

    #[tokio::test]
    async fn a24_a_redirect_is_an_answer_and_not_followed() {
        let server = serve(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://localhost:1/\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        assert_eq!(server.ask(LIMITS).await.unwrap().status, 307);
    }

    #[tokio::test]
    async fn an_answer_has_its_type_wait_and_body() {
        let server = serve(
            "HTTP/1.1 429 x\r\nContent-Type: Application/JSON; charset=utf-8\r\nRetry-After: 7\r\n\
             Content-Length: 5\r\n\r\n\u{feff}{}",
        )
        .await;
        let answer = server.ask(LIMITS).await.unwrap();
        assert!(answer.is_json() && !answer.is_html() && !answer.is_success());
        assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer.text_bytes(), b"{}");
    }

    #[tokio::test]
    async fn a26_a_body_above_the_limit_is_cut_off_announced_or_not() {
        let long = "x".repeat(1001);
        for head in
            ["Content-Length: 1001\r\n\r\n".to_owned(), "Transfer-Encoding: chunked\r\n\r\n3e9\r\n".into()]
        {
            let server = serve(format!("HTTP/1.1 200 OK\r\n{head}{long}\r\n0\r\n\r\n")).await;
            let error = server.ask(LIMITS).await.err().unwrap();
            assert!(matches!(error, OutgoingError::BodyTooLarge { max: 1000 }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn f09_a_body_that_never_ends_ends_at_the_deadline() {
        let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        let limits = Limits { deadline: Duration::from_millis(300), ..LIMITS };
        let error = server.ask(limits).await.err().unwrap();
        assert!(matches!(error, OutgoingError::Timeout { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_of_another_ca_is_not_talked_to_and_the_url_is_not_shown() {
        let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let stranger = Outgoing::new(&OutgoingConfig::default()).unwrap();
        let url: Url = server.url.join("canary").unwrap();
        let error = stranger.send(stranger.get(url), LIMITS).await.err().unwrap();
        assert!(matches!(error, OutgoingError::Connect(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[tokio::test]
    async fn plain_http_is_not_sent() {
        let outgoing = Outgoing::new(&OutgoingConfig::default()).unwrap();
        let request = outgoing.get("http://localhost:1/".parse().unwrap());
        let error = outgoing.send(request, LIMITS).await.err().unwrap();
        assert!(matches!(error, OutgoingError::Unsendable(_)), "not even tried: {error:?}");
    }

    #[test]
    fn the_password_of_a_proxy_is_not_shown() {
        let proxy = Some("http://user:canary@proxy.example:3128".parse().unwrap());
        let config = OutgoingConfig { proxy, ca_pem: None };
        assert!(!format!("{config:?} {:?}", Outgoing::new(&config)).contains("canary"));
    }

    #[test]
    fn a_ca_bundle_without_certificates_is_refused() {
        let config = OutgoingConfig { proxy: None, ca_pem: Some(b"nothing".to_vec()) };
        assert!(matches!(Outgoing::new(&config), Err(OutgoingError::CaBundle)));
    }

    #[test]
    fn f08_retry_after_is_seconds_or_a_date_and_never_more_than_an_hour() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("1000000000", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let answer = Answer::made(429, &[("retry-after", text), ("date", date)], "");
            assert_eq!(answer.retry_after, seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(Answer::made(429, &[("retry-after", date)], "").retry_after, None);
    }

    #[test]
    fn a27_a_segment_stays_one_segment() {
        let base: Url = "https://dev.azure.com/".parse().unwrap();
        assert_eq!(under(&base, &["a/b?c#d", "_apis"]).as_str(), "https://dev.azure.com/a%2Fb%3Fc%23d/_apis");
    }
}
