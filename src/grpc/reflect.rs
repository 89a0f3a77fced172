//! Reflection, v1 and v1alpha (old grpcurl speaks only that), for callers with the `reflect` permission.

use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::{peer, status};
use crate::pb;
use crate::policy::{Permission, Policy};
use crate::reason::Refused;

/// Lets reflection through to those who may.
#[derive(Clone)]
pub(super) struct MayReflect(pub(super) Arc<Policy>);

impl Interceptor for MayReflect {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let caller = peer::caller(&request)?;
        if self.0.allows_about_broker(&caller, Permission::Reflect) {
            return Ok(request);
        }
        Err(status::of(&Refused::Denied))
    }
}

/// What reflection knows: our contract, health, and the details of errors, without which grpcurl
/// prints those as base64.
pub(super) fn builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
