"""gRPC's own Python client: reflection, health, calls and rich errors."""

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from conftest import PACKAGE, Api


def refusal(call):
    """The status of a call that must fail, with its details by type."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    status = rpc_status.from_call(error)
    details = {}
    for packed in status.details if status else []:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.RetryInfo,
            error_details_pb2.Help,
            error_details_pb2.BadRequest,
        ):
            if packed.Is(kind.DESCRIPTOR):
                details[kind.__name__] = kind()
                packed.Unpack(details[kind.__name__])
    return error.code(), error.details(), details


def test_reflection_lists_the_services(over_socket):
    services = set(over_socket.database.get_services())
    expected = {"CredentialBroker", "Connections", "Integrations", "Operations"}
    assert {f"{PACKAGE}.{name}" for name in expected} <= services
    assert "grpc.health.v1.Health" in services


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_spoken_in_both_versions(over_socket, version):
    ask = over_socket.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.rpc.ErrorInfo")
    [answer] = list(ask(iter([request]), timeout=10))
    assert answer.file_descriptor_response.file_descriptor_proto, "clients cannot decode error details"


def test_reflection_is_refused_to_who_has_no_permission_for_it(mutual_tls):
    with mutual_tls("IDE_BACKEND") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([request]), timeout=10))
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("name", ["", f"{PACKAGE}.CredentialBroker", "store", "keys", "audit"])
def test_health_names_mean_something(over_socket, name):
    stub = health_pb2_grpc.HealthStub(over_socket.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_token_over_the_socket(over_socket):
    answer = over_socket.call("CredentialBroker/GetServiceUserToken", account_id="acme", purpose="interop")
    assert answer.token_type == "Bearer" and answer.access_token
    assert answer.identity.login == "svc@contoso.com"


def test_tokens_over_mutual_tls(over_socket, mutual_tls):
    with mutual_tls("IDE_BACKEND") as channel:
        api = Api(channel)
        # The types come from the socket's reflection: this caller may not reflect.
        api.pool = over_socket.pool
        headless = api.call("CredentialBroker/GetServiceUserToken", account_id="acme")
        developer = api.call("CredentialBroker/GetDeveloperToken", account_id="acme", developer_id="ana")
    assert headless.identity.login == "svc@contoso.com"
    assert developer.identity.login == "ana@contoso.com"
    assert headless.access_token != developer.access_token


def test_a_list_of_repositories(over_socket):
    answer = over_socket.call("CredentialBroker/ListReadableRepos", account_id="acme")
    names = {repo.name for repo in answer.repos}
    assert "analytics" in names and "secret" not in names
    assert answer.as_of.seconds


def test_a_stranger_is_refused(over_socket, mutual_tls):
    with mutual_tls("STRANGER") as channel:
        api = Api(channel)
        api.pool = over_socket.pool
        code, message, _ = refusal(lambda: api.call("CredentialBroker/GetServiceUserToken", account_id="acme"))
        unknown = refusal(lambda: api.call("CredentialBroker/GetServiceUserToken", account_id="nobody"))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert unknown[:2] == (code, message), "forbidden and unknown are one answer"


def test_a_missing_field_is_named(over_socket):
    code, _, details = refusal(lambda: over_socket.call("CredentialBroker/GetServiceUserToken"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == "account_id"


def test_a_lifetime_beyond_the_limit_is_named(over_socket):
    hour = duration_pb2.Duration(seconds=3600).seconds
    code, _, details = refusal(
        lambda: over_socket.call(
            "CredentialBroker/GetServiceUserToken", account_id="acme", min_ttl={"seconds": hour}
        )
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == "min_ttl"


def test_who_is_not_linked_is_told_with_reason_and_remedy(over_socket):
    code, message, details = refusal(
        lambda: over_socket.call("CredentialBroker/GetDeveloperToken", account_id="acme", developer_id="nobody")
    )
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    info = details["ErrorInfo"]
    assert (info.reason, info.domain) == ("NOT_LINKED", "azdo-broker")
    assert info.metadata["who_acts"] and info.metadata["what_to_do"]
    assert info.metadata["what_to_do"] in message


def test_an_outage_says_when_to_ask_again(world, over_socket):
    world.control("POST", "/_emu/faults", json={"switch": "ado.5xx"})
    try:
        code, _, details = refusal(
            lambda: over_socket.call("CredentialBroker/ListReadableRepos", account_id="acme", max_age={})
        )
    finally:
        world.control("DELETE", "/_emu/faults")
    assert code == grpc.StatusCode.UNAVAILABLE
    assert details["ErrorInfo"].reason == "UPSTREAM_UNAVAILABLE"
    assert 0 < details["RetryInfo"].retry_delay.seconds


def test_a_url_of_another_organization_is_refused_by_its_reason(over_socket):
    code, _, details = refusal(
        lambda: over_socket.call(
            "CredentialBroker/GetGitCredential", account_id="acme", url="https://dev.azure.com/fabrikam/p/_git/r"
        )
    )
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert details["ErrorInfo"].reason == "ORGANIZATION_MISMATCH"
