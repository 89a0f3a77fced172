//! The acceptor over real loopback TLS, with certificates made per test.

mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::caller::Caller;

const RUNNER: &str = "spiffe://platform.example/runner";

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain and its key, as PEM.
struct Pair {
    chain: String,
    key: String,
}

/// A listener on loopback that answers each caller with its name.
struct Given {
    authority: Authority,
    folder: TempDir,
    address: std::net::SocketAddr,
    tls: Tls,
    reloader: TlsReloader,
    serving: JoinHandle<()>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair { chain: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Pair {
        self.sign(&CertificateParams::new(vec!["localhost".to_owned()]).unwrap())
    }

    fn client(&self, serial: u64) -> Pair {
        self.sign(&client_params(serial))
    }

    fn crl(&self, revoked: &[u64], next_year: i32) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(next_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn client_params(serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(RUNNER.try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Given {
    async fn a_listener() -> Self {
        let authority = Authority::new("platform");
        let folder = tempfile::tempdir().unwrap();
        let server = authority.server();
        std::fs::write(folder.path().join("tls.crt"), server.chain).unwrap();
        crate::files::create_secret(&folder.path().join("tls.key"), server.key.as_bytes()).unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.0.pem()).unwrap();
        std::fs::write(folder.path().join("ca.crl"), authority.crl(&[], 2100)).unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            certificate: path("tls.crt"),
            key: path("tls.key"),
            client_ca: path("ca.crt"),
            crl: Some(path("ca.crl")),
        };
        let (tls, reloader) = Tls::load(files).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(TcpIncoming::new(listener, tls.clone())));
        Self { authority, folder, address, tls, reloader, serving }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn client_config(&self, pair: Option<&Pair>) -> ClientConfig {
        client_config(&self.authority, pair, &rustls::version::TLS13)
    }

    /// What the listener answers, over a new connection.
    async fn ask(&self, config: &Arc<ClientConfig>) -> std::io::Result<(String, TlsStream<TcpStream>)> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok((answer, stream))
    }

    async fn ask_once(&self, config: ClientConfig) -> std::io::Result<String> {
        self.ask(&Arc::new(config)).await.map(|(answer, _)| answer)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut incoming: TcpIncoming) {
    while let Some(connection) = incoming.next().await {
        let mut connection = connection.unwrap();
        let answer = match connection.peer().caller() {
            Ok(caller) => caller.to_string(),
            Err(refused) => format!("refused: {refused}"),
        };
        connection.write_all(answer.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
    }
}

fn client_config(
    authority: &Authority,
    pair: Option<&Pair>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[tokio::test]
async fn a_caller_with_a_certificate_of_ours_is_known_by_its_uri_name() {
    let given = Given::a_listener().await;
    let client = given.authority.client(7);
    assert_eq!(given.ask_once(given.client_config(Some(&client))).await.unwrap(), RUNNER);
}

#[tokio::test]
async fn a07_callers_without_a_client_certificate_of_ours_get_no_byte() {
    let given = Given::a_listener().await;
    let stranger = Authority::new("platform");
    let mut server_only = client_params(7);
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut own = client_params(7);
    own.distinguished_name.push(DnType::CommonName, "runner");
    let key = KeyPair::generate().unwrap();
    let own = Pair { chain: own.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };

    for pair in [None, Some(stranger.client(7)), Some(own), Some(given.authority.sign(&server_only))] {
        assert!(given.ask_once(given.client_config(pair.as_ref())).await.is_err());
    }
    let good = given.authority.client(7);
    assert!(given.ask_once(given.client_config(Some(&good))).await.is_ok());
}

#[tokio::test]
async fn a08_a_certificate_without_a_name_completes_tls_but_is_refused() {
    let given = Given::a_listener().await;
    let mut nameless = client_params(7);
    nameless.subject_alt_names = Vec::new();
    nameless.distinguished_name.push(DnType::CommonName, "runner");
    let nameless = given.authority.sign(&nameless);
    let answer = given.ask_once(given.client_config(Some(&nameless))).await.unwrap();
    assert_eq!(answer, format!("refused: {}", PeerRefused::NoName));

    let mut authority = client_params(8);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = given.authority.sign(&authority);
    assert!(given.ask_once(given.client_config(Some(&authority))).await.is_err());
}

#[tokio::test]
async fn a09_older_tls_and_other_protocols_than_http2_are_refused() {
    let given = Given::a_listener().await;
    let client = given.authority.client(7);
    let older = client_config(&given.authority, Some(&client), &rustls::version::TLS12);
    assert!(given.ask_once(older).await.is_err());
    for protocols in [vec![b"http/1.1".to_vec()], Vec::new()] {
        let mut config = given.client_config(Some(&client));
        config.alpn_protocols = protocols;
        let answer = given.ask_once(config).await;
        assert!(!answer.is_ok_and(|answer| !answer.is_empty()));
    }
}

#[tokio::test]
async fn a10_a_revoked_client_is_refused_and_cannot_resume_an_earlier_session() {
    let mut given = Given::a_listener().await;
    let client = given.authority.client(7);
    // One config for all connections: it holds the client's session store.
    let config = Arc::new(given.client_config(Some(&client)));
    for _ in 0..2 {
        let (_, stream) = given.ask(&config).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }

    given.write("ca.crl", &given.authority.crl(&[7], 2100));
    given.reloader.reload_now().await.unwrap();

    assert!(given.ask(&config).await.is_err());
    let other = given.authority.client(8);
    assert!(given.ask_once(given.client_config(Some(&other))).await.is_ok());
}

#[tokio::test]
async fn a11_an_expired_client_certificate_is_refused() {
    let given = Given::a_listener().await;
    let mut expired = client_params(7);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let expired = given.authority.sign(&expired);
    assert!(given.ask_once(given.client_config(Some(&expired))).await.is_err());
}

/// Whoever can read the key can be the broker.
/// A connection that says nothing would hold its place among the permits for ever.
#[tokio::test(start_paused = true)]
async fn a42_a_connection_that_says_nothing_is_closed_and_one_that_spoke_is_not() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(2));
    let connect = || {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let permit = permits.clone().try_acquire_owned().unwrap();
        (Connection::over_socket(ours, Peer::for_tests(Err(PeerRefused::NoName)), permit), theirs)
    };
    let (mut silent, _peer) = connect();
    assert_eq!(silent.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);

    let (mut spoken, mut peer) = connect();
    peer.write_all(b"P").await.unwrap();
    assert_eq!(spoken.read_u8().await.unwrap(), b'P');
    let waited = tokio::time::timeout(Duration::from_hours(1), spoken.read_u8()).await;
    assert!(waited.is_err(), "its silence is its own business now");
}

/// The paused clock drives the looks alone; no connection is made while it is paused.
#[tokio::test]
async fn a42_clients_that_stall_or_break_their_handshake_hold_up_nobody() {
    let given = Given::a_listener().await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(TcpStream::connect(given.address).await.unwrap());
        let mut broken = TcpStream::connect(given.address).await.unwrap();
        broken.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    let client = given.authority.client(7);
    assert_eq!(given.ask_once(given.client_config(Some(&client))).await.unwrap(), RUNNER);
}

#[tokio::test(start_paused = true)]
async fn a42_a_stalled_handshake_is_closed_in_time() {
    let given = Given::a_listener().await;
    let mut stalled = TcpStream::connect(given.address).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(began.elapsed().as_secs(), incoming::HANDSHAKE_MAX.as_secs());
}

#[tokio::test]
async fn a_caller_of_a_socket_is_its_name_and_uid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sock");
    let mut incoming = SocketIncoming::bind("job-runner", &path, 0o660).await.unwrap();

    let _client = tokio::net::UnixStream::connect(&path).await.unwrap();
    let connection = incoming.next().await.unwrap().unwrap();

    let uid = rustix::process::getuid().as_raw();
    let expected = Caller::Socket { name: "job-runner".into(), uid };
    assert_eq!(connection.peer().caller(), Ok(&expected));
}
