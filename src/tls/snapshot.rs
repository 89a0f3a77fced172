//! One state of the TLS files, read and checked as a whole.
//!
//! A snapshot is built from bytes, not from paths, so that what was checked is what is used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::files::{FileProblem, read_secret};

/// Where certificate, key, client CAs and CRLs lie, all as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our certificate, then its intermediates.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who may sign callers' certificates.
    pub client_ca: PathBuf,
    /// One CRL for each authority of a caller's chain; a certificate that none speaks about is refused.
    pub crl: Option<PathBuf>,
}

/// Why the files are no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the private key cannot be used")]
    Secret(#[source] FileProblem),
    #[error("{path} is larger than {FILE_LEN_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} is not the PEM it should be")]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{path} holds no {what}")]
    Empty { path: PathBuf, what: &'static str },
    #[error("{path} holds a certificate that cannot be read")]
    Certificate { path: PathBuf },
    #[error("{certificate} and {key} do not belong together")]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{path} holds a certificate that cannot be an authority")]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the client authorities and CRLs cannot be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the TLS library does not offer TLS 1.3")]
    Protocol(#[source] rustls::Error),
}

/// A TLS configuration whose parts belong together.
#[derive(Debug)]
pub struct TlsSnapshot {
    config: Arc<ServerConfig>,
    expires_at: Timestamp,
}

/// The bytes of the files at one moment.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Vec<u8>,
    crl: Option<Vec<u8>>,
}

/// Tells contents apart without keeping the key's bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ContentsDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl TlsSnapshot {
    /// Reads and checks the files.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Self::build(files, &Contents::read(files)?)
    }

    pub(super) fn build(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates(&files.certificate, &contents.certificate)?;
        let expires_at = expiry(&chain[0]).ok_or_else(|| unreadable(&files.certificate))?;
        let pair = certified_key(files, chain, &contents.key, &provider)?;
        let verifier = verifier(files, contents, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Protocol)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        // Invariant 2 of the module: a resumed session would skip the CRL.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), expires_at })
    }

    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Until when our own certificate is valid.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read_secret(&files.key, KEY_LEN_MAX).map_err(TlsError::Secret)?,
            client_ca: read(&files.client_ca)?,
            crl: files.crl.as_deref().map(read).transpose()?,
        })
    }

    pub(super) fn digest(&self) -> ContentsDigest {
        let mut context = digest::Context::new(&digest::SHA256);
        let crl = self.crl.as_deref().unwrap_or_default();
        for part in [&self.certificate, &self.key[..], &self.client_ca, crl] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; digest::SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        ContentsDigest(digest)
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, TlsError> {
    let path = path.as_ref();
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut content));
    match read {
        Ok(len) if FILE_LEN_MAX < len as u64 => Err(TlsError::TooLarge { path: path.to_owned() }),
        Ok(_) => Ok(content),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}

fn certificates(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(path, content, "certificate")
}

/// All sections of one kind. A file cut in the middle of a section is an error, not a shorter file.
fn sections<T: PemObject>(path: &Path, content: &[u8], what: &'static str) -> Result<Vec<T>, TlsError> {
    let all: Vec<T> = T::pem_slice_iter(content)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if all.is_empty() { Err(TlsError::Empty { path: path.to_owned(), what }) } else { Ok(all) }
}

fn certified_key(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|source| TlsError::Pem { path: files.key.clone(), source })?;
    let pair =
        |source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let key = provider.key_provider.load_private_key(key).map_err(pair)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(pair)?;
    Ok(certified)
}

fn verifier(
    files: &TlsFiles,
    contents: &Contents,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.client_ca, &contents.client_ca)? {
        roots
            .add(authority)
            .map_err(|source| TlsError::Authority { path: files.client_ca.clone(), source })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let (Some(path), Some(content)) = (&files.crl, &contents.crl) {
        let crls: Vec<CertificateRevocationListDer<'static>> = sections(path, content, "CRL")?;
        // An unknown status is refused: that is the default, and stays so by not being allowed here.
        builder = builder.with_crls(crls).enforce_revocation_expiration();
    }
    builder.build().map_err(TlsError::Verifier)
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

fn unreadable(path: &Path) -> TlsError {
    TlsError::Certificate { path: path.to_owned() }
}

pub(super) const ALPN_H2: &[u8] = b"h2";
/// CRLs of large authorities have some MiB; anything above this is not a TLS file.
/// A key is a few kilobytes.
const KEY_LEN_MAX: usize = 64 * 1024;
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;
