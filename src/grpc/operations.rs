//! The `Operations` service: none of it is built yet.

use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{Face, status};
use crate::pb;
use crate::pb::operations_server::Operations;

#[tonic::async_trait]
impl Operations for Face {
    type TailAuditStream = Empty<Result<pb::TailAuditResponse, Status>>;

    async fn explain_policy(
        &self,
        _request: Request<pb::ExplainPolicyRequest>,
    ) -> Result<Response<pb::ExplainPolicyResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn tail_audit(
        &self,
        _request: Request<pb::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        Err(status::unimplemented())
    }

    async fn who_got(
        &self,
        _request: Request<pb::WhoGotRequest>,
    ) -> Result<Response<pb::WhoGotResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn get_key_status(
        &self,
        _request: Request<pb::GetKeyStatusRequest>,
    ) -> Result<Response<pb::GetKeyStatusResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn rotate_data_key(
        &self,
        _request: Request<pb::RotateDataKeyRequest>,
    ) -> Result<Response<pb::RotateDataKeyResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn rewrap_keyring(
        &self,
        _request: Request<pb::RewrapKeyringRequest>,
    ) -> Result<Response<pb::RewrapKeyringResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn compact_store(
        &self,
        _request: Request<pb::CompactStoreRequest>,
    ) -> Result<Response<pb::CompactStoreResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn backup_store(
        &self,
        _request: Request<pb::BackupStoreRequest>,
    ) -> Result<Response<pb::BackupStoreResponse>, Status> {
        Err(status::unimplemented())
    }

    async fn accept_restore(
        &self,
        _request: Request<pb::AcceptRestoreRequest>,
    ) -> Result<Response<pb::AcceptRestoreResponse>, Status> {
        Err(status::unimplemented())
    }
}
