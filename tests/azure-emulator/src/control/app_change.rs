//! Changes to apps: what they authenticate with, and where they are present.

use super::Change;
use crate::credentials::{Certificate, read_key};
use crate::world::{App, Secret, ServicePrincipal, TrustedIssuer, World, same};

pub(super) fn apply(change: Change, world: &mut World) -> Result<(), String> {
    match change {
        Change::AddSecret { client_id, value } => {
            secrets(world, &client_id)?.push(Secret { value, expires_at: None });
        }
        Change::RemoveSecret { client_id, value } => {
            secrets(world, &client_id)?.retain(|secret| secret.value != value);
        }
        Change::SetSecret { client_id, value, expires_at } => {
            let secrets = secrets(world, &client_id)?;
            secrets.retain(|secret| secret.value != value);
            secrets.push(Secret { value, expires_at });
        }
        Change::AddCertificate { client_id, certificate } => {
            Certificate::read(&certificate).ok_or("this is no certificate")?;
            app(world, &client_id)?.certificates.push(certificate);
        }
        Change::RemoveCertificate { client_id, certificate } => {
            let thumbprint = Certificate::read(&certificate).map(|it| it.thumbprint);
            app(world, &client_id)?
                .certificates
                .retain(|known| Certificate::read(known).map(|it| it.thumbprint) != thumbprint);
        }
        Change::AddFederated { client_id, credential } => {
            app(world, &client_id)?.federated.push(credential);
        }
        Change::RemoveFederated { client_id, issuer, subject } => {
            app(world, &client_id)?.federated.retain(|it| it.issuer != issuer || it.subject != subject);
        }
        Change::SetIssuer { issuer, keys } => {
            let is_good = keys.iter().all(|key| read_key(key).is_some());
            is_good.then_some(()).ok_or("a key is neither a JWK of RSA nor PEM")?;
            world.issuers.retain(|known| known.issuer != issuer);
            world.issuers.push(TrustedIssuer { issuer, keys });
        }
        Change::SetServicePrincipal { client_id, tenant, oid, present } => {
            let known = world.tenant(&tenant).cloned().ok_or_else(|| format!("no tenant {tenant}"))?;
            let app = app(world, &client_id)?;
            app.service_principals.retain(|it| !known.is_called(&it.tenant));
            app.service_principals.push(ServicePrincipal { tenant: known.id, oid, present });
        }
        other => return Err(format!("{other:?} is no change to an app")),
    }
    Ok(())
}

fn app<'a>(world: &'a mut World, client_id: &str) -> Result<&'a mut App, String> {
    let mut apps = world.apps.iter_mut();
    apps.find(|it| same(&it.client_id, client_id)).ok_or_else(|| format!("no app {client_id}"))
}

fn secrets<'a>(world: &'a mut World, client_id: &str) -> Result<&'a mut Vec<Secret>, String> {
    app(world, client_id).map(|it| &mut it.secrets)
}
