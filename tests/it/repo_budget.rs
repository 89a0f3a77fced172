//! What an identity may use of Azure DevOps, and who comes last when little of it is left (P8, azure.md 3.10).

use std::time::Duration;

use azdo_broker::pb;
use azure_emulator::Fault;
use tonic::Code;

use crate::support::{TestApp, assert_refused, list_request};

/// What an identity may ask in five minutes.
const LIMIT: usize = 40;

fn list_anew() -> pb::ListReadableReposRequest {
    pb::ListReadableReposRequest { max_age: Some(Duration::ZERO.try_into().unwrap()), ..list_request() }
}

/// Clones use the same identity without asking us: lists leave them their part, and are told when to come back.
#[tokio::test]
async fn lists_leave_a_part_of_what_azure_devops_allows_to_clones() {
    let app = TestApp::linked().await;
    let (job, operator) = (app.job_runner().await, app.operator().await);
    app.fault(Fault::DevopsLimit { limit: LIMIT });
    let before = app.devops_requests();
    let mut refused = 0;
    for _ in 0..LIMIT {
        match job.repos_page(list_anew()).await {
            Ok(listed) => assert_eq!(listed.repos.len(), 3),
            refusal => {
                assert_refused(refusal, Code::Unavailable, "UPSTREAM_THROTTLED");
                refused += 1;
            }
        }
    }
    let used = app.devops_requests() - before;
    assert!(0 < refused && LIMIT / 2 < used && used <= LIMIT * 3 / 4 + 2, "{used} of {LIMIT}");

    let request = pb::CheckIntegrationRequest { account_id: "acme".into(), actor: "ops".into() };
    let checks = operator.integrations().check_integration(request).await.unwrap().into_inner().checks;
    let membership = checks.iter().find(|check| check.name == "membership").unwrap();
    assert_eq!(
        membership.outcome(),
        pb::CheckOutcome::Passed,
        "who waits for a person goes on: {membership:?}"
    );
    assert!(app.emulator.requests().iter().all(|request| request.status != Some(429)));

    app.advance(Duration::from_mins(5));
    assert_eq!(job.repos_page(list_anew()).await.unwrap().repos.len(), 3);
}
