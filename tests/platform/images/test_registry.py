"""The client against real registries: what is there, what goes up, comes down and away, and what goes wrong."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tenacity import RetryCallState

from asgard.errors import InfrastructureFailed
from asgard.platform.images import auth, blobs, oci
from asgard.platform.images import registry as client
from asgard.platform.images.oci import Descriptor
from asgard.platform.images.registry import Repository

from ...cluster.harness import Prepared
from ...ports import free_port
from . import front, registries
from .conftest import ignore
from .front import Fault, Front


@pytest.fixture
def proxy(registry: str) -> Iterator[Front]:
    with front.running(registry) as started:
        yield started


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited; it does not."""
    found: list[float] = []
    wait = client._wait

    def note(state: RetryCallState) -> float:
        found.append(wait(state))
        return 0

    monkeypatch.setattr(client, "_wait", note)
    return found


def blob(cache: Path, content: bytes) -> Descriptor:
    return Descriptor(oci.LAYER, blobs.add(cache, content), len(content))


def put(repository: Repository, cache: Path, content: bytes, mount_from: str | None = None) -> str:
    made = blob(cache, content)
    return repository.upload(made, lambda: blobs.path(cache, made.digest), ignore, mount_from)


def put_image(repository: Repository, cache: Path, tag: str, text: str = "{}") -> str:
    config = blob(cache, text.encode())
    put(repository, cache, text.encode())
    manifest = oci.manifest(config, [], {})
    repository.put_manifest(tag, manifest, oci.MANIFEST)
    return oci.digest_of(manifest)


def test_what_goes_up_is_there_and_comes_down(registry: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    counted: list[int] = []
    with Repository(registry, "one/name", push=True) as repository:
        made = blob(tmp_path, content)
        assert not repository.has_blob(made.digest)
        assert repository.upload(made, lambda: blobs.path(tmp_path, made.digest), counted.append) == "uploaded"
        assert repository.has_blob(made.digest)
        assert sum(counted) == len(content)
    with Repository(registry, "one/name") as repository:
        counted.clear()
        path = repository.download(made, tmp_path / "other", counted.append)
        assert path.read_bytes() == content
        assert sum(counted) == len(content)
        assert repository.download(made, tmp_path / "other", counted.append) == path
        assert sum(counted) == len(content)


def test_a_blob_is_mounted_from_a_repository_that_has_it(registry: str, tmp_path: Path) -> None:
    content = b"shared" * 1000
    with Repository(registry, "mount/source", push=True) as source:
        assert put(source, tmp_path, content) == "uploaded"
    with Repository(registry, "mount/target", push=True) as target:
        made = blob(tmp_path, content)

        def never() -> Path:
            raise AssertionError("the content was asked for")

        assert target.upload(made, never, ignore, mount_from="mount/source") == "mounted"
        assert target.has_blob(made.digest)
        assert put(target, tmp_path, b"not there", mount_from="mount/source") == "uploaded"
        assert put(target, tmp_path, b"not there either", mount_from="mount/nothing") == "uploaded"


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_may_not_be_mounted_is_uploaded(proxy: Front, tmp_path: Path, status: int) -> None:
    proxy.faults = [Fault("^POST .*mount=", status=status)]
    with Repository(proxy.host, f"mount/refused{status}", push=True) as repository:
        assert put(repository, tmp_path, b"refused", mount_from="mount/source") == "uploaded"
        assert repository.has_blob(oci.digest_of(b"refused"))


def test_a_manifest_has_the_bytes_and_the_digest_it_was_given(registry: str, tmp_path: Path) -> None:
    with Repository(registry, "manifests/one", push=True) as repository:
        digest = put_image(repository, tmp_path, "v1")
        assert repository.digest("v1") == repository.digest(digest) == digest
        content, media_type = repository.manifest("v1")
        assert (oci.digest_of(content), media_type) == (digest, oci.MANIFEST)
        assert repository.digest("v2") is None


def test_tags_are_listed_page_by_page(proxy: Front, tmp_path: Path) -> None:
    with Repository(proxy.host, "tags/some", push=True) as repository:
        for number in range(3):
            put_image(repository, tmp_path, f"v{number}")
        link = {"Link": '</v2/tags/some/tags/list?n=100&last=a>; rel="next"'}
        proxy.faults = [Fault("^GET .*/tags/list$", status=200, headers=link, body=b'{"tags": ["a", "b"]}')]
        assert sorted(repository.tags()) == ["a", "b", "v0", "v1", "v2"]
    with Repository(proxy.host, "tags/none") as repository:
        assert repository.tags() == []


def test_a_manifest_is_deleted_with_its_tags_and_deleting_again_is_fine(registry: str, tmp_path: Path) -> None:
    with Repository(registry, "delete/one", push=True) as repository:
        digest, kept = put_image(repository, tmp_path, "v1", "{}"), put_image(repository, tmp_path, "v2", '{"a": 1}')
        assert repository.delete_manifest(digest)
        assert repository.digest("v1") is None
        assert repository.digest("v2") == kept
        assert repository.delete_manifest(digest)


def test_a_registry_that_allows_no_deleting_says_so(prepared: Prepared, tmp_path: Path) -> None:
    with (
        registries.running(tmp_path / "registry", delete=False) as host,
        Repository(host, "delete/one", push=True) as repository,
    ):
        assert not repository.delete_manifest(put_image(repository, tmp_path, "v1"))


def test_a_registry_that_is_down_is_named_after_some_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 3)
    host = f"127.0.0.1:{free_port()}"
    with Repository(host, "a/b") as repository, pytest.raises(InfrastructureFailed) as raised:
        repository.digest("v1")
    assert raised.value.reason == "RegistryUnavailable"
    assert f"The registry {host} cannot be reached" in raised.value.message


def test_a_registry_that_comes_back_is_waited_for(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with ExitStack() as started, Repository(f"127.0.0.1:{port}", "a/b") as repository:
        waits: list[int] = []

        def start_in_the_second(_: RetryCallState) -> float:
            waits.append(len(waits))
            if len(waits) == 2:
                started.enter_context(registries.running(tmp_path / "registry", port=port))
            return 0

        monkeypatch.setattr(client, "_wait", start_in_the_second)
        assert repository.digest("v1") is None
    assert len(waits) == 2


def test_an_upload_that_breaks_is_begun_again_with_the_whole_body(
    proxy: Front, tmp_path: Path, sleeps: list[float]
) -> None:
    content = bytes(5_000_000)
    proxy.faults = [Fault("^PUT .*/blobs/", read=2_000_000, times=2), Fault("^POST", status=503)]
    with Repository(proxy.host, "faults/cut", push=True) as repository:
        assert put(repository, tmp_path, content) == "uploaded"
        assert repository.has_blob(oci.digest_of(content))
    assert len(sleeps) == 3
    assert proxy.received >= 9_000_000


def test_a_blob_that_another_is_just_uploading_too_is_waited_for(
    proxy: Front, tmp_path: Path, sleeps: list[float]
) -> None:
    body = b'{"errors": [{"code": "DIGEST_INVALID"}, {"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown"}]}'
    proxy.faults = [Fault("^PUT .*/manifests/", status=400, body=body, times=2)]
    with Repository(proxy.host, "faults/meanwhile", push=True) as repository:
        digest = put_image(repository, tmp_path, "v1")
        assert repository.digest("v1") == digest
    assert len(sleeps) == 2


def test_it_waits_as_long_as_the_registry_asks_within_reason(proxy: Front, sleeps: list[float]) -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 9000))
    proxy.faults = [
        Fault("^HEAD", status=429, headers={"Retry-After": "7"}),
        Fault("^HEAD", status=503, headers={"Retry-After": "100000"}),
        Fault("^HEAD", status=502, headers={"Retry-After": later}),
        Fault("^HEAD", status=500),
    ]
    with Repository(proxy.host, "faults/wait") as repository:
        assert repository.digest("v1") is None
    assert sleeps[:3] == [7.0, client.LONGEST_WAIT, client.LONGEST_WAIT]
    assert 0 <= sleeps[3] <= 5


def test_waits_are_jittered(proxy: Front, sleeps: list[float]) -> None:
    with Repository(proxy.host, "faults/jitter") as repository:
        for _ in range(4):
            proxy.faults = [Fault("^HEAD", status=500, times=client.ATTEMPTS - 1)]
            assert repository.digest("v1") is None
    assert len(set(sleeps)) == len(sleeps) == 4 * (client.ATTEMPTS - 1)


def test_a_registry_that_goes_on_failing_is_told_in_its_own_words(proxy: Front, sleeps: list[float]) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]}'
    proxy.faults = [Fault("^GET", status=429, body=body, times=99)]
    with Repository(proxy.host, "faults/limit") as repository, pytest.raises(InfrastructureFailed) as raised:
        repository.manifest("v1")
    assert raised.value.reason == "RegistryUnavailable"
    assert "answers 429 (TOOMANYREQUESTS: pull rate limit)" in raised.value.message
    assert len(proxy.requests) == client.ATTEMPTS


@pytest.mark.parametrize(
    ("status", "code", "reason", "told"),
    [
        (404, "NAME_UNKNOWN", "RepositoryUnknown", "has no faults/told"),
        (403, "DENIED", "Unauthorized", "docker login"),
        (400, "TAG_INVALID", "RegistryRefused", "refuses a PUT for faults/told: TAG_INVALID: something"),
        (413, "SIZE_INVALID", "RegistryRefused", "SIZE_INVALID"),
    ],
)
def test_a_refusal_is_told_at_once_with_what_to_do(
    proxy: Front, sleeps: list[float], status: int, code: str, reason: str, told: str
) -> None:
    body = f'{{"errors": [{{"code": "{code}", "message": "something"}}]}}'.encode()
    proxy.faults = [Fault("^PUT", status=status, body=body)]
    with Repository(proxy.host, "faults/told", push=True) as repository, pytest.raises(InfrastructureFailed) as raised:
        repository.put_manifest("v1", b"{}", oci.MANIFEST)
    assert raised.value.reason == reason
    assert told in raised.value.message
    assert sleeps == []


def test_blobs_that_are_kept_elsewhere_are_fetched_there_without_our_credentials(
    prepared: Prepared, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"elsewhere"
    with (
        registries.running(tmp_path / "registry", auth=registries.basic(tmp_path, {"someone": "hidden"})) as host,
        front.running(host) as near,
        front.running(registry) as far,
    ):
        credentials = auth.Credentials("someone", "hidden")
        with Repository(registry, "kept/elsewhere", push=True) as repository:
            put(repository, tmp_path, content)
        seen: list[httpx.Headers] = []
        made = blob(tmp_path, content)
        near.faults = [
            Fault("^GET .*/blobs/", 307, {"Location": f"http://{far.host}/v2/kept/elsewhere/blobs/{made.digest}"})
        ]
        with Repository(near.host, "kept/here", credentials=credentials) as repository:
            assert repository.digest("v1") is None  # from now on it sends its password
            repository._client.event_hooks["request"] = [lambda request: seen.append(request.headers)]
            path = repository.download(made, tmp_path / "other", ignore)
        assert path.read_bytes() == content
    assert ["authorization" in headers for headers in seen] == [True, False]


def test_tls_is_kept_where_a_registry_says_http_of_itself(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that does not know of the proxy that speaks TLS for it."""
    made = registries.certificate(tmp_path / "tls")
    port = free_port()
    http = {"host": f"http://127.0.0.1:{port}", "tls": {"certificate": str(made.file), "key": str(made.key_file)}}
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    monkeypatch.setattr(client, "is_loopback", lambda _: False)
    with (
        registries.running(tmp_path / "registry", http=http, port=port) as host,
        Repository(host, "tls/one", push=True) as repository,
    ):
        assert put(repository, tmp_path, b"content") == "uploaded"
        begun = repository._send("POST", "blobs/uploads/", (202,))
        assert begun.headers["Location"].startswith("http://")
        assert repository._absolute(begun.headers["Location"]).startswith(f"https://{host}/")


def test_an_address_with_the_schemes_own_port_is_the_registrys() -> None:
    """As Artifactory behind nginx gives it."""
    seen: list[tuple[str, bool]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, "Authorization" in request.headers))
        if not seen[-1][1]:
            return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="tests"'})
        location = "https://registry.example:443/v2/one/name/blobs/uploads/1"
        return httpx.Response(202 if request.method == "POST" else 201, headers={"Location": location})

    with Repository("registry.example", "one/name", push=True, credentials=auth.Credentials("a", "b")) as repository:
        repository._client = httpx.Client(transport=httpx.MockTransport(answer))
        assert repository.upload(Descriptor(oci.LAYER, oci.digest_of(b""), 0), lambda: Path("/dev/null"), ignore)
    assert seen == [("POST", False), ("POST", True), ("PUT", True)]


def test_a_certificate_that_is_not_trusted_is_said_to_be_at_once(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    made = registries.certificate(tmp_path / "tls")
    http = {"tls": {"certificate": str(made.file), "key": str(made.key_file)}}
    monkeypatch.setattr(client, "is_loopback", lambda _: False)
    with (
        registries.running(tmp_path / "registry", http=http) as host,
        Repository(host, "tls/one") as repository,
        pytest.raises(InfrastructureFailed, match=r"is not trusted\. SSL_CERT_FILE"),
    ):
        repository.digest("v1")
    assert sleeps == []


def test_the_proxy_of_other_machines_is_not_asked_for_this_one(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Repository(registry, "proxy/none") as repository:
        assert repository.digest("v1") is None
