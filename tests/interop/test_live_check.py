"""script/live-check, which is for real tenants, run against the emulator."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

import pytest
import requests

from conftest import CLIENT, REDIRECT_URI, SECRET, TENANT

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "script" / "live-check"
# What a person does with the link in a browser.
SIGN_IN = """
import os, requests, sys
control = os.environ["AZURE_EMULATOR_CONTROL"]
form = {"authorize_url": sys.argv[1], "user": "svc@contoso.com"}
print(requests.post(control + "/_emu/sign-in", json=form, timeout=10).json()["location"])
"""


class Report:
    def __init__(self, ran):
        self.status, self.text = ran.returncode, ran.stdout + ran.stderr
        lines = [re.match(r"(ok|FAIL|skipped) +(\w+)  (.*)$", line) for line in ran.stdout.splitlines()]
        assert all(lines), ran.stdout
        self.verdicts = {line[2]: line[1] for line in lines}
        self.lines = {line[2]: line[3] for line in lines}

    def all_that(self, verdict):
        return {number for number, found in self.verdicts.items() if found == verdict}


@pytest.fixture
def live_check(world):
    def run(*arguments, **environment):
        base = {
            "PATH": f"{world.binaries}:{os.environ['PATH']}",
            "HTTPS_PROXY": world["AZURE_EMULATOR_PROXY"],
            "NO_PROXY": "localhost,127.0.0.1",
            "SSL_CERT_FILE": world["AZURE_EMULATOR_CA"],
            "AZURE_EMULATOR_CONTROL": world["AZURE_EMULATOR_CONTROL"],
        }
        return Report(
            subprocess.run(
                [sys.executable, SCRIPT, *arguments], env=base | environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=120,
            )
        )

    return run


@pytest.fixture
def the_broker(world):
    return {name: world[name] for name in ("AZDO_BROKER_ADDRESS", "AZDO_BROKER_ACCOUNT")}


@pytest.fixture
def the_app(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    return {
        "LIVE_CHECK_ORGANIZATION": "contoso",
        "LIVE_CHECK_TENANT": TENANT,
        "LIVE_CHECK_CLIENT_ID": CLIENT,
        "LIVE_CHECK_SECRET_FILE": str(tmp_path / "secret"),
        "LIVE_CHECK_REDIRECT_URI": REDIRECT_URI,
        "LIVE_CHECK_SIGN_IN": shlex.join([sys.executable, "-c", SIGN_IN]),
    }


@pytest.fixture
def fault(world):
    yield lambda **fault: world.control("POST", "/_emu/faults", json=fault)
    world.control("DELETE", "/_emu/faults")


@pytest.fixture
def expired_token(fault, app, code_flow, world, tmp_path):
    fault(switch="entra.expires_in", seconds=0)
    (tmp_path / "expired").write_text(code_flow(app(), "svc@contoso.com")["access_token"])
    world.control("DELETE", "/_emu/faults")
    return {"LIVE_CHECK_EXPIRED_TOKEN_FILE": str(tmp_path / "expired")}


@pytest.fixture
def a_secret_close_to_its_expiry(over_socket):
    def tell(days):
        over_socket.call(
            "Integrations/AddClientCredential", account_id="acme", client_secret=SECRET,
            client_secret_expires_at={"seconds": int(time.time()) + days * 86400},
        )

    tell(10)
    yield
    tell(700)


def git_knows_authtype():
    found = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return tuple(int(part) for part in found.split(".")[:2]) >= (2, 46)


# First, because the broker lets nobody ask for its own checks more than once a minute.
def test_the_emulator_passes_every_check(live_check, the_broker, the_app, expired_token, a_secret_close_to_its_expiry):
    report = live_check(**the_broker, **the_app, **expired_token)
    assert report.status == 0, report.text
    assert report.all_that("skipped") == (set() if git_knows_authtype() else {"10c"}), report.text
    numbers = "0 1a 1b 1c 2 3 4 5 6a 6b 7a 7b 7c 8 9 10a 10b 10c 10d 10e 10f 11 12".split()
    assert set(report.lines) == set(numbers)
    # What doctor only warns of is told, and fails nothing.
    assert report.lines["0"].endswith("warnings: client_credential"), report.text


def test_nothing_it_prints_is_a_secret_or_a_token(live_check, the_broker, the_app, expired_token, world):
    report = live_check(**the_broker, **the_app, **expired_token)
    tokens = requests.get(world["AZURE_EMULATOR_CONTROL"] + "/_emu/tokens?reveal=1", timeout=10).text
    issued = set(re.findall(r'"([\w.~-]{60,})"', tokens))
    assert len(issued) > 10
    assert not [token for token in issued | {SECRET} if token in report.text]
    # Not the parts of one either.
    assert "eyJ" not in report.text


def test_a_broker_alone_is_enough_for_what_needs_no_secret(live_check, the_broker):
    report = live_check(**the_broker)
    assert report.status == 0, report.text
    skipped = set("1a 1b 1c 2 3 4 5 6a 6b 10f".split())
    assert report.all_that("skipped") - {"0", "10c"} == skipped, report.text
    assert "LIVE_CHECK_SECRET_FILE is not set" in report.lines["4"]
    assert report.lines["7c"].endswith(": svc@contoso.com")


def test_an_app_alone_is_enough_for_what_needs_no_broker(live_check, the_app):
    report = live_check(**the_app)
    assert report.status == 0, report.text
    assert report.all_that("skipped") - {"10c"} == {"0", "10d", "10f"}, report.text


@pytest.mark.parametrize(
    ("switch", "failed"),
    [
        ({"switch": "entra.strict_rotation"}, {"1c"}),
        ({"switch": "entra.no_refresh_token"}, {"1b", "1c", "5"}),
        ({"switch": "entra.expires_in", "seconds": 300}, {"1a"}),
        ({"switch": "ado.challenge", "kind": "msa"}, {"7a"}),
        ({"switch": "ado.tf400813"}, {"7c", "8", "9", "10a", "10b", "10e", "11"}),
    ],
)
def test_a_service_that_differs_is_a_failure(live_check, the_app, fault, switch, failed):
    fault(**switch)
    report = live_check(**the_app)
    assert report.status == 1, report.text
    assert report.all_that("FAIL") - {"10c"} == failed, report.text


def test_a_repository_that_is_hidden_is_told_from_one_that_is_shown(live_check, the_broker, fault):
    denied = {"LIVE_CHECK_DENIED": "Data Platform/secret"}
    assert "shown, and the permission check says no" in live_check(**the_broker, **denied).lines["8"]
    fault(switch="ado.hide_denied")
    assert "hidden among " in live_check(**the_broker, **denied).lines["8"]
    assert live_check(**the_broker).verdicts["8"] == "skipped"


def test_a_repository_may_be_named(live_check, the_broker):
    missing = live_check(LIVE_CHECK_REPOSITORY="https://dev.azure.com/contoso/website/_git/missing", **the_broker)
    assert missing.status == 1 and "TF401019" in missing.lines["10a"], missing.text


def test_protocol_version_2_is_seen_where_it_is_spoken(live_check, the_broker, fault):
    assert ": version 0: multi_ack" in live_check(**the_broker).lines["11"]
    fault(switch="git.v2")
    assert ": version 2:" in live_check(**the_broker).lines["11"]


def test_without_settings_it_says_which_one_is_missing(live_check):
    report = live_check()
    assert report.status == 64 and not report.lines
    assert "LIVE_CHECK_ORGANIZATION is not set" in report.text


def test_the_help_names_every_setting(world):
    said = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, timeout=10, check=True)
    source = SCRIPT.read_text()
    read = set(re.findall(r'(?:setting|from_file|of_integration)\("([A-Z_]+)"', source))
    assert {"SECRET_FILE", "TENANT", "DENIED"} <= read
    assert not [name for name in read if f"LIVE_CHECK_{name} " not in said.stdout]
