"""Real git against the emulated Azure Repos: each way to carry a token."""

import base64
import subprocess

import pytest

REPOSITORY = "https://dev.azure.com/contoso/Data%20Platform/_git/analytics"


@pytest.fixture
def git(world, tmp_path):
    def run(*arguments, **environment):
        settings = {
            "http.proxy": world["AZURE_EMULATOR_PROXY"],
            "http.sslCAInfo": world["AZURE_EMULATOR_CA"],
            "credential.helper": "",
        }
        configured = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        base = {"PATH": f"{world.binaries}:/usr/bin:/bin", "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}
        return subprocess.run(
            ["git", *configured, *arguments], cwd=tmp_path, env=base | environment,
            capture_output=True, text=True, timeout=60,
        )

    run.folder = tmp_path
    return run


def cloned(git, ran):
    assert ran.returncode == 0, ran.stderr
    return (git.folder / "clone" / "README.md").exists()


def test_a_bearer_header(git, token):
    header = f"http.extraHeader=Authorization: Bearer {token}"
    assert cloned(git, git("-c", header, "clone", REPOSITORY, "clone"))


def test_basic_with_the_token_as_password(git, token):
    basic = base64.b64encode(f"anything:{token}".encode()).decode()
    header = f"http.extraHeader=Authorization: Basic {basic}"
    assert cloned(git, git("-c", header, "clone", REPOSITORY, "clone"))


def test_the_credential_helper(git, world):
    environment = {"AZDO_BROKER_ADDRESS": "unix:" + world["JOB_RUNNER_SOCKET"], "AZDO_BROKER_ACCOUNT": "acme"}
    helper = ["-c", "credential.helper=azdo-broker", "-c", "credential.useHttpPath=true"]
    assert cloned(git, git(*helper, "clone", REPOSITORY, "clone", **environment))


def test_without_a_credential_nothing_is_cloned(git):
    ran = git("clone", REPOSITORY, "clone")
    assert ran.returncode == 128 and not (git.folder / "clone").exists(), ran.stderr


def test_a_token_that_is_none_is_refused(git):
    ran = git("-c", "http.extraHeader=Authorization: Bearer nonsense", "clone", REPOSITORY, "clone")
    assert ran.returncode == 128, ran.stderr
