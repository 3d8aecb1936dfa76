"""One repository of a registry, over the OCI distribution API: manifests, blobs, tags.

Protocol: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
"""

import hashlib
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ...errors import InfrastructureFailed
from . import auth, blobs
from .oci import MANIFESTS, Descriptor, digest_of
from .references import is_loopback

ATTEMPTS: Final = 6
"""Of anything that a registry may be able to do a moment later: with the waits between them, about ten seconds."""

LONGEST_WAIT: Final = 30.0
"""Seconds, whatever a registry asks for."""

_CHUNK: Final = 1024**2
_TIMEOUT: Final = httpx.Timeout(60, connect=10, read=300)
"""Reading is waiting for the answer to an upload, which a registry may first have to store elsewhere."""

_DOCKER_HUB: Final = "registry-1.docker.io"
_AGAIN: Final = (408, 425, 429, 500, 502, 503, 504)

T = TypeVar("T")
OnBytes = Callable[[int], None]
"""Called with the number of bytes that went over the wire."""


class _TryAgain(Exception):
    """`failure`: what to tell if this was the last attempt; `wait`: seconds that the registry asks for."""

    def __init__(self, failure: InfrastructureFailed, wait: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.wait = wait


class Repository:
    """A client of one repository. Safe to use from several threads; every method raises InfrastructureFailed.

    Its `reason`: `RegistryUnavailable`, `Unauthorized`, `RepositoryUnknown`, or `RegistryRefused`.
    """

    def __init__(
        self, registry: str, name: str, *, push: bool = False, credentials: auth.Credentials | None = None
    ) -> None:
        """`push`: the rights to ask for. `credentials`: default: what Docker's configuration has."""
        host = _DOCKER_HUB if registry == "docker.io" else registry
        loopback = is_loopback(host)
        self.registry = registry
        self.name = name
        self._base = f"{'http' if loopback else 'https'}://{host}"
        self._scope = f"repository:{name}:{'pull,push' if push else 'pull'}"
        self._authorizer = auth.Authorizer(registry, credentials)
        # Proxies are for other machines.
        self._client = httpx.Client(timeout=_TIMEOUT, trust_env=not loopback, headers={"User-Agent": "asgard"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.close()

    def digest(self, reference: str) -> str | None:
        """Digest of the manifest with this tag or digest; None: there is none."""
        headers = {"Accept": ", ".join(MANIFESTS)}
        found = self._ask("HEAD", f"manifests/{reference}", (200, 404), headers=headers)
        if found.status_code == 404:
            return None
        return found.headers.get("Docker-Content-Digest") or digest_of(self.manifest(reference)[0])

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest and its media type."""
        found = self._ask("GET", f"manifests/{reference}", (200,), headers={"Accept": ", ".join(MANIFESTS)})
        if ":" in reference and digest_of(found.content) != reference:
            raise self._corrupt(reference)
        return found.content, found.headers["Content-Type"].partition(";")[0]

    def put_manifest(self, tag: str, content: bytes, media_type: str) -> None:
        """Give a manifest, all of whose blobs are there, a tag."""
        self._ask("PUT", f"manifests/{tag}", (201,), headers={"Content-Type": media_type}, content=content)

    def delete_manifest(self, digest: str) -> bool:
        """Remove a manifest and its tags; whether it is gone: a registry may allow no deleting, or not to us."""
        try:
            return self._ask("DELETE", f"manifests/{digest}", (202, 404, 405)).status_code != 405
        except InfrastructureFailed as error:
            if error.reason != "Unauthorized":
                raise
            return False

    def tags(self) -> list[str]:
        """All tags; none where there is no such repository."""
        found: list[str] = []
        address: str | None = "tags/list"
        while address:
            page = self._ask("GET", address, (200, 404))
            found += (page.json().get("tags") or []) if page.status_code == 200 else []
            address = page.links["next"]["url"] if page.status_code == 200 and "next" in page.links else None
        return found

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return self._ask("HEAD", f"blobs/{digest}", (200, 404)).status_code == 200

    def download(self, wanted: Descriptor, cache_dir: Path, on_bytes: OnBytes) -> Path:
        """A blob's file in the cache folder, fetched unless it is there."""
        if not blobs.has(cache_dir, wanted.digest):
            self._persist(lambda: self._download(wanted, cache_dir, on_bytes))
        return blobs.path(cache_dir, wanted.digest)

    def upload(
        self, blob: Descriptor, content: Callable[[], Path], on_bytes: OnBytes, mount_from: str | None = None
    ) -> Literal["mounted", "uploaded"]:
        """Put a blob there. `content`: gives its file; not called where the repository `mount_from` shares it."""
        return self._persist(lambda: self._upload(blob, content, on_bytes, mount_from))

    def _download(self, wanted: Descriptor, cache_dir: Path, on_bytes: OnBytes) -> None:
        found = hashlib.sha256()
        with blobs.writing(cache_dir) as (file, temporary):

            def write(response: httpx.Response) -> None:
                for chunk in response.iter_raw(_CHUNK):
                    found.update(chunk)
                    file.write(chunk)
                    on_bytes(len(chunk))

            self._send("GET", f"blobs/{wanted.digest}", (200,), read=write, follow=True)
            file.flush()
            if f"sha256:{found.hexdigest()}" != wanted.digest:
                raise self._corrupt(wanted.digest)
            blobs.keep(cache_dir, temporary, wanted.digest)

    def _upload(
        self, blob: Descriptor, content: Callable[[], Path], on_bytes: OnBytes, mount_from: str | None
    ) -> Literal["mounted", "uploaded"]:
        begun = self._begin(blob, mount_from)
        if begun.status_code == 201:
            return "mounted"
        path = content()

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
                    on_bytes(len(chunk))

        location = self._absolute(begun.headers["Location"])
        self._send(
            "PUT",
            f"{location}{'&' if '?' in location else '?'}digest={quote(blob.digest, safe='')}",
            (201,),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)},
            content=chunks,
        )
        return "uploaded"

    def _begin(self, blob: Descriptor, mount_from: str | None) -> httpx.Response:
        """An upload, or 201 where there is none to do: mounted. Who may not mount may still be let upload."""
        if mount_from:
            mount = f"blobs/uploads/?mount={blob.digest}&from={quote(mount_from, safe='')}"
            with suppress(InfrastructureFailed):
                return self._send("POST", mount, (201, 202), mount_from=mount_from)
        return self._send("POST", "blobs/uploads/", (202,))

    def _absolute(self, location: str) -> str:
        """A registry behind a proxy may say http of itself: followed, that would send the token in the clear."""
        address = urljoin(f"{self._base}/", location)
        base = urlsplit(self._base)
        parts = urlsplit(address)
        return parts._replace(scheme=base.scheme).geturl() if parts.hostname == base.hostname else address

    def _ask(
        self,
        method: str,
        path: str,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """One request, repeated while that may help, and its answer, read."""
        body = None if content is None else lambda: iter((content,))
        length = {} if content is None else {"Content-Length": str(len(content))}
        return self._persist(
            lambda: self._send(
                method,
                path,
                expected,
                headers={**(headers or {}), **length},
                content=body,
                follow=method in ("GET", "HEAD"),
            )
        )

    def _persist(self, action: Callable[[], T]) -> T:
        """Repeat what may succeed a moment later, from its beginning: an upload that broke cannot be continued."""
        retrying = Retrying(
            retry=retry_if_exception_type(_TryAgain), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )
        try:
            return retrying(action)
        except _TryAgain as last:
            raise last.failure from None

    def _send(
        self,
        method: str,
        path: str,
        expected: Collection[int],
        *,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        read: Callable[[httpx.Response], object] = httpx.Response.read,
        follow: bool = False,
        mount_from: str | None = None,
    ) -> httpx.Response:
        """One request, twice where the first brings the challenge to authorize it. Raises _TryAgain."""
        scopes = [self._scope, *([f"repository:{mount_from}:pull"] if mount_from else [])]
        url = urljoin(f"{self._base}/v2/{self.name}/", path)
        ours = httpx.URL(url).netloc == httpx.URL(self._base).netloc  # without the scheme's own port
        for last in (False, True):
            own = self._authorizer.header(scopes) if ours else {}
            request = self._client.build_request(
                method, url, headers={**(headers or {}), **own}, content=None if content is None else content()
            )
            try:
                response = self._client.send(request, stream=True, follow_redirects=follow)
                try:
                    if response.status_code in expected:
                        read(response)
                        return response
                    response.read()
                finally:
                    response.close()
                challenge = response.headers.get("WWW-Authenticate")
                if response.status_code == 401 and challenge and not last:
                    sent = own.get("Authorization")
                    if self._authorizer.accept(challenge, sent, scopes, self._client):
                        continue
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None
            raise self._failure(response)
        raise AssertionError("the second answer was given back or raised")

    def _corrupt(self, digest: str) -> InfrastructureFailed:
        text = f"What the registry {self.registry} gives for {self.name}@{digest} has another digest."
        return InfrastructureFailed(text, reason="RegistryRefused")

    def _unreachable(self, error: httpx.HTTPError) -> Exception:
        causes = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)  # type: ignore[arg-type]
        if any(isinstance(cause, ssl.SSLError) for cause in causes):
            return InfrastructureFailed(
                f"The certificate of the registry {self.registry} is not trusted. SSL_CERT_FILE names one that is.",
                reason="RegistryUnavailable",
            )
        failure = InfrastructureFailed(
            f"The registry {self.registry} cannot be reached ({type(error).__name__}). Check its address and that it "
            "runs, then try again.",
            reason="RegistryUnavailable",
        )
        return _TryAgain(failure) if isinstance(error, httpx.TransportError | httpx.HTTPStatusError) else failure

    def _failure(self, response: httpx.Response) -> Exception:
        status, said = response.status_code, _said(response)
        if status in _AGAIN:
            text = f"The registry {self.registry} answers {status}{said and f' ({said})'}. Try again later."
            return _TryAgain(InfrastructureFailed(text, reason="RegistryUnavailable"), _retry_after(response))
        if status in (401, 403):
            return self._authorizer.refused(said)
        if status == 404:
            text = (
                f"The registry {self.registry} has no {self.name}, or not what was asked for in it"
                f"{said and f' ({said})'}. Create the repository, or correct the name."
            )
            return InfrastructureFailed(text, reason="RepositoryUnknown")
        text = f"The registry {self.registry} refuses a {response.request.method} for {self.name}: {said or status}."
        refused = InfrastructureFailed(text, reason="RegistryRefused")
        # What a manifest names was put there before; a registry may miss it while another process puts it there, too.
        return _TryAgain(refused) if "MANIFEST_BLOB_UNKNOWN" in said else refused


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, _TryAgain) else None
    return wait_random_exponential(multiplier=0.3, max=5)(state) if asked is None else min(asked, LONGEST_WAIT)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; the header has those or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _said(response: httpx.Response) -> str:
    """The registry's own words; never an address or a header, which may hold credentials."""
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        errors: list[dict[str, Any]] = response.json()["errors"]
        return "; ".join(f"{error['code']}: {error.get('message', '')}" for error in errors)[:300]
    return ""
