"""Registries that ask who we are."""

import base64
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform.images import auth, blobs, oci
from asgard.platform.images.auth import Credentials
from asgard.platform.images.oci import Descriptor
from asgard.platform.images.registry import Repository

from ...cluster.harness import Prepared
from . import registries, token_service
from .conftest import ignore
from .token_service import TokenService

PASSWORD = "hidden-password"
SOMEONE = Credentials("someone", PASSWORD)


@pytest.fixture(scope="module")
def basic(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("basic")
    with registries.running(folder, auth=registries.basic(folder, {"someone": PASSWORD})) as host:
        yield host


@pytest.fixture(scope="module")
def tokens(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TokenService]]:
    """A registry and the token service that it trusts."""
    folder = tmp_path_factory.mktemp("tokens")
    made = TokenService(registries.certificate(folder), {"someone": PASSWORD}, {"identity-token"})
    with token_service.running(made) as service, registries.running(folder, auth=service.configuration()) as host:
        yield host, service


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Writes what `docker login` would have left."""

    def write(content: object) -> None:
        folder = tmp_path / "docker"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(content))

    return write


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a credential helper of Docker's on PATH, named `tests`."""
    program = folder / "docker-credential-tests"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def push(host: str, name: str, cache: Path, credentials: Credentials | None = None, **more: str) -> str:
    content = name.encode()
    blob = Descriptor(oci.LAYER, blobs.add(cache, content), len(content))
    with Repository(host, name, push=True, credentials=credentials) as repository:
        return repository.upload(blob, lambda: blobs.path(cache, blob.digest), ignore, **more)


def push_manifest(repository: Repository, cache: Path) -> str:
    """An image of nothing in it; gives its digest."""
    config = Descriptor(oci.CONFIG, blobs.add(cache, b"{}"), 2)
    repository.upload(config, lambda: blobs.path(cache, config.digest), ignore)
    manifest = oci.manifest(config, [], {})
    repository.put_manifest("v1", manifest, oci.MANIFEST)
    return oci.digest_of(manifest)


def encoded(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def test_a_password_of_dockers_configuration_is_used(
    basic: str, docker_config: Callable[[object], None], tmp_path: Path
) -> None:
    docker_config({"auths": {basic: {"auth": encoded("someone", PASSWORD)}}})
    assert push(basic, "basic/config", tmp_path) == "uploaded"


def test_a_user_name_and_a_password_may_stand_in_fields_of_their_own(docker_config: Callable[[object], None]) -> None:
    docker_config({"auths": {"registry.test": {"username": "someone", "password": PASSWORD}, "other.test": {}}})
    assert auth.from_docker_config("registry.test") == SOMEONE
    assert auth.from_docker_config("other.test") is None


def test_dockers_credential_helpers_are_used(
    basic: str, docker_config: Callable[[object], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_config({"credHelpers": {basic: "tests"}})
    helper(tmp_path, monkeypatch, f"""echo '{{"Username": "someone", "Secret": "{PASSWORD}"}}'""")
    assert push(basic, "basic/helper", tmp_path) == "uploaded"


def test_credentials_that_are_given_come_first(
    basic: str, docker_config: Callable[[object], None], tmp_path: Path
) -> None:
    docker_config({"auths": {basic: {"auth": encoded("someone", "wrong")}}})
    assert push(basic, "basic/given", tmp_path, SOMEONE) == "uploaded"


def test_a_helper_that_fails_is_told_without_what_it_printed(
    basic: str, docker_config: Callable[[object], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_config({"credsStore": "tests"})
    helper(tmp_path, monkeypatch, f"echo {PASSWORD}; echo {PASSWORD} >&2; exit 1")
    with pytest.raises(InfrastructureFailed) as raised:
        push(basic, "basic/failing", tmp_path)
    assert raised.value.reason == "Unauthorized"
    assert f"no usable credentials for {basic}" in raised.value.message
    assert PASSWORD not in repr(raised.getrepr(chain=False, showlocals=False))


def test_nobody_is_asked_for_credentials_that_nobody_wants(
    registry: str, docker_config: Callable[[object], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_config({"credsStore": "tests"})
    helper(tmp_path, monkeypatch, f"touch {tmp_path}/asked; exit 1")
    assert push(registry, "open/one", tmp_path) == "uploaded"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("kind", ["basic", "token"])
@pytest.mark.parametrize(
    ("credentials", "told"),
    [(Credentials("someone", "wrong-password"), "refuses the credentials"), (None, "wants credentials, and there are")],
)
def test_a_registry_that_does_not_let_us_in_is_named_with_what_to_do(
    kind: str, credentials: Credentials | None, told: str, basic: str, tokens: tuple[str, TokenService], tmp_path: Path
) -> None:
    host = basic if kind == "basic" else tokens[0]
    with pytest.raises(InfrastructureFailed) as raised:
        push(host, "wrong/one", tmp_path, credentials)
    assert raised.value.reason == "Unauthorized"
    assert f"The registry {host} {told}" in raised.value.message
    assert f"docker login {host}" in raised.value.message
    assert "wrong-password" not in raised.value.message


def test_a_token_is_asked_for_with_the_right_to_push_from_the_first(
    tokens: tuple[str, TokenService], tmp_path: Path
) -> None:
    host, service = tokens
    service.asked.clear()
    with Repository(host, "token/one", push=True, credentials=SOMEONE) as repository:
        assert repository.digest("v1") is None
        for text in (b"1", b"2"):
            blob = Descriptor(oci.LAYER, blobs.add(tmp_path, text), 1)
            path = blobs.path(tmp_path, blob.digest)
            assert not repository.has_blob(blob.digest)
            assert repository.upload(blob, lambda path=path: path, ignore) == "uploaded"  # type: ignore[misc]
    assert service.asked == [["repository:token/one:pull,push"]]


def test_who_only_reads_asks_for_that_and_may_have_no_credentials(
    tokens: tuple[str, TokenService], tmp_path: Path
) -> None:
    host, service = tokens
    push(host, "token/read", tmp_path, SOMEONE)
    service.asked.clear()
    with Repository(host, "token/read") as repository:
        assert repository.has_blob(oci.digest_of(b"token/read"))
    assert service.asked == [["repository:token/read:pull"]]


def test_a_mount_asks_for_the_right_to_read_there_too(tokens: tuple[str, TokenService], tmp_path: Path) -> None:
    host, service = tokens
    push(host, "token/source", tmp_path, SOMEONE)
    service.asked.clear()
    blob = Descriptor(oci.LAYER, oci.digest_of(b"token/source"), len(b"token/source"))
    with Repository(host, "token/target", push=True, credentials=SOMEONE) as repository:
        assert repository.upload(blob, lambda: tmp_path / "never", ignore, "token/source") == "mounted"
    assert service.asked == [["repository:token/target:pull,push", "repository:token/source:pull"]]


def test_to_delete_a_right_is_asked_for_that_no_push_needs(tokens: tuple[str, TokenService], tmp_path: Path) -> None:
    host, service = tokens
    with Repository(host, "token/deleted", push=True, credentials=SOMEONE) as repository:
        digest = push_manifest(repository, tmp_path)
        service.asked.clear()
        assert repository.delete_manifest(digest)
        assert repository.digest(digest) is None
    assert service.asked == [["repository:token/deleted:pull,push", "repository:token/deleted:delete"]]


def test_who_may_not_delete_hears_that_it_is_not_gone(
    tokens: tuple[str, TokenService], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, service = tokens
    monkeypatch.setattr(service, "withheld", frozenset(["delete"]))
    with Repository(host, "token/kept", push=True, credentials=SOMEONE) as repository:
        digest = push_manifest(repository, tmp_path)
        assert not repository.delete_manifest(digest)
        assert repository.digest(digest) == digest


def test_a_challenge_brings_no_rights_elsewhere() -> None:
    ours = ["repository:one/name:pull,push"]
    assert auth._beyond(ours, ["repository:one/name:pull", "repository:user/image:pull", "*"]) == []
    assert auth._beyond(ours, ["repository:one/name:*"]) == ["repository:one/name:*"]


def test_an_identity_token_is_exchanged(
    tokens: tuple[str, TokenService], docker_config: Callable[[object], None], tmp_path: Path
) -> None:
    host, _ = tokens
    docker_config({"auths": {host: {"identitytoken": "identity-token"}}})
    assert push(host, "token/identity", tmp_path) == "uploaded"
    docker_config({"auths": {host: {"identitytoken": "expired-token"}}})
    with pytest.raises(InfrastructureFailed, match="refuses the credentials"):
        push(host, "token/identity", tmp_path)


def test_a_token_is_renewed_before_it_ends_and_when_it_was_taken_back(tokens: tuple[str, TokenService]) -> None:
    host, service = tokens
    service.asked.clear()
    with Repository(host, "token/renewed", push=True, credentials=SOMEONE) as repository:
        assert repository.digest("v1") is None
        held = repository._authorizer._tokens
        ((scopes, (token, renewed)),) = held.items()
        assert renewed < time.monotonic() + 0.9 * service.seconds
        held[scopes] = token, time.monotonic()
        assert repository.digest("v1") is None
        assert len(service.asked) == 2
        held[scopes] = "was.taken.back", time.monotonic() + 1000
        assert repository.digest("v1") is None
        assert len(service.asked) == 3


def test_threads_share_one_token(tokens: tuple[str, TokenService]) -> None:
    host, service = tokens
    service.asked.clear()
    with (
        Repository(host, "token/threads", push=True, credentials=SOMEONE) as repository,
        ThreadPoolExecutor(8) as pool,
    ):
        assert list(pool.map(lambda number: repository.digest(f"v{number}"), range(32))) == [None] * 32
    assert len(service.asked) == 1


def test_threads_share_basic_credentials(basic: str) -> None:
    with Repository(basic, "basic/threads", credentials=SOMEONE) as repository, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: repository.digest(f"v{number}"), range(32))) == [None] * 32


def test_a_token_service_that_is_not_https_gets_no_credentials(registry: str) -> None:
    from .front import Fault, running

    with running(registry) as proxy:
        challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.example/token",service="registry"'}
        proxy.faults = [Fault("", status=401, headers=challenge, times=9)]
        with (
            Repository(proxy.host, "token/none", credentials=SOMEONE) as repository,
            pytest.raises(InfrastructureFailed, match="not https, which gets no credentials"),
        ):
            repository.digest("v1")


def test_no_credential_is_ever_logged_or_shown(
    basic: str, tokens: tuple[str, TokenService], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host, service = tokens
    caplog.set_level(logging.INFO)
    for where in (basic, host):
        push(where, "quiet/one", tmp_path, SOMEONE)
        with Repository(where, "quiet/one", credentials=Credentials("someone", f"{PASSWORD}-wrong")) as repository:
            with pytest.raises(InfrastructureFailed) as raised:
                repository.digest("v1")
            shown = f"{raised.value!r} {raised.getrepr(showlocals=False)} {caplog.text} {SOMEONE!r}"
            for secret in (PASSWORD, encoded("someone", PASSWORD), *service.issued):
                assert secret not in shown
    assert auth.Credentials("someone", PASSWORD) == SOMEONE
