"""Who may call."""

import http.client
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from asgard.api.app import create_server
from asgard.api.auth import PUBLIC, ListenRefused, check_listen, token
from asgard.settings import Settings

from .fake_platform import FakePlatform, Running, post, running

TOKEN = "s3cret-é"
UNDER_MLOPS = ["/mlops/models", "/mlops/models/iris", "/mlops/status", "/mlops/jobs", "/mlops/deploy", "/other"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), api_token=SecretStr(TOKEN))
    with running(settings, FakePlatform()) as server:
        yield server


def bearer(token: str, scheme: str = "Bearer") -> dict[bytes, bytes]:
    return {b"Authorization": f"{scheme} {token}".encode()}


@pytest.mark.parametrize("path", UNDER_MLOPS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"Authorization": b"Bearer"},
        bearer("wrong"),
        bearer(TOKEN, "Basic"),
        bearer(TOKEN + "x"),
        bearer(TOKEN[:-1]),
    ],
)
def test_without_the_token_there_is_no_answer(guarded: Running, path: str, headers: dict[bytes, bytes]) -> None:
    answer = httpx.get(guarded.url + path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_token_there_is(guarded: Running, scheme: str) -> None:
    assert httpx.get(f"{guarded.url}/mlops/models", headers=bearer(TOKEN, scheme)).status_code == 200
    assert post(guarded.url, headers=bearer(TOKEN)).status_code == 200


def test_a_post_without_the_token_is_refused_before_its_body_is_looked_at(guarded: Running) -> None:
    assert post(guarded.url, body="nonsense").status_code == 401


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_what_asgard_is_can_be_seen_without_the_token(guarded: Running, path: str) -> None:
    assert httpx.get(guarded.url + path).status_code == 200


def test_with_a_token_any_host_name_is_answered(guarded: Running) -> None:
    assert (
        httpx.get(f"{guarded.url}/mlops/status", headers=bearer(TOKEN) | {b"Host": b"asgard.example"}).status_code
        == 200
    )


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.8.8.8:80", "[::1]:8000"]
)
def test_without_a_token_loopback_names_are_answered(server: Running, host: str) -> None:
    assert httpx.get(f"{server.url}/mlops/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.1", "0.0.0.0",
     "x@localhost", "[::1", "", "::1"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/mlops/status", "/openapi.json"])
def test_without_a_token_other_names_are_not(server: Running, host: str, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status in (400, 403)  # 400: the server itself saw that it is no host
    connection.close()


def test_a_rebound_name_gets_a_problem_that_says_what_to_do(server: Running, platform: FakePlatform) -> None:
    answer = post(server.url, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")
    assert "ASGARD_API_TOKEN" in answer.json()["detail"]
    assert platform.requests == []


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx",
     "text/plain; application/json", "application/json; charset=latin-1"],
)  # fmt: skip
def test_a_body_that_a_page_of_another_site_could_send_is_refused(
    server: Running, platform: FakePlatform, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = httpx.post(f"{server.url}/mlops/deploy", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content")
    assert platform.requests == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=Utf-8", 'application/json; charset="utf-8"']
)
def test_json_is_taken_however_it_is_spelt(server: Running, content_type: str) -> None:
    answer = httpx.post(f"{server.url}/mlops/deploy", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == 422


def test_a_preflight_of_a_browser_is_not_answered_with_a_permission(server: Running) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{server.url}/mlops/deploy", headers=origin)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_may_be_listened_on_without_a_token(host: str) -> None:
    check_listen(host, Settings(api_token=None))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "no such host"])
def test_nothing_else_may(host: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, api_token=None)
    with pytest.raises(ListenRefused, match="ASGARD_API_TOKEN"):
        check_listen(host, settings)
    with pytest.raises(ListenRefused):
        create_server(settings, host, 0, FakePlatform())  # type: ignore[arg-type]  # a stand-in


def test_an_empty_token_is_no_token() -> None:
    with pytest.raises(ListenRefused):
        check_listen("0.0.0.0", Settings(api_token=SecretStr("")))


def test_with_a_token_any_address_may() -> None:
    check_listen("0.0.0.0", Settings(api_token=SecretStr(TOKEN)))


def test_a_token_goes_without_the_end_of_the_file_that_it_was_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGARD_API_TOKEN", "secret\n")
    assert token(Settings()) == b"secret"
