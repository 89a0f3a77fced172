"""Starts the demo's world once, and knows how to reach it."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import grpc
import msal
import pytest
import requests
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TENANT = "10000000-0000-4000-a000-000000000001"
CLIENT = "ac3e0000-0000-4000-a000-000000000001"
SECRET = "emu8Q~acme-secret.value+one/x="
DEVOPS = "499b84ac-1321-427f-aa17-267ca6975798"
REDIRECT_URI = "http://localhost/complete/azure_active_directory"
SCOPES = [f"{DEVOPS}/user_impersonation"]
PACKAGE = "azdo.broker.v1"
READY_WITHIN_S = 60
STOPPED_WITHIN_S = 30


class World:
    """The places of `env.sh`, and the emulator's control API."""

    def __init__(self, places, binaries):
        self.places = places
        self.binaries = binaries

    def __getitem__(self, name):
        return self.places[name]

    def control(self, method, path, **kwargs):
        answer = requests.request(method, self["AZURE_EMULATOR_CONTROL"] + path, timeout=10, **kwargs)
        answer.raise_for_status()
        return answer.json()

    def sign_in(self, authorize_url, user):
        """What a person does on the sign-in page; returns what the redirect carried."""
        page = requests.get(authorize_url, timeout=10)
        assert page.status_code == 200, page.text
        form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        action = re.search(r'<form[^>]*action="([^"]*)"', page.text)
        address = requests.compat.urljoin(page.url, unescape(action.group(1))) if action else page.url
        form = {name: unescape(value) for name, value in form.items()}
        form |= {"user": user, "action": "accept"}
        done = requests.post(address, data=form, allow_redirects=False, timeout=10)
        assert done.status_code in (302, 303), done.text
        query = requests.compat.urlparse(done.headers["location"]).query
        return dict(requests.compat.unquote(pair).split("=", 1) for pair in query.split("&"))


def unescape(text):
    return text.replace("&quot;", '"').replace("&#39;", "'").replace("&lt;", "<").replace("&amp;", "&")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    binaries = pathlib.Path(os.environ["AZDO_BROKER_BINARIES"]).resolve()
    folder = tmp_path_factory.mktemp("world") / "demo"
    log = open(folder.with_suffix(".log"), "w+")
    demo = subprocess.Popen(
        [binaries / "examples" / "demo", "--serve", "--dir", folder], stdout=log, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not (folder / "env.sh").exists():
            assert demo.poll() is None and time.monotonic() < deadline, folder.with_suffix(".log").read_text()
            time.sleep(0.05)
        lines = (folder / "env.sh").read_text().splitlines()
        places = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        # What any program does that is to meet Microsoft's hosts through a company's proxy.
        os.environ |= {
            "HTTPS_PROXY": places["AZURE_EMULATOR_PROXY"],
            "NO_PROXY": "localhost,127.0.0.1",
            "REQUESTS_CA_BUNDLE": places["AZURE_EMULATOR_CA"],
        }
        yield World(places, binaries)
    finally:
        demo.send_signal(signal.SIGTERM)
        ended = demo.wait(STOPPED_WITHIN_S)
        log.close()
        assert ended == 0, folder.with_suffix(".log").read_text()


@pytest.fixture
def app(world):
    """The app as MSAL plays it."""

    def make(credential=SECRET, tenant=TENANT):
        return msal.ConfidentialClientApplication(
            CLIENT, client_credential=credential, authority=f"https://login.microsoftonline.com/{tenant}"
        )

    return make


@pytest.fixture
def code_flow(world):
    """What MSAL learns when `user` signs in for that app."""

    def run(client, user):
        flow = client.initiate_auth_code_flow(SCOPES, redirect_uri=REDIRECT_URI)
        return client.acquire_token_by_auth_code_flow(flow, world.sign_in(flow["auth_uri"], user))

    return run


class Api:
    """Calls by name: every type comes from the broker's own reflection."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = DescriptorPool(self.database)

    def call(self, method, timeout=15, **fields):
        service, name = method.split("/")
        found = self.pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(name)
        request = GetMessageClass(found.input_type)(**fields)
        answer = GetMessageClass(found.output_type)
        path = f"/{PACKAGE}.{service}/{name}"
        stub = self.channel.unary_unary(
            path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer.FromString
        )
        return stub(request, timeout=timeout)


@pytest.fixture(scope="session")
def over_socket(world):
    # Left alone, gRPC's C core names the socket's path as the authority, which no HTTP/2 server in Rust takes.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel("unix:" + world["AZDO_BROKER_SOCKET"], options=options) as channel:
        yield Api(channel)


@pytest.fixture(scope="session")
def mutual_tls(world):
    def connect(name):
        def read(variable):
            return pathlib.Path(world[variable]).read_bytes()

        credentials = grpc.ssl_channel_credentials(
            read("AZDO_BROKER_CA"), read(f"{name}_KEY"), read(f"{name}_CERT")
        )
        return grpc.secure_channel(world["AZDO_BROKER_TCP"], credentials)

    return connect


@pytest.fixture(scope="session")
def token(over_socket):
    """A token of the service user, as the broker releases it."""
    return over_socket.call("CredentialBroker/GetServiceUserToken", account_id="acme").access_token
