"""An ECR-like registry made of a plain one and a moto server.

The plain registry keeps the bytes; moto knows what repositories and images there are, so what its API deletes is gone
here too. Tokens live twelve hours by a clock that tests move. The same address answers AWS's ECR API: it is moto's, but
for GetAuthorizationToken, which names this registry.

As ECR does: Basic authentication as the user AWS, 403 for an expired token
(https://github.com/awslabs/soci-snapshotter/issues/1148), an immutable tag refused even for the same digest
(https://github.com/aws/containers-roadmap/issues/2380), no repository made by a push.
"""

import base64
import fnmatch
import http.client
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import boto3
import httpx
from botocore.exceptions import ClientError

from . import moto_server

LIFETIME: Final = timedelta(hours=12)

_CHUNK: Final = 1024**2
_TARGET: Final = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
_NOT_FORWARDED: Final = frozenset({"authorization", "connection", "keep-alive", "transfer-encoding"})


@dataclass
class EcrRegistry:
    """`address`: `127.0.0.1:PORT`, for images; `endpoint`: for AWS_ENDPOINT_URL_ECR, and for AWS_ENDPOINT_URL.

    `tokens`: all that were given out, as passwords, and when they expire.
    """

    address: str
    endpoint: str
    _ahead: timedelta = timedelta(0)
    tokens: dict[str, datetime] = field(default_factory=dict)

    def advance(self, by: timedelta) -> None:
        """Let time pass for the tokens."""
        self._ahead += by

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def token(self) -> tuple[str, datetime]:
        """A new one, as a password, and when it expires."""
        password = secrets.token_urlsafe(24)
        self.tokens[password] = self.now() + LIFETIME
        return password, self.tokens[password]

    def refusal(self, authorization: str | None) -> tuple[int, dict[str, str], bytes] | None:
        """The answer to who has no valid token; None: let them in."""
        scheme, _, encoded = (authorization or "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            user = password = ""
        if scheme.lower() != "basic" or user != "AWS" or password not in self.tokens:
            challenge = f'Basic realm="{self.endpoint}/",service="ecr.amazonaws.com"'
            return 401, {"WWW-Authenticate": challenge, "Content-Type": "text/plain"}, b"Not Authorized\n"
        if self.tokens[password] <= self.now():
            return _error(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        return None


@contextmanager
def running(upstream: str, aws: str, region: str, *, listen: str = "127.0.0.1") -> Iterator[EcrRegistry]:
    """Make one of the plain registry at `upstream` (`host:port`) and the moto server at `aws`, until the block ends.

    `listen`: `0.0.0.0` where pods are to reach the API, at another address of this machine; images stay at 127.0.0.1.
    """
    client = boto3.client(
        "ecr",
        region_name=region,
        endpoint_url=aws,
        aws_access_key_id=moto_server.ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=moto_server.ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    )
    server = _Server((listen, 0), _Handler)
    address = f"127.0.0.1:{server.server_port}"
    registry = EcrRegistry(address, f"http://{address}")
    server.parts = _Parts(registry, upstream, aws, client)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class _Parts:
    registry: EcrRegistry
    upstream: str
    aws: str
    ecr: Any


class _Server(ThreadingHTTPServer):
    parts: _Parts
    daemon_threads = True


_Answer = tuple[int, Mapping[str, str], bytes]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _with(self) -> _Parts:
        assert isinstance(self.server, _Server)
        return self.server.parts

    def do_GET(self) -> None:
        self._answer(self._get())

    def do_HEAD(self) -> None:
        self._answer(self._get())

    def do_POST(self) -> None:
        self._answer(self._post() if not self.path.startswith("/v2/") else self._changing())

    def do_PUT(self) -> None:
        self._answer(self._changing())

    def do_PATCH(self) -> None:
        self._answer(self._changing())

    def do_DELETE(self) -> None:
        self._answer(self._refusal() or self._delete())

    def _get(self) -> _Answer | None:
        if refusal := self._refusal():
            return refusal
        repository, kind, reference = self._where()
        if kind == "tags":
            found = self._with.ecr.list_images(repositoryName=repository)["imageIds"]
            tags = sorted({image["imageTag"] for image in found if "imageTag" in image})
            return _json(200, {"name": repository, "tags": tags})
        if kind == "manifests":
            digest = self._digest(repository, reference)
            if digest is None:
                return _error(404, "MANIFEST_UNKNOWN", "Requested image not found")
            self.path = f"/v2/{repository}/manifests/{digest}"
        self._forward()
        return None

    def _changing(self) -> _Answer | None:
        refusal = self._refusal()
        repository, kind, reference = self._where()
        if refusal is None and kind == "manifests" and self._is_immutable(repository, reference):
            refusal = _error(
                400,
                "TAG_INVALID",
                f"The image tag '{reference}' already exists in the '{repository}' repository and cannot be "
                "overwritten because the tag is immutable.",
            )
        if refusal is not None:
            for _ in iter(self._body().read, b""):
                pass  # whoever still sends would not hear the answer
            return refusal
        if kind != "manifests":
            # ECR mounts blobs of other repositories only where the account is set so.
            self.path = self.path.partition("?mount=")[0]
            self._forward()
            return None
        content = self.rfile.read(self._body().left)
        status, headers, body = self._exchange(content)
        if status == 201:
            self._record(repository, reference, content, headers["Docker-Content-Digest"])
        return status, headers, body

    def _delete(self) -> _Answer:
        repository, kind, reference = self._where()
        if kind != "manifests" or self._digest(repository, reference) is None:
            return _error(404, "MANIFEST_UNKNOWN", "Requested image not found")
        which = {"imageDigest" if ":" in reference else "imageTag": reference}
        self._with.ecr.batch_delete_image(repositoryName=repository, imageIds=[which])
        return 202, {}, b""

    def _post(self) -> _Answer:
        """AWS's API."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"{self._with.aws}{self.path}"
        answered = httpx.post(url, content=content, headers=dict(self.headers.items()), trust_env=False, timeout=60)
        headers = {"Content-Type": answered.headers["Content-Type"]}
        if self.headers.get("X-Amz-Target") != _TARGET or answered.status_code != 200:
            return answered.status_code, headers, answered.content
        password, expires = self._with.registry.token()
        document = answered.json()
        document["authorizationData"] = [
            {
                "authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode(),
                "expiresAt": expires.timestamp(),
                "proxyEndpoint": f"https://{self._with.registry.address}",
            }
        ]
        return 200, headers, json.dumps(document).encode()

    def _refusal(self) -> _Answer | None:
        if refusal := self._with.registry.refusal(self.headers.get("Authorization")):
            return refusal
        if self.headers.get("Transfer-Encoding"):
            return _error(411, "SIZE_INVALID", "the stand-in takes no body without a length")
        repository = self._where()[0]
        if repository and self._repository(repository) is None:
            text = (
                f"The repository with name '{repository}' does not exist in the registry with id "
                f"'{moto_server.ACCOUNT}'"
            )
            return _error(404, "NAME_UNKNOWN", text)
        return None

    def _where(self) -> tuple[str, str, str]:
        """Repository, `manifests`, `blobs` or `tags`, and what follows; empty for the API's root."""
        path = unquote(urlsplit(self.path).path).removeprefix("/v2/")
        for kind in ("manifests", "blobs", "tags"):
            repository, found, rest = path.partition(f"/{kind}/")
            if found:
                return repository, kind, rest
        return "", "", ""

    def _repository(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._with.ecr.describe_repositories(repositoryNames=[name])["repositories"][0]
        except self._with.ecr.exceptions.RepositoryNotFoundException:
            return None
        return found

    def _digest(self, repository: str, reference: str) -> str | None:
        which = {"imageDigest" if ":" in reference else "imageTag": reference}
        try:
            found = self._with.ecr.describe_images(repositoryName=repository, imageIds=[which])["imageDetails"]
        except self._with.ecr.exceptions.ImageNotFoundException:
            return None
        digest: str = found[0]["imageDigest"]
        return digest

    def _is_immutable(self, repository: str, tag: str) -> bool:
        """Whether the tag is there and may not be moved."""
        if ":" in tag or self._digest(repository, tag) is None:
            return False
        found = self._repository(repository) or {}
        filters = [item["filter"] for item in found.get("imageTagMutabilityExclusionFilters", [])]
        excluded = any(fnmatch.fnmatchcase(tag, pattern) for pattern in filters)
        return str(found["imageTagMutability"]).startswith("IMMUTABLE") != excluded

    def _record(self, repository: str, reference: str, content: bytes, digest: str) -> None:
        try:
            self._with.ecr.put_image(
                repositoryName=repository,
                imageManifest=content.decode(),
                imageManifestMediaType=self.headers["Content-Type"],
                imageDigest=digest,
                **({} if ":" in reference else {"imageTag": reference}),
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ImageAlreadyExistsException":
                raise

    def _body(self) -> "_Body":
        return _Body(self.rfile, int(self.headers.get("Content-Length", 0)))

    def _forward(self) -> None:
        """Pass a request on, and its answer, without keeping the body of either."""
        connection, answered = self._begin(self._body() if "Content-Length" in self.headers else None)
        try:
            assert answered.getheader("Content-Length") is not None
            self.send_response(answered.status)
            for name, value in answered.getheaders():
                if name.lower() not in _NOT_FORWARDED:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                while chunk := answered.read(_CHUNK):
                    self.wfile.write(chunk)
        finally:
            connection.close()

    def _exchange(self, content: bytes) -> _Answer:
        connection, answered = self._begin(content)
        try:
            headers = {k: v for k, v in answered.getheaders() if k.lower() not in {*_NOT_FORWARDED, "content-length"}}
            return answered.status, headers, answered.read()
        finally:
            connection.close()

    def _begin(self, body: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        # The Host of the request stays, so that the registry's Location leads back here.
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_FORWARDED}
        connection = http.client.HTTPConnection(self._with.upstream, timeout=600)
        connection.request(self.command, self.path, body, headers)
        return connection, connection.getresponse()

    def _answer(self, answer: _Answer | None) -> None:
        """None: it has been given."""
        if answer is None:
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        """Say nothing."""


class _Body:
    """A request's body, to be read once."""

    def __init__(self, file: Any, length: int) -> None:
        self._file = file
        self.left = length

    def read(self, size: int = _CHUNK) -> bytes:
        chunk: bytes = self._file.read(min(size, self.left))
        self.left -= len(chunk)
        return chunk


def _json(status: int, document: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


def _error(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    return _json(status, {"errors": [{"code": code, "message": message}]})
