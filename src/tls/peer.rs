//! Who is at the other end: a name out of a certificate that was verified, or off a socket.
//!
//! The rules are those of SPIFFE's X509-SVID: exactly one URI name, no authority's certificate, no root
//! path, nothing that two readers could read in two ways. Without a URI name, one DNS name will do; a common
//! name never does.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::caller::Caller;

/// Whom a connection belongs to. A refused peer may connect, and every call of it is refused.
#[derive(Clone, Debug)]
pub struct Peer(Result<Caller, PeerRefused>);

/// Why a peer has no name here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PeerRefused {
    #[error("the client sent no certificate")]
    NoCertificate,
    #[error("the client certificate cannot be read")]
    Malformed,
    #[error("the client certificate is that of a certificate authority")]
    Authority,
    #[error("the client certificate may sign certificates or CRLs")]
    MaySign,
    #[error("the client certificate has no URI name and no DNS name: a common name does not count")]
    NoName,
    #[error("the client certificate has more than one URI name")]
    SeveralUris,
    #[error("the client certificate has more than one DNS name and no URI name")]
    SeveralDnsNames,
    #[error("the URI name of the client certificate is longer than {URI_LEN_MAX} bytes")]
    TooLong,
    #[error("the URI name of the client certificate {0}")]
    Uri(&'static str),
    #[error("the DNS name of the client certificate {0}")]
    Dns(&'static str),
    #[error("the peer of the socket is the user for users unknown here (uid {UID_UNMAPPED})")]
    UnmappedUser,
}

impl Peer {
    /// The caller, if it has a name.
    pub fn caller(&self) -> Result<&Caller, PeerRefused> {
        self.0.as_ref().map_err(|refused| *refused)
    }

    /// The peer whose verified certificate this is.
    pub(super) fn of_certificate(der: Option<&[u8]>) -> Self {
        Self(der.ok_or(PeerRefused::NoCertificate).and_then(caller_of))
    }

    pub(super) fn of_socket(name: &std::sync::Arc<str>, uid: u32) -> Self {
        if uid == UID_UNMAPPED {
            return Self(Err(PeerRefused::UnmappedUser));
        }
        Self(Ok(Caller::Socket { name: name.clone(), uid }))
    }

    /// A peer nobody verified, for tests of what comes after it.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_tests(caller: Result<Caller, PeerRefused>) -> Self {
        Self(caller)
    }
}

fn caller_of(der: &[u8]) -> Result<Caller, PeerRefused> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_error| PeerRefused::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerRefused::Malformed);
    }
    refuse_authority(&certificate)?;
    let names = certificate.subject_alternative_name().map_err(|_error| PeerRefused::Malformed)?;
    let names = names.map_or(&[][..], |extension| extension.value.general_names.as_slice());
    let mut uris = Vec::new();
    let mut dns_names = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns_names.push(*name),
            GeneralName::Invalid(..) => return Err(PeerRefused::Malformed),
            // Addresses, mail addresses and the like are no names of workloads.
            _ => {}
        }
    }
    match (uris.as_slice(), dns_names.as_slice()) {
        ([uri], _) => checked_uri(uri).map(|()| Caller::Uri((*uri).into())),
        ([_, ..], _) => Err(PeerRefused::SeveralUris),
        ([], [name]) => checked_dns(name).map(Caller::Dns),
        ([], []) => Err(PeerRefused::NoName),
        ([], [_, ..]) => Err(PeerRefused::SeveralDnsNames),
    }
}

fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), PeerRefused> {
    let constraints = certificate.basic_constraints().map_err(|_error| PeerRefused::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(PeerRefused::Authority);
    }
    let usage = certificate.key_usage().map_err(|_error| PeerRefused::Malformed)?;
    if usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
        return Err(PeerRefused::MaySign);
    }
    Ok(())
}

fn checked_uri(uri: &str) -> Result<(), PeerRefused> {
    if URI_LEN_MAX < uri.len() {
        return Err(PeerRefused::TooLong);
    }
    if !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PeerRefused::Uri("may hold only visible ASCII characters"));
    }
    // The name must have an authority: else `dns:x` or `socket:x` would look like another kind of caller.
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(PeerRefused::Uri("must have an authority"));
    };
    let scheme_is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase()) || !scheme.bytes().all(scheme_is_plain) {
        return Err(PeerRefused::Uri("must have a scheme in lower case"));
    }
    if rest.contains(['?', '#']) {
        return Err(PeerRefused::Uri("must have no query and no fragment"));
    }
    if scheme == "spiffe" { checked_spiffe(rest) } else { checked_authority(rest) }
}

fn checked_authority(rest: &str) -> Result<(), PeerRefused> {
    let (authority, _path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty()
        || authority.contains('@')
        || authority.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        return Err(PeerRefused::Uri("must have an authority in lower case, without user"));
    }
    Ok(())
}

fn checked_spiffe(rest: &str) -> Result<(), PeerRefused> {
    let (domain, path) = rest.split_once('/').ok_or(PeerRefused::Uri("must have a path"))?;
    let in_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if domain.is_empty() || TRUST_DOMAIN_LEN_MAX < domain.len() || !domain.bytes().all(in_domain) {
        return Err(PeerRefused::Uri("must have a trust domain in lower case, without user and port"));
    }
    let in_segment = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    for segment in path.split('/') {
        if matches!(segment, "" | "." | "..") || !segment.bytes().all(in_segment) {
            return Err(PeerRefused::Uri("must have a path of plain segments, without escapes"));
        }
    }
    Ok(())
}

fn checked_dns(name: &str) -> Result<std::sync::Arc<str>, PeerRefused> {
    if name.contains('*') {
        return Err(PeerRefused::Dns("must have no wildcard"));
    }
    if DNS_LEN_MAX < name.len() {
        return Err(PeerRefused::Dns("is too long"));
    }
    let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.split('.').any(|label| label.is_empty() || !label.bytes().all(in_label)) {
        return Err(PeerRefused::Dns("must have labels of letters, digits and hyphens"));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// SPIFFE's own limit.
const URI_LEN_MAX: usize = 2_048;
/// SPIFFE's own limit.
const TRUST_DOMAIN_LEN_MAX: usize = 255;
/// The limit of DNS.
const DNS_LEN_MAX: usize = 253;
/// What the kernel shows for a user that has no name in our user namespace: anybody.
const UID_UNMAPPED: u32 = 65_534;

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn params(uris: &[&str], dns_names: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        let dns_names = dns_names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        params.subject_alt_names = uris.chain(dns_names).collect();
        params.distinguished_name.push(DnType::CommonName, "ide.platform.example");
        params
    }

    fn caller(params: &CertificateParams) -> Result<Caller, PeerRefused> {
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Peer::of_certificate(Some(certificate.der())).caller().cloned()
    }

    #[test]
    fn one_uri_name_is_the_caller_and_dns_names_beside_it_are_not() {
        let named =
            caller(&params(&["spiffe://platform.example/ns/a/Runner-1"], &["a.example", "b.example"]));
        assert_eq!(named, Ok(Caller::Uri("spiffe://platform.example/ns/a/Runner-1".into())));
        assert_eq!(caller(&params(&[], &["IDE.example"])), Ok(Caller::Dns("ide.example".into())));
    }

    #[test]
    fn a08_certificates_of_several_or_no_names_or_of_authorities_are_refused() {
        let two = params(&["spiffe://a/b", "spiffe://a/c"], &[]);
        assert_eq!(caller(&two), Err(PeerRefused::SeveralUris));
        let twice = params(&["spiffe://a/b", "spiffe://a/b"], &[]);
        assert_eq!(caller(&twice), Err(PeerRefused::SeveralUris));
        assert_eq!(caller(&params(&[], &["a.example", "b.example"])), Err(PeerRefused::SeveralDnsNames));
        assert_eq!(caller(&params(&[], &[])), Err(PeerRefused::NoName));
        assert!(matches!(caller(&params(&[], &["*.example"])), Err(PeerRefused::Dns(_))));
        let mut authority = params(&["spiffe://a/b"], &[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(caller(&authority), Err(PeerRefused::Authority));
        for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            let mut signer = params(&["spiffe://a/b"], &[]);
            signer.key_usages = vec![KeyUsagePurpose::DigitalSignature, usage];
            assert_eq!(caller(&signer), Err(PeerRefused::MaySign));
        }
        assert_eq!(Peer::of_certificate(None).caller(), Err(PeerRefused::NoCertificate));
        assert_eq!(Peer::of_certificate(Some(b"no der")).caller(), Err(PeerRefused::Malformed));
    }

    #[test]
    fn a08_uri_names_that_two_readers_read_in_two_ways_are_refused() {
        for uri in [
            "spiffe://platform.example",
            "spiffe://platform.example/",
            "spiffe:///x",
            "SPIFFE://a/b",
            "Spiffe://a/b",
            "spiffe://Platform.example/x",
            "spiffe://a/%62",
            "spiffe://a/b%2fc",
            "spiffe://a/b?q",
            "spiffe://a/b#f",
            "spiffe://u@a/b",
            "spiffe://a:8443/b",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b c",
            "spiffe://a/b*",
            "spiffe://a/b\nc",
            "spiffe:a/b",
            "spiffe:/a/b",
            "socket:job-runner",
            "dns:ide.example",
            "urn:x:y",
            "://a/b",
            "",
            "https:///x",
            "https://u@a/b",
            "https://A/b",
            "https://a/b?q",
        ] {
            assert!(matches!(caller(&params(&[uri], &[])), Err(PeerRefused::Uri(_))), "{uri}");
        }
        let long = format!("spiffe://a/{}", "b".repeat(URI_LEN_MAX));
        assert_eq!(caller(&params(&[&long], &[])), Err(PeerRefused::TooLong));
    }

    #[test]
    fn the_user_for_unknown_users_is_refused() {
        assert_eq!(Peer::of_socket(&"jobs".into(), 65_534).caller(), Err(PeerRefused::UnmappedUser));
        let known = Caller::Socket { name: "jobs".into(), uid: 0 };
        assert_eq!(Peer::of_socket(&"jobs".into(), 0).caller(), Ok(&known));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            proptest::prop_assert!(Peer::of_certificate(Some(&bytes)).caller().is_err());
        }
    }
}
