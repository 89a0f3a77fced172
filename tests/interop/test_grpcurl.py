"""grpcurl 1.8.6, which people at a terminal use: it speaks reflection v1alpha only."""

import json
import pathlib
import subprocess
import sys

import pytest

PROTOS = pathlib.Path(__file__).parents[2] / "proto"
METHOD = "azdo.broker.v1.CredentialBroker/GetServiceUserToken"


@pytest.fixture
def grpcurl(world):
    program = pathlib.Path(sys.executable).parent / "grpcurl"

    def run(*arguments, body=None):
        data = ["-d", json.dumps(body)] if body is not None else []
        socket = ["-plaintext", "-unix", "-authority", "localhost"]
        return subprocess.run(
            [program, *socket, *data, world["AZDO_BROKER_SOCKET"], *arguments],
            capture_output=True, text=True, timeout=30,
        )

    def over_tls(method, body):
        files = ["-cacert", world["AZDO_BROKER_CA"], "-cert", world["IDE_BACKEND_CERT"], "-key", world["IDE_BACKEND_KEY"]]
        proto = ["-import-path", PROTOS, "-proto", "azdo/broker/v1/credential_broker.proto"]
        return subprocess.run(
            [program, *files, *proto, "-d", json.dumps(body), world["AZDO_BROKER_TCP"], method],
            capture_output=True, text=True, timeout=30,
        )

    run.over_tls = over_tls
    return run


def test_it_lists_the_services(grpcurl):
    listed = grpcurl("list")
    assert listed.returncode == 0, listed.stderr
    assert "azdo.broker.v1.Connections" in listed.stdout.split()


def test_it_describes_a_method_and_its_request(grpcurl):
    described = grpcurl("describe", METHOD.replace("/", "."))
    assert described.returncode == 0, described.stderr
    assert "GetServiceUserTokenRequest" in described.stdout
    described = grpcurl("describe", "azdo.broker.v1.GetServiceUserTokenRequest")
    assert "string account_id = 1;" in described.stdout, described


def test_it_calls_over_the_socket(grpcurl):
    called = grpcurl(METHOD, body={"account_id": "acme"})
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["identity"]["login"] == "svc@contoso.com"


def test_it_calls_over_mutual_tls_with_the_protos(grpcurl):
    called = grpcurl.over_tls(METHOD, {"account_id": "acme"})
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["tokenType"] == "Bearer"


def test_it_shows_error_details_in_words(grpcurl):
    called = grpcurl(
        "azdo.broker.v1.CredentialBroker/GetDeveloperToken", body={"account_id": "acme", "developer_id": "nobody"}
    )
    assert called.returncode != 0
    for words in ("NOT_LINKED", "google.rpc.ErrorInfo", "azdo-broker", "what_to_do"):
        assert words in called.stderr, called.stderr
