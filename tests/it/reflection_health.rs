//! What clients without our proto files and orchestrators ask: reflection and health.

use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{Client, IDE_BACKEND, PATIENCE, STRANGER, TestApp};

/// The services reflection v1 names, or the code of its refusal.
async fn services(client: &Client) -> Result<Vec<String>, Code> {
    let ask = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(client.0.clone());
    let asked = reflection.server_reflection_info(tokio_stream::once(ask)).await;
    let answer = asked.map_err(|status| status.code())?.into_inner().next().await.unwrap();
    match answer.map_err(|status| status.code())?.message_response.unwrap() {
        v1::server_reflection_response::MessageResponse::ListServicesResponse(listed) => {
            Ok(listed.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// The same by v1alpha, which is all that old grpcurl speaks.
async fn describes_by_v1alpha(client: &Client, symbol: &str) -> Result<usize, Code> {
    let request = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.into());
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(client.0.clone());
    let asked = reflection.server_reflection_info(tokio_stream::once(ask)).await;
    let answer = asked.map_err(|status| status.code())?.into_inner().next().await.unwrap();
    match answer.map_err(|status| status.code())?.message_response.unwrap() {
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(files) => {
            Ok(files.file_descriptor_proto.len())
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn health(client: &Client, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest { service: service.into() };
    let answer = HealthClient::new(client.0.clone()).check(request).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test]
async fn the_operator_reads_the_contract_by_both_reflections() {
    let app = TestApp::empty().await;
    let operator = app.operator().await;
    let services = services(&operator).await.unwrap();
    for name in ["CredentialBroker", "Connections", "Integrations", "Operations"] {
        assert!(services.contains(&format!("azdo.broker.v1.{name}")), "{services:?}");
    }
    for symbol in [
        "azdo.broker.v1.CredentialBroker",
        "azdo.broker.v1.CredentialBroker.GetServiceUserToken",
        "grpc.health.v1.Health",
        // Else grpcurl prints the details of errors as base64.
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    ] {
        assert!(0 < describes_by_v1alpha(&operator, symbol).await.unwrap(), "{symbol}");
    }
}

#[tokio::test]
async fn a14_reflection_needs_its_permission() {
    let app = TestApp::empty().await;
    for client in [app.job_runner().await, app.over_tls(IDE_BACKEND).await, app.over_tls(STRANGER).await] {
        assert_eq!(services(&client).await, Err(Code::PermissionDenied));
        let described = describes_by_v1alpha(&client, "azdo.broker.v1.CredentialBroker").await;
        assert_eq!(described, Err(Code::PermissionDenied));
    }
}

#[tokio::test]
async fn health_answers_by_names_that_mean_something() {
    let app = TestApp::empty().await;
    let job = app.job_runner().await;
    let all_serve = async {
        for name in ["", "azdo.broker.v1.CredentialBroker", "store", "keys", "audit"] {
            while health(&job, name).await != Ok(ServingStatus::Serving) {}
        }
    };
    tokio::time::timeout(PATIENCE, all_serve).await.unwrap();
    assert_eq!(health(&job, "no-such-thing").await, Err(Code::NotFound));
}
