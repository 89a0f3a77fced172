"""MSAL for Python without a secret: an app that signs with its certificate, or shows what another issuer signed."""

import datetime
import time

import jwt
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.utils import base64url_encode

from conftest import CLIENT, DEVOPS

ITSELF = [f"{DEVOPS}/.default"]
DAY = datetime.timedelta(days=1)
ISSUER = "https://issuer.example/cluster"
SUBJECT = "system:serviceaccount:platform:broker"


class Signer:
    """A key and its certificate, in the forms MSAL takes."""

    def __init__(self, lasts=DAY):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "interop")])
        now = datetime.datetime.now(datetime.timezone.utc)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now + lasts)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.private_pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def modern(self):
        return {"private_key": self.private_pem, "public_certificate": self.pem}

    @property
    def legacy(self):
        return {"private_key": self.private_pem, "thumbprint": self.certificate.fingerprint(hashes.SHA1()).hex()}

    @property
    def recorded(self):
        """How the emulator writes down that this certificate was the proof."""
        return "certificate:" + base64url_encode(self.certificate.fingerprint(hashes.SHA256())).decode()


@pytest.fixture
def change(world):
    """Changes the world, and changes it back by the second of the two changes."""
    undone = []

    def apply(change, undo):
        world.control("POST", "/_emu/world", json=change)
        undone.append(undo)

    yield apply
    for undo in reversed(undone):
        world.control("POST", "/_emu/world", json=undo)


@pytest.fixture
def register(change):
    def apply(signer):
        named = {"client_id": CLIENT, "certificate": signer.pem}
        change({"change": "certificate.add"} | named, {"change": "certificate.remove"} | named)
        return signer

    return apply


@pytest.fixture
def federation(world, change):
    """An issuer that the app trusts for one subject; gives what that issuer signs."""
    signer = Signer()
    key = signer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    world.control("POST", "/_emu/world", json={"change": "issuer.set", "issuer": ISSUER, "keys": [key.decode()]})
    trusted = {"issuer": ISSUER, "subject": SUBJECT}
    change(
        {"change": "federated.add", "client_id": CLIENT, "credential": trusted},
        {"change": "federated.remove", "client_id": CLIENT} | trusted,
    )

    def sign(**changes):
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": SUBJECT, "aud": "api://AzureADTokenExchange", "iat": now, "exp": now + 600}
        return jwt.encode(claims | changes, signer.private_pem, algorithm="RS256")

    return sign


def proof(world):
    """What the last token request was proven with."""
    asked = [request["token"] for request in world.control("GET", "/_emu/requests")["requests"] if request["token"]]
    return asked[-1]["credential"]


def refused(answer, code):
    assert answer.get("error") == "invalid_client" and code in answer["error_codes"], answer


def test_a_registered_certificate_proves_the_app(world, app, register):
    signer = register(Signer())
    answer = app(signer.modern).acquire_token_for_client(ITSELF)
    assert answer.get("access_token") and "refresh_token" not in answer, answer
    assert proof(world) == signer.recorded


def test_the_older_thumbprint_names_the_same_certificate(world, app, register):
    signer = register(Signer())
    answer = app(signer.legacy).acquire_token_for_client(ITSELF)
    assert answer.get("access_token"), answer
    assert proof(world) == signer.recorded


def test_a_person_signs_in_to_an_app_that_has_a_certificate(world, app, register, code_flow):
    signer = register(Signer())
    client = app(signer.modern)
    answer = code_flow(client, "ana@contoso.com")
    assert answer["id_token_claims"]["preferred_username"] == "ana@contoso.com", answer
    [account] = client.get_accounts()
    refreshed = client.acquire_token_silent(answer["scope"].split()[:1], account, force_refresh=True)
    assert refreshed["access_token"] != answer["access_token"]
    assert proof(world) == signer.recorded


def test_a_certificate_that_is_not_registered_proves_nothing(app, register):
    register(Signer())
    refused(app(Signer().modern).acquire_token_for_client(ITSELF), 700027)


def test_a_registered_thumbprint_with_another_key_proves_nothing(app, register):
    registered, thief = register(Signer()), Signer()
    stolen = {"private_key": thief.private_pem, "public_certificate": registered.pem}
    refused(app(stolen).acquire_token_for_client(ITSELF), 700027)


def test_an_expired_certificate_proves_nothing(app, register):
    refused(app(register(Signer(lasts=-DAY)).modern).acquire_token_for_client(ITSELF), 700027)


def test_an_assertion_of_a_trusted_issuer_proves_the_app(world, app, federation):
    answer = app({"client_assertion": federation}).acquire_token_for_client(ITSELF)
    assert answer.get("access_token"), answer
    assert proof(world) == f"federated:{ISSUER} {SUBJECT}"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sub": SUBJECT.upper()}, 70021),
        ({"iss": ISSUER + "/"}, 70021),
        ({"aud": CLIENT}, 70021),
        ({"exp": 1}, 700024),
    ],
)
def test_an_assertion_that_differs_in_one_claim_proves_nothing(app, federation, changes, code):
    refused(app({"client_assertion": lambda: federation(**changes)}).acquire_token_for_client(ITSELF), code)


def test_the_app_reads_what_a_member_reads_once_it_is_one(world, app, register, change):
    token = app(register(Signer()).modern).acquire_token_for_client(ITSELF)["access_token"]
    named = {"organization": "contoso", "user": CLIENT}
    before, after = {"change": "member.remove"} | named, {"change": "member.add"} | named
    is_member = any(one["user"] == CLIENT for one in world.control("GET", "/_emu/world")["organizations"][0]["members"])
    change(before, after if is_member else before)
    address = "https://dev.azure.com/contoso/_apis/projects"
    headers = {"authorization": f"Bearer {token}", "x-tfs-fedauthredirect": "Suppress"}
    stranger = requests.get(address, headers=headers, timeout=10)
    assert (stranger.status_code, stranger.json()["message"][:8]) == (401, "TF401444"), stranger.text
    world.control("POST", "/_emu/world", json=after)
    member = requests.get(address, headers=headers, timeout=10)
    assert {project["name"] for project in member.json()["value"]} == {"Data Platform", "website"}
