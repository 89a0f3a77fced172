"""Microsoft's `azure-devops` package, with tokens of the broker, under Microsoft's own host names."""

import pytest

ORGANIZATION = "https://dev.azure.com/contoso"
GIT = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87"
READ, CONTRIBUTE = 2, 4


@pytest.fixture
def connect(world, tmp_path, monkeypatch):
    """A connection as a stranger makes it: nothing is known of the organization but its address."""
    # The package makes a folder when it is first imported, and keeps there what it learned for twelve hours.
    monkeypatch.setenv("AZURE_DEVOPS_CACHE_DIR", str(tmp_path))
    from azure.devops import client, connection
    from msrest.authentication import BasicTokenAuthentication

    monkeypatch.setattr(client, "OPTIONS_FILE_CACHE", {ORGANIZATION: None, "https://app.vssps.visualstudio.com": None})
    monkeypatch.setattr(connection, "RESOURCE_FILE_CACHE", {ORGANIZATION: None})
    monkeypatch.setattr(client.Client, "_locations_cache", {})

    def make(token):
        return connection.Connection(ORGANIZATION, BasicTokenAuthentication({"access_token": token}))

    return make


@pytest.fixture
def service_user(connect, token):
    return connect(token)


@pytest.fixture
def developer(connect, over_socket):
    released = over_socket.call("CredentialBroker/GetDeveloperToken", account_id="acme", developer_id="ana")
    return connect(released.access_token)


@pytest.fixture
def fault(world):
    yield lambda **fault: world.control("POST", "/_emu/faults", json=fault)
    world.control("DELETE", "/_emu/faults")


def who_am_i(connection):
    return connection.clients_v7_1.get_location_client().get_connection_data().authenticated_user


def login(connection):
    return who_am_i(connection).properties["Account"]["$value"]


def may(connection, repositories, bits=READ):
    """By name of the repository, as the single request says."""
    tokens = [f"repoV2/{repository.project.id}/{repository.id}" for repository in repositories]
    answers = connection.clients.get_security_client().has_permissions(GIT, bits, tokens=",".join(tokens))
    assert len(answers) == len(tokens)
    return {repository.name: answer for repository, answer in zip(repositories, answers)}


def may_in_batch(connection, repositories, bits=READ):
    """By name of the repository, as the batch says."""
    from azure.devops.v7_0.security.models import PermissionEvaluation, PermissionEvaluationBatch

    evaluations = [
        PermissionEvaluation(
            security_namespace_id=GIT, permissions=bits, token=f"repoV2/{repository.project.id}/{repository.id}"
        )
        for repository in repositories
    ]
    batch = PermissionEvaluationBatch(always_allow_administrators=False, evaluations=evaluations)
    answers = connection.clients.get_security_client().has_permissions_batch(batch).evaluations
    return {repository.name: answer.value for repository, answer in zip(repositories, answers)}


def test_the_sdk_finds_its_way_by_location_discovery(world, service_user):
    world.control("DELETE", "/_emu/requests")
    assert service_user.clients.get_core_client().get_projects()
    seen = [(request["method"], request["path"]) for request in world.control("GET", "/_emu/requests")["requests"]]
    assert ("OPTIONS", "/contoso/_apis") in seen, seen
    assert seen.index(("GET", "/contoso/_apis/ResourceAreas")) < seen.index(("GET", "/contoso/_apis/projects")), seen


def test_each_token_is_the_person_it_was_released_for(service_user, developer):
    assert login(service_user) == "svc@contoso.com"
    assert login(developer) == "ana@contoso.com"


def test_the_profile_is_found_on_a_host_of_its_own(developer):
    assert developer.clients.get_profile_client().get_profile("me").id == who_am_i(developer).id


def test_projects_are_listed(service_user):
    projects = service_user.clients.get_core_client().get_projects()
    assert {project.name for project in projects} == {"Data Platform", "website"}
    assert {project.state for project in projects} == {"wellFormed"}


def test_projects_come_in_pages_of_the_size_asked_for(service_user):
    core = service_user.clients.get_core_client()
    pages = [core.get_projects(top=1, skip=skip) for skip in range(3)]
    assert [len(page) for page in pages] == [1, 1, 0]
    assert pages[0][0].id != pages[1][0].id


def test_repositories_are_listed_with_project_state_and_default_branch(service_user):
    found = {repository.name: repository for repository in service_user.clients.get_git_client().get_repositories()}
    assert found["analytics"].default_branch == "refs/heads/main"
    assert found["analytics"].project.name == "Data Platform"
    assert found["empty"].default_branch is None
    assert found["old"].is_disabled and not found["analytics"].is_disabled
    assert found["analytics"].remote_url == "https://contoso@dev.azure.com/contoso/Data%20Platform/_git/analytics"


def test_the_repositories_of_one_project_are_those_of_the_project(service_user):
    git = service_user.clients.get_git_client()
    assert [repository.name for repository in git.get_repositories("website")] == ["website"]
    assert git.get_repository("analytics", "Data Platform").name == "analytics"
    assert git.get_refs("analytics", "Data Platform", filter="heads/")[0].name == "refs/heads/main"


def test_permissions_are_those_of_each_person(service_user, developer):
    repositories = service_user.clients.get_git_client().get_repositories()
    assert not may(service_user, repositories)["secret"] and may(developer, repositories)["secret"]
    assert not may(service_user, repositories, CONTRIBUTE)["website"]
    assert may(developer, repositories, CONTRIBUTE)["website"]


@pytest.mark.parametrize("bits", [READ, CONTRIBUTE, READ | CONTRIBUTE])
def test_the_batch_of_permissions_agrees_with_the_single_request(service_user, bits):
    repositories = service_user.clients.get_git_client().get_repositories()
    answers = may_in_batch(service_user, repositories, bits)
    assert answers == may(service_user, repositories, bits)
    assert set(answers.values()) == {True, False}, "a check that always says the same shows nothing"


def test_the_broker_lists_what_the_sdk_finds_readable(over_socket, service_user, developer):
    for connection, identity in (service_user, {}), (developer, {"developer_id": "ana"}):
        repositories = connection.clients.get_git_client().get_repositories()
        readable = may(connection, repositories)
        usable = {one.name for one in repositories if readable[one.name] and not one.is_disabled}
        listed = over_socket.call("CredentialBroker/ListReadableRepos", account_id="acme", **identity)
        assert {repository.name for repository in listed.repos} == usable


def test_the_service_user_gets_no_answer_about_what_it_may_not_read(service_user):
    from azure.devops.exceptions import AzureDevOpsServiceError

    for name in "secret", "old", "missing":
        with pytest.raises(AzureDevOpsServiceError, match="TF401019"):
            service_user.clients.get_git_client().get_repository(name, "Data Platform")


def test_a_token_that_is_none_is_refused(connect):
    from azure.devops.exceptions import AzureDevOpsServiceError

    with pytest.raises(AzureDevOpsServiceError, match="TF400813: The user 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa'"):
        connect("nonsense").clients.get_core_client().get_projects()


def test_a_person_who_is_no_member_is_refused_by_name(connect, app, code_flow):
    from azure.devops.exceptions import AzureDevOpsServiceError

    outsider = code_flow(app(), "outsider@contoso.com")["access_token"]
    with pytest.raises(AzureDevOpsServiceError, match="TF400813: The user 'outsider@contoso.com'"):
        connect(outsider).clients.get_core_client().get_projects()


def test_a_refusal_by_policy_is_told_by_its_number(service_user, fault):
    from azure.devops.exceptions import AzureDevOpsServiceError

    fault(switch="ado.vs403463")
    with pytest.raises(AzureDevOpsServiceError, match="VS403463"):
        service_user.clients.get_core_client().get_projects()


def test_a_moment_of_outage_is_bridged_by_the_package(world, service_user, fault):
    core = service_user.clients.get_core_client()
    core.get_projects()
    world.control("DELETE", "/_emu/requests")
    fault(switch="ado.5xx", count=1)
    assert core.get_projects()
    assert [request["status"] for request in world.control("GET", "/_emu/requests")["requests"]] == [503, 200]
