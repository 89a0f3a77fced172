"""MSAL for Python against the emulator, under Microsoft's own host names."""

import pytest

from conftest import CLIENT, DEVOPS, REDIRECT_URI, SCOPES, TENANT


@pytest.fixture
def signed_in(app, code_flow):
    client = app()
    return client, code_flow(client, "ana@contoso.com")


def test_the_code_flow_ends_with_tokens_of_the_person_who_signed_in(signed_in):
    _, answer = signed_in
    assert "error" not in answer, answer
    assert answer["token_type"] == "Bearer" and 3600 <= answer["expires_in"] <= 5400
    claims = answer["id_token_claims"]
    assert claims["preferred_username"] == "ana@contoso.com"
    assert (claims["tid"], claims["aud"]) == (TENANT, CLIENT)
    assert f"{DEVOPS}/user_impersonation" in answer["scope"].split()


def test_msal_keeps_the_account_and_refreshes_silently(signed_in):
    client, answer = signed_in
    [account] = client.get_accounts()
    assert account["username"] == "ana@contoso.com"
    cached = client.acquire_token_silent(SCOPES, account)
    assert cached["access_token"] == answer["access_token"]
    refreshed = client.acquire_token_silent(SCOPES, account, force_refresh=True)
    assert "error" not in refreshed, refreshed
    assert refreshed["access_token"] != answer["access_token"]


def test_an_old_refresh_token_still_works(signed_in):
    client, answer = signed_in
    for _ in range(2):
        again = client.acquire_token_by_refresh_token(answer["refresh_token"], SCOPES)
        assert again["refresh_token"] != answer["refresh_token"], again


def test_a_code_is_good_once(world, app):
    client = app()
    flow = client.initiate_auth_code_flow(SCOPES, redirect_uri=REDIRECT_URI)
    redirect = world.sign_in(flow["auth_uri"], "ana@contoso.com")
    assert "access_token" in client.acquire_token_by_auth_code_flow(dict(flow), redirect)
    again = client.acquire_token_by_auth_code_flow(dict(flow), redirect)
    assert again["error"] == "invalid_grant" and 54005 in again["error_codes"], again


def test_another_verifier_than_the_one_begun_with_is_refused(world, app):
    client = app()
    flow = client.initiate_auth_code_flow(SCOPES, redirect_uri=REDIRECT_URI)
    redirect = world.sign_in(flow["auth_uri"], "ana@contoso.com")
    answer = client.acquire_token_by_auth_code_flow(flow | {"code_verifier": "x" * 43}, redirect)
    assert answer["error"] == "invalid_grant" and 501481 in answer["error_codes"], answer


def test_a_wrong_secret_is_told_as_entra_tells_it(app):
    answer = app("not-the-secret").acquire_token_for_client([f"{DEVOPS}/.default"])
    assert answer["error"] == "invalid_client" and 7000215 in answer["error_codes"], answer


def test_an_unknown_tenant_is_told_as_entra_tells_it(app):
    with pytest.raises(ValueError, match="invalid_tenant|Unable to get authority"):
        app(tenant="00000000-0000-4000-a000-00000000dead").acquire_token_for_client([f"{DEVOPS}/.default"])


def test_client_credentials_with_a_secret_bring_a_token_and_no_refresh_token(app):
    answer = app().acquire_token_for_client([f"{DEVOPS}/.default"])
    assert "access_token" in answer, answer
    assert "refresh_token" not in answer and "id_token" not in answer


def test_a_delegated_scope_without_default_is_refused_for_the_app_itself(app):
    answer = app().acquire_token_for_client([f"{DEVOPS}/user_impersonation"])
    assert answer["error"] == "invalid_scope", answer
