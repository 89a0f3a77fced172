//! The `Operations` service: `AcceptRestore` is built, the rest not yet.

use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{CHANGE_DEADLINE, Face, asking, encode, parse, status};
use crate::operations::RestoreScope;
use crate::pb;
use crate::pb::operations_server::Operations;
use crate::reason::Refused;

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
        request: Request<pb::AcceptRestoreRequest>,
    ) -> Result<Response<pb::AcceptRestoreResponse>, Status> {
        let asked = request.get_ref();
        let asking = asking("AcceptRestore", &request, &asked.actor, &asked.note)?;
        self.call(CHANGE_DEADLINE, async {
            let scope = match (asked.all_accounts, &asked.connection) {
                (true, None) if asked.account_id.is_empty() => RestoreScope::All,
                (true, _) => {
                    return Err(Refused::invalid(
                        "all_accounts",
                        "is not given with an account or connection",
                    ));
                }
                (false, None) => RestoreScope::Account(parse::account(&asked.account_id)?),
                (false, Some(connection)) => {
                    let account = parse::account(&asked.account_id)?;
                    RestoreScope::Connection(account, parse::role(Some(connection))?)
                }
            };
            let restored = self.operations.accept_restore(asking, scope, asked.dry_run).await?;
            let accepted = restored.iter().filter(|one| one.refused.is_none()).count();
            // Those that need somebody first.
            let (refused, taken): (Vec<_>, Vec<_>) = restored.iter().partition(|one| one.refused.is_some());
            let shown = refused.into_iter().chain(taken).take(SHOWN_MAX);
            Ok(pb::AcceptRestoreResponse {
                accepted: u32::try_from(accepted).unwrap_or(u32::MAX),
                refused: u32::try_from(restored.len() - accepted).unwrap_or(u32::MAX),
                connections: shown.map(encode::restored).collect(),
            })
        })
        .await
    }
}

const SHOWN_MAX: usize = 100;
