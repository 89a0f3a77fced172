//! The files a broker starts from, in a directory of its own: configuration, policy, keys, TLS.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use azdo_broker::offline;
use azure_emulator::Emulator;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

pub(crate) const IDE_BACKEND: &str = "spiffe://platform.test/ide-backend";
pub(crate) const STRANGER: &str = "spiffe://platform.test/stranger";

/// The example world's directory, app and its secret.
pub(crate) const TENANT: &str = "10000000-0000-4000-a000-000000000001";
pub(crate) const CLIENT_ID: &str = "ac3e0000-0000-4000-a000-000000000001";
pub(crate) const SECRET: &str = "emu8Q~acme-secret.value+one/x=";

/// A directory with everything `serve` reads, and the authority that signs its callers.
pub(crate) struct Files {
    folder: TempDir,
    /// Keys of `[links]`, `[entra]` and `[devops]` that one test sets.
    pub(crate) links_keys: &'static str,
    pub(crate) entra_keys: &'static str,
    pub(crate) devops_keys: &'static str,
    /// The key of `[store]`: a file of this folder, or a database.
    store: String,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    /// Writes all files and makes key and store by the offline commands.
    pub(crate) async fn make(emulator: &Emulator) -> Self {
        Self::make_over(emulator, "path = \"azdo-broker.db\"").await
    }

    /// The same with another store.
    pub(crate) async fn make_over(emulator: &Emulator, store: &str) -> Self {
        let files = Self::lay(emulator, store);
        offline::keys_new(&files.path("azdo-broker.key")).unwrap();
        offline::store_init(&files.config()).await.unwrap();
        files
    }

    /// The files of another replica: the same key, the same store.
    pub(crate) fn of_replica(&self, emulator: &Emulator) -> Self {
        let files = Self::lay(emulator, &self.store);
        std::fs::copy(self.path("azdo-broker.key"), files.path("azdo-broker.key")).unwrap();
        files
    }

    fn lay(emulator: &Emulator, store: &str) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
            links_keys: "",
            entra_keys: "",
            devops_keys: "",
            store: store.to_owned(),
            authority: authority("platform"),
        };
        let mut server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (chain, key) = sign(&files.authority, &server);
        files.write("tls.crt", &chain);
        files.write("tls.key", &key);
        files.write("ca.crt", &files.authority.pem());
        files.write("emulator-ca.crt", emulator.ca_pem());
        files.write("policy.toml", POLICY);
        files.write_config(emulator, 0);
        files
    }

    /// Writes the configuration. A restarted broker keeps the port its pages had.
    pub(crate) fn write_config(&self, emulator: &Emulator, links_port: u16) {
        let text = CONFIG
            .replace("{links_port}", &links_port.to_string())
            .replace("{links_keys}", self.links_keys)
            .replace("{store}", &self.store)
            .replace("{entra_keys}", self.entra_keys)
            .replace("{devops_keys}", self.devops_keys)
            .replace("{browser}", &emulator.browser_url())
            .replace("{proxy}", &emulator.proxy_url());
        self.write("azdo-broker.toml", &text);
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("azdo-broker.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All lines of the audit.
    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The TLS of a workload with this SPIFFE id, or of one without a certificate.
    pub(crate) fn tls_of(&self, spiffe_id: Option<&str>) -> Arc<ClientConfig> {
        self.tls_signed_by(&self.authority, spiffe_id)
    }

    /// The TLS of somebody whose certificate another authority signed.
    pub(crate) fn tls_of_another_authority(&self, spiffe_id: &str) -> Arc<ClientConfig> {
        self.tls_signed_by(&authority("elsewhere"), Some(spiffe_id))
    }

    fn tls_signed_by(
        &self,
        signer: &CertifiedIssuer<'static, KeyPair>,
        spiffe_id: Option<&str>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match spiffe_id {
            None => builder.with_no_client_auth(),
            Some(id) => {
                let mut params = CertificateParams::default();
                params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                let (chain, key) = sign(signer, &params);
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, as PEM.
fn sign(signer: &CertifiedIssuer<'static, KeyPair>, params: &CertificateParams) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, signer).unwrap().pem(), key.serialize_pem())
}

const CONFIG: &str = r#"
[[listen.socket]]
name = "operator"
path = "operator.sock"

[[listen.socket]]
name = "job-runner"
path = "job-runner.sock"

[listen]
tcp = "127.0.0.1:0"
links = "127.0.0.1:{links_port}"
admin = "127.0.0.1:0"

[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "ca.crt"

[links]
{links_keys}

[[links.return_target]]
name = "settings"
url = "/settings/azure-devops"

[store]
{store}

[devops]
{devops_keys}

[entra]
{entra_keys}
browser_authority = "{browser}"

[[entra.federated_source]]
name = "cluster"
file = "assertion.jwt"

[outgoing]
proxy = "{proxy}"
ca_file = "emulator-ca.crt"

[audit]
sync = "kernel"
"#;

const POLICY: &str = r#"
[[rule]]
name = "operator"
callers = ["socket:operator"]
accounts = ["acme", "globex"]
allow = ["*"]

[[rule]]
name = "jobs"
callers = ["socket:job-runner"]
accounts = ["acme"]
allow = ["release.service_user", "git", "repos"]

[[rule]]
name = "ide"
callers = ["spiffe://platform.test/ide-backend"]
accounts = ["acme"]
allow = ["release.service_user", "release.developer", "git", "repos", "report", "link", "connections.read"]
"#;
