//! A platform's authority and three certificates of it: the broker's, the IDE backend's, a stranger's.

use std::fs;
use std::path::Path;

use azdo_broker::files::create_secret;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::outcome::Outcome;

/// Whom policy knows.
pub(crate) const IDE_BACKEND: &str = "spiffe://platform.example/ide-backend";
/// Whom it does not, though the authority is the same.
pub(crate) const STRANGER: &str = "spiffe://platform.example/stranger";

/// Writes `ca.pem` and for each of `broker`, `ide-backend`, `stranger` a `.pem` and a `.key`. The
/// authority's own key is written nowhere.
pub(crate) fn write(dir: &Path) -> Outcome<()> {
    let authority = authority()?;
    fs::write(dir.join("ca.pem"), authority.pem())?;

    let server = [dns("localhost")?, SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
    issue(&authority, &dir.join("broker"), server.into(), ExtendedKeyUsagePurpose::ServerAuth)?;
    for (file, name) in [("ide-backend", IDE_BACKEND), ("stranger", STRANGER)] {
        let names = vec![SanType::URI(name.try_into()?)];
        issue(&authority, &dir.join(file), names, ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(())
}

fn authority() -> Outcome<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "demo platform CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    file: &Path,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
) -> Outcome<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    fs::write(file.with_extension("pem"), certificate.pem())?;
    Ok(create_secret(&file.with_extension("key"), key.serialize_pem().as_bytes())?)
}

fn dns(name: &str) -> Outcome<SanType> {
    Ok(SanType::DnsName(name.try_into()?))
}
