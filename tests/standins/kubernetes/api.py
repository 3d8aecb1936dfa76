"""Requests to a real API server: objects are plain JSON, as it takes and gives them."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import httpx2
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import SingleConfig

from .types import Manifest, Type

_TIMEOUT: Final = httpx2.Timeout(30)
_WATCH_SECONDS: Final = 5
"""How long the server keeps a watch open: also how long one that nobody needs lives on."""


class ApiFailure(Exception):
    """What the API server said no with; a `Status` object of Kubernetes."""

    def __init__(self, status: Manifest) -> None:
        super().__init__(status.get("message") or str(status))
        self.code: int = status.get("code", 0)
        self.reason: str = status.get("reason", "")
        self.details: Manifest = status.get("details") or {}

    @property
    def namespace_missing(self) -> bool:
        return self.code == 404 and self.details.get("kind") == "namespaces"


class Unreachable(Exception):
    """There is no answer from an API server."""


class Api:
    """One API server, as one user. Threads may share it.

    All methods raise ApiFailure, or Unreachable.
    """

    def __init__(self, cluster: SingleConfig) -> None:
        self._client = Client(cluster, ConnectionParams(timeout=_TIMEOUT, trust_env=False))
        self._plurals: dict[tuple[str, str], str] = {}
        self._schemas: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Whether the server can be asked for its schemas at all."""
        self._request("GET", "/openapi/v3")

    def get(self, known: Type, namespace: str, name: str) -> Manifest:
        return self._request("GET", self._path(known, namespace, name))

    def create(self, known: Type, manifest: Manifest, manager: str, *, preview: bool) -> Manifest:
        return self._request(
            "POST",
            self._path(known, manifest["metadata"].get("namespace", "")),
            params={"fieldManager": manager, "fieldValidation": "Strict", **_dry_run(preview)},
            body=manifest,
        )

    def apply(self, known: Type, manifest: Manifest, manager: str, *, force: bool, preview: bool) -> Manifest:
        """Server-side apply."""
        metadata = manifest["metadata"]
        return self._request(
            "PATCH",
            self._path(known, metadata.get("namespace", ""), metadata["name"]),
            params={
                "fieldManager": manager,
                "fieldValidation": "Strict",
                "force": str(force).lower(),
                **_dry_run(preview),
            },
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    def patch(self, known: Type, namespace: str, name: str, patch: list[Manifest]) -> Manifest:
        """A JSON patch."""
        return self._request(
            "PATCH", self._path(known, namespace, name), body=patch, content_type="application/json-patch+json"
        )

    def delete(self, known: Type, namespace: str, name: str, propagation: str) -> None:
        self._request("DELETE", self._path(known, namespace, name), body={"propagationPolicy": propagation})

    def list(self, api_version: str, plural: str, namespace: str) -> tuple[list[Manifest], str]:
        """All of the namespace, or of the cluster where that is empty, and the version from which to watch."""
        found = self._request("GET", _collection(api_version, plural, namespace))
        kind = found["kind"].removesuffix("List")
        items = [{"apiVersion": api_version, "kind": kind, **item} for item in found["items"]]
        return items, found["metadata"]["resourceVersion"]

    def watch(self, api_version: str, plural: str, namespace: str, version: str) -> Iterator[tuple[str, Manifest]]:
        """Events (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`) with their objects, for a few seconds."""
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            with self._client.stream("GET", _collection(api_version, plural, namespace), params=params) as response:
                if response.status_code >= 400:
                    response.read()
                _raise_for(response)
                for line in response.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiFailure(event["object"])
                    yield event["type"], event["object"]
        except httpx2.TransportError as error:
            raise Unreachable(str(error)) from error

    def plural(self, api_version: str, kind: str) -> str:
        """As paths name the kind: `deployments`."""
        with self._lock:
            if (api_version, kind) not in self._plurals:
                for item in self._request("GET", _group(api_version))["resources"]:
                    if "/" not in item["name"]:
                        self._plurals[api_version, item["kind"]] = item["name"]
            return self._plurals[api_version, kind]

    def schemas(self, api_version: str) -> dict[str, Any]:
        """Of OpenAPI version 3, by name of the definition: those of a group's version."""
        with self._lock:
            if api_version not in self._schemas:
                document = self._request("GET", f"/openapi/v3{_group(api_version)}")
                self._schemas[api_version] = document["components"]["schemas"]
            return self._schemas[api_version]

    def _path(self, known: Type, namespace: str, name: str = "") -> str:
        plural = self.plural(known.api_version, known.kind)
        collection = _collection(known.api_version, plural, namespace if known.namespaced else "")
        return f"{collection}/{name}" if name else collection

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Manifest:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if content else {}
        try:
            response = self._client.request(method, path, params=params, content=content, headers=headers)
        except httpx2.TransportError as error:
            raise Unreachable(str(error)) from error
        _raise_for(response)
        answer: Manifest = response.json()
        return answer


def _raise_for(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    status: Manifest = {"code": response.status_code, "message": response.text}
    with suppress(ValueError):
        status |= response.json()
    raise ApiFailure(status)


def _dry_run(preview: bool) -> dict[str, str]:
    return {"dryRun": "All"} if preview else {}


def _group(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _collection(api_version: str, plural: str, namespace: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{_group(api_version)}{scope}/{plural}"
