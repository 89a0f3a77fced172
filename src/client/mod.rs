//! Reaches a broker: by its Unix socket, or over TLS with a client certificate. Says what went wrong.
//!
//! # Invariants
//!
//! 1. Over TCP there is no connection without TLS 1.3 and a client certificate of ours.
//! 2. What comes back from a broker passes [`printable`] before a terminal sees it.
//!
//! It retries nothing: whether a wish may be repeated is the caller's to know. With `config` it is
//! the only reader of `AZDO_BROKER_*`.

mod explain;

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

pub use self::explain::{Explained, chain, explain, printable};
use crate::ids::{AccountId, DeveloperId, InvalidName};
use crate::pb::connections_client::ConnectionsClient;
use crate::pb::credential_broker_client::CredentialBrokerClient;
use crate::pb::integrations_client::IntegrationsClient;
use crate::pb::operations_client::OperationsClient;

/// Where a broker listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Unix(PathBuf),
    Https { host: String, port: u16 },
}

/// What was said about the broker to ask and about whom to ask for, not yet checked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    pub address: Option<String>,
    /// PEM files: whom to believe, and what to show.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub account: Option<String>,
    pub developer: Option<String>,
}

/// Why no broker could be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "which broker? Set AZDO_BROKER_ADDRESS, or `git config azdo-broker.address`, to unix:/path or https://host:port"
    )]
    NoAddress,
    #[error("the broker's address must be unix:/path or https://host:port, not {0:?}")]
    Address(String),
    #[error("which account? Set AZDO_BROKER_ACCOUNT, or `git config azdo-broker.account`")]
    NoAccount,
    #[error("the {what} {problem}")]
    Name { what: &'static str, problem: InvalidName },
    #[error(
        "a broker at https:// wants a client certificate: set AZDO_BROKER_CERT and AZDO_BROKER_KEY to PEM files"
    )]
    NoCertificate,
    #[error("cannot read the {what} in {}", path.display())]
    File { what: &'static str, path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("certificate and key do not make a TLS client")]
    Tls(#[source] rustls::Error),
    #[error(
        "no broker answers at {address}: is `azdo-broker serve` running, and may this user open the socket?"
    )]
    NoAnswerByUnix { address: Address, source: Box<dyn Error + Send + Sync> },
    #[error(
        "no broker answers at {address}: is `azdo-broker serve` running there, and does each side trust the other's certificate?"
    )]
    NoAnswerByTls { address: Address, source: Box<dyn Error + Send + Sync> },
}

/// A broker that answered.
#[derive(Clone, Debug)]
pub struct Remote {
    channel: Channel,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(bad()) };
        }
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let port = uri.port_u16().ok_or_else(bad)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("https") || !bare || userinfo {
            return Err(bad());
        }
        Ok(Self::Https { host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "this is the client's one reader of AZDO_BROKER_*")]
    pub fn from_environment() -> Self {
        Self::from_lookup(|name| std::env::var(format!("AZDO_BROKER_{name}")).ok())
    }

    /// Reads each setting by its name in capitals: `ADDRESS`. An empty text is no setting.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name| lookup(name).filter(|text| !text.is_empty());
        Self {
            address: text("ADDRESS"),
            ca: text("CA").map(PathBuf::from),
            cert: text("CERT").map(PathBuf::from),
            key: text("KEY").map(PathBuf::from),
            account: text("ACCOUNT"),
            developer: text("DEVELOPER"),
        }
    }

    /// These, and where they say nothing, those.
    #[must_use]
    pub fn or(self, those: Self) -> Self {
        Self {
            address: self.address.or(those.address),
            ca: self.ca.or(those.ca),
            cert: self.cert.or(those.cert),
            key: self.key.or(those.key),
            account: self.account.or(those.account),
            developer: self.developer.or(those.developer),
        }
    }

    pub fn address(&self) -> Result<Address, ClientError> {
        Address::parse(self.address.as_deref().ok_or(ClientError::NoAddress)?)
    }

    pub fn account(&self) -> Result<AccountId, ClientError> {
        let text = self.account.as_deref().ok_or(ClientError::NoAccount)?;
        text.parse().map_err(|problem| ClientError::Name { what: "account", problem })
    }

    pub fn developer(&self) -> Result<Option<DeveloperId>, ClientError> {
        let parse = |text: &str| text.parse();
        let parsed = self.developer.as_deref().map(parse).transpose();
        parsed.map_err(|problem| ClientError::Name { what: "developer", problem })
    }
}

impl ClientError {
    /// Whether the wish was badly put, rather than the broker out of reach: exit code 64.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoAddress
            | Self::Address(_)
            | Self::NoAccount
            | Self::Name { .. }
            | Self::NoCertificate
            | Self::File { .. }
            | Self::Tls(_) => true,
            Self::NoAnswerByUnix { .. } | Self::NoAnswerByTls { .. } => false,
        }
    }
}

impl Remote {
    /// Connects, in at most [`CONNECT_TIMEOUT`].
    pub async fn connect(settings: &Settings) -> Result<Self, ClientError> {
        Ok(Self { channel: connect(settings).await? })
    }

    pub fn over(channel: Channel) -> Self {
        Self { channel }
    }

    pub fn credentials(&self) -> CredentialBrokerClient<Channel> {
        CredentialBrokerClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_SIZE_MAX)
    }

    pub fn connections(&self) -> ConnectionsClient<Channel> {
        ConnectionsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_SIZE_MAX)
    }

    pub fn integrations(&self) -> IntegrationsClient<Channel> {
        IntegrationsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_SIZE_MAX)
    }

    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_SIZE_MAX)
    }
}

/// A request that both sides give up after `limit`.
pub fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// Opens a channel to the broker that the settings name.
pub async fn connect(settings: &Settings) -> Result<Channel, ClientError> {
    let address = settings.address()?;
    match &address {
        Address::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            let endpoint = tuned(Endpoint::from_static("http://broker"));
            let channel = endpoint.connect_with_connector(connector).await;
            channel.map_err(|error| ClientError::NoAnswerByUnix { address, source: error.into() })
        }
        Address::Https { host, port } => {
            let tls = TlsConnector::from(Arc::new(make_tls_config(settings)?));
            let name =
                ServerName::try_from(host.clone()).map_err(|_| ClientError::Address(address.to_string()))?;
            let target = (host.clone(), *port);
            let connector = tower::service_fn(move |_: Uri| {
                let (tls, name, target) = (tls.clone(), name.clone(), target.clone());
                async move {
                    let stream = TcpStream::connect(target).await?;
                    stream.set_nodelay(true)?;
                    Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
                }
            });
            let endpoint = Endpoint::from_shared(address.to_string())
                .map_err(|_| ClientError::Address(address.to_string()))?;
            let channel = tuned(endpoint).connect_with_connector(connector).await;
            channel.map_err(|error| ClientError::NoAnswerByTls { address, source: error.into() })
        }
    }
}

/// Whoever waits for what a stream tells must notice when there is nobody any more to tell it.
fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_WITHIN)
}

fn make_tls_config(settings: &Settings) -> Result<ClientConfig, ClientError> {
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
        return Err(ClientError::NoCertificate);
    };
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(path) => {
            for certificate in read_certificates("CA certificates", path)? {
                roots.add(certificate).map_err(ClientError::Tls)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let chain = read_certificates("client certificate", cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable("client key", key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ClientError::Tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(ClientError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read_certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable(what, path))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unreadable(what, path))?;
    if certificates.is_empty() {
        return Err(unreadable(what, path)("the file holds none"));
    }
    Ok(certificates)
}

fn unreadable<E>(what: &'static str, path: &Path) -> impl FnOnce(E) -> ClientError
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let path = path.to_owned();
    move |source| ClientError::File { what, path, source: source.into() }
}

/// A broker on the same machine or network answers within milliseconds; more is an outage.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_WITHIN: Duration = Duration::from_secs(15);
/// A page of 1000 repositories with long names stays far below.
const ANSWER_SIZE_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_https_with_port() {
        assert_eq!(Address::parse("unix:/run/b.sock").unwrap(), Address::Unix("/run/b.sock".into()));
        for text in ["https://broker.example:7443", "https://[::1]:7443"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "unix:relative",
            "http://broker:1",
            "https://broker",
            "https://broker:1/path",
            "https://u@broker:1",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_come_before_the_environment_and_empty_texts_are_none() {
        let environment = Settings::from_lookup(|name| {
            (name != "DEVELOPER").then(|| format!("{}-from-env", name.to_lowercase()))
        });
        let arguments =
            Settings::from_lookup(|name| Some(if name == "ACCOUNT" { "acme".into() } else { String::new() }));
        let settings = arguments.or(environment);
        assert_eq!(settings.account().unwrap().as_str(), "acme");
        assert_eq!(settings.address.as_deref(), Some("address-from-env"));
        assert_eq!(settings.developer().unwrap(), None);
    }

    #[test]
    fn https_without_a_client_certificate_is_refused_before_any_connection() {
        let settings =
            Settings { address: Some("https://broker.example:7443".into()), ..Settings::default() };
        assert!(matches!(make_tls_config(&settings), Err(ClientError::NoCertificate)));
    }

    #[tokio::test]
    async fn over_tcp_both_sides_show_certificates_and_speak_tls_13_and_h2() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (make_certificate("caller"), make_certificate("localhost"));
        let file = |name: &str, text: String| {
            std::fs::write(directory.path().join(name), text).unwrap();
            Some(directory.path().join(name))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            address: Some(format!("https://localhost:{}", listener.local_addr().unwrap().port())),
            ca: file("ca.pem", theirs.cert.pem()),
            cert: file("cert.pem", ours.cert.pem()),
            key: file("key.pem", ours.signing_key.serialize_pem()),
            ..Settings::default()
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(make_server(&theirs, &ours)));
        let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
        let (connected, accepted) = tokio::join!(connect(&settings), accept);
        connected.unwrap();
        let session = accepted.get_ref().1;
        assert_eq!(session.peer_certificates().unwrap()[0], *ours.cert.der());
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    }

    type Certificate = rcgen::CertifiedKey<rcgen::KeyPair>;

    fn make_certificate(name: &str) -> Certificate {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
    }

    fn make_server(own: &Certificate, trusted: &Certificate) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.cert.der().clone()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes()).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
        let mut config = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    #[tokio::test]
    async fn a_missing_socket_says_who_must_do_what() {
        let settings = Settings { address: Some("unix:/nowhere/b.sock".into()), ..Settings::default() };
        let error = connect(&settings).await.unwrap_err();
        let text = chain(&error);
        assert!(
            text.starts_with("no broker answers at unix:/nowhere/b.sock: is `azdo-broker serve` running"),
            "{text}"
        );
        assert!(text.contains("No such file"), "{text}");
        assert!(!error.is_usage());
    }
}
