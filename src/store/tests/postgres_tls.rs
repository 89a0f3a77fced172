//! How a database off this machine is reached: by TLS, its name and its authority verified, or not at all.
//!
//! The server listens at a loopback address of its own, and is called by a name: to the broker it is a machine
//! somewhere.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::*;
use crate::outgoing::client_tls;
use crate::testing::TestPostgres;

struct Given {
    server: TestPostgres,
    address: IpAddr,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Given {
    /// A server whose certificate is for `db.test`, with an empty database.
    async fn a_server() -> Self {
        let authority = authority();
        let mut params = CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        let address = an_address();
        let server = TestPostgres::start_tls(address, &certificate, &key.serialize_pem());
        server.database().await;
        Self { server, address, authority }
    }

    async fn a_server_without_tls() -> Self {
        let address = an_address();
        let server = TestPostgres::start_with(&[format!("listen_addresses={address}")]);
        server.database().await;
        Self { server, address, authority: authority() }
    }

    fn place(&self, host: &str, ca: &str) -> StorePlace {
        let url = format!("postgresql://azdo_broker@{host}/broker0?hostaddr={}", self.address);
        let tls = client_tls(Some(ca.as_bytes())).unwrap();
        let place = PostgresPlace::parse(&url, None, tls, NonZeroUsize::MIN).unwrap();
        StorePlace::Postgres(Box::new(place))
    }

    /// Why there is no store at that place: the sentence, and what it came from.
    async fn refusal(&self, host: &str, ca: &str) -> (String, String) {
        let before = self.server.dump("broker0");
        let id = "store-1".parse().unwrap();
        let refused = Store::create(&self.place(host, ca), &id, b"keyring").await.unwrap_err();
        assert_eq!(self.server.dump("broker0"), before, "it is left as it is");
        let mut cause: &dyn std::error::Error = &refused;
        while let Some(source) = cause.source() {
            cause = source;
        }
        (refused.to_string(), cause.to_string())
    }
}

/// All servers have the same port, and tests run at once: in processes of their own or in one.
fn an_address() -> IpAddr {
    static COUNT: AtomicU8 = AtomicU8::new(70);
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, COUNT.fetch_add(1, Ordering::Relaxed), high, low))
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn a_server_with_the_right_certificate_holds_a_store_and_everything_is_by_tls() {
    let given = Given::a_server().await;
    let store = super::postgres::a_store_in(&given.place("db.test", &given.authority.pem())).await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    // The line over which other replicas tell their news is a connection of its own.
    assert_eq!(store.news().next().await, News::StoreReturned);

    let used = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                WHERE application_name = 'azdo-broker'";
    assert_eq!(given.server.ask("broker0", used).await, ["t"]);
}

#[tokio::test]
async fn a_server_whose_certificate_another_authority_signed_is_refused() {
    let given = Given::a_server().await;
    let (told, cause) = given.refusal("db.test", &authority().pem()).await;
    assert!(told.contains("postgresql://azdo_broker@db.test"), "{told}");
    assert!(cause.contains("UnknownIssuer") || cause.contains("BadSignature"), "{cause}");
}

#[tokio::test]
async fn a_server_whose_certificate_is_for_another_name_is_refused() {
    let given = Given::a_server().await;
    let (_, cause) = given.refusal("other.test", &given.authority.pem()).await;
    assert!(cause.contains("not valid for name") && cause.contains("other.test"), "{cause}");
}

#[tokio::test]
async fn a_server_off_this_machine_without_tls_is_refused() {
    let given = Given::a_server_without_tls().await;
    let (told, _) = given.refusal("db.test", &given.authority.pem()).await;
    assert!(told.contains("cannot be reached"), "{told}");
}
