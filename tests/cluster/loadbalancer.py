"""What a cloud adds to a cluster: an address for each Service of type LoadBalancer, and the way from there to its pods.

A stand-in for a cloud's controller. Like it, it puts a finalizer on the Service, and gives new connections to ready
endpoints only (with none ready, to those that still serve while they end: as kube-proxy does).
"""

import asyncio
import errno
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from lightkube import ALL_NS, AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Service
from lightkube.resources.core_v1 import ServiceStatus as ServiceStatusResource
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.types import PatchType

from .forwarder import Endpoint, Forwarder
from .model import withheld
from .slots import Slot

Key = tuple[str, str]
"""Namespace and name."""

Followed = TypeVar("Followed", Service, EndpointSlice)

FINALIZER: Final = "service.kubernetes.io/load-balancer-cleanup"
_SERVICE_LABEL: Final = "kubernetes.io/service-name"
_LOOK_SECONDS: Final = 0.5


class LoadBalancer:
    """Services and endpoints as the API server tells of them, and a forwarder per Service and port."""

    def __init__(self, client: AsyncClient, folder: Path, slot: Slot) -> None:
        self._client = client
        self._folder = folder
        self._slot = slot
        self._services: dict[Key, Service] = {}
        self._slices: dict[Key, EndpointSlice] = {}
        self._addresses: dict[Key, str] = {}
        self._forwarders: dict[Key, dict[int, Forwarder]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(Service, self._services))
            tasks.create_task(self._follow(EndpointSlice, self._slices))
            tasks.create_task(self._work())

    async def _follow(self, kind: type[Followed], known: dict[Key, Followed]) -> None:
        """Keep `known` as the API server has it."""
        while True:
            with suppress(ApiError, httpx2.HTTPError):
                listed = self._client.list(kind, namespace=ALL_NS)
                found = {_key(item): item async for item in listed}
                known.clear()
                known.update(found)
                self._changed.set()
                async for event, item in self._client.watch(
                    kind, namespace=ALL_NS, resource_version=listed.resourceVersion
                ):
                    if event == "DELETED":
                        known.pop(_key(item), None)
                    elif event in ("ADDED", "MODIFIED"):
                        known[_key(item)] = item
                    self._changed.set()
            await asyncio.sleep(_LOOK_SECONDS)  # Too old a version, or the API server was away: begin again.

    async def _work(self) -> None:
        while True:
            for key in {*self._services, *self._addresses}:
                with suppress(ApiError, httpx2.HTTPError):  # Changed or gone meanwhile: there will be an event.
                    await self._settle(key)
            self._changed.clear()
            with suppress(TimeoutError):  # Looked at anew now and then: what is withheld may have changed.
                await asyncio.wait_for(self._changed.wait(), _LOOK_SECONDS)

    async def _settle(self, key: Key) -> None:
        """Give the Service what it wants, or take it back."""
        service = self._services.get(key)
        others = [name for name in _finalizers(service) if name != FINALIZER] if service is not None else []
        if service is not None and _wants_address(service):
            if key not in self._addresses and not self._is_withheld(key):
                await self._set_finalizers(service, [*others, FINALIZER])
                self._addresses[key] = await self._listen(key, service)
            if key in self._addresses:
                await self._listen(key, service)
                if _address(service) != self._addresses[key]:
                    ingress = [{"ip": self._addresses[key], "ipMode": "VIP"}]
                    await self._patch_status(service, {"ingress": ingress})
            return
        self._addresses.pop(key, None)
        for forwarder in self._forwarders.pop(key, {}).values():
            forwarder.close()
        if service is not None and FINALIZER in _finalizers(service):
            if _address(service):
                await self._patch_status(service, None)
            await self._set_finalizers(service, others)

    async def _listen(self, key: Key, service: Service) -> str:
        """Forward every port of the Service, and no other; returns the address."""
        wanted = {port.port: port.name or "" for port in (service.spec and service.spec.ports) or []}
        forwarders = self._forwarders.setdefault(key, {})
        for port in forwarders.keys() - wanted.keys():
            forwarders.pop(port).close()
        candidates = [self._addresses[key]] if key in self._addresses else self._free_addresses()
        for address in candidates:
            try:
                for port in wanted.keys() - forwarders.keys():
                    forwarder = Forwarder(partial(self._endpoints, key, wanted[port]))
                    await forwarder.listen(address, port)
                    forwarders[port] = forwarder
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                while forwarders:
                    forwarders.popitem()[1].close()
            else:
                return address
        raise RuntimeError(f"No address is free for the Service {'/'.join(key)}.")

    def _free_addresses(self) -> list[str]:
        taken = set(self._addresses.values())
        return [address for n in range(250) if (address := self._slot.load_balancer_address(n)) not in taken]

    def _endpoints(self, key: Key, port_name: str) -> Sequence[Endpoint]:
        """Those of the Service's port that take new connections."""
        ready: list[Endpoint] = []
        ending: list[Endpoint] = []
        for (namespace, _), item in self._slices.items():
            labels = (item.metadata and item.metadata.labels) or {}
            if (namespace, labels.get(_SERVICE_LABEL)) != key:
                continue
            for port in item.ports or []:
                if (port.name or "") != port_name or port.port is None:
                    continue
                for endpoint in item.endpoints or []:
                    conditions = endpoint.conditions
                    if conditions is None or conditions.ready is not False:
                        ready.append((endpoint.addresses[0], port.port))
                    elif conditions.serving and conditions.terminating:
                        ending.append((endpoint.addresses[0], port.port))
        return ready or ending

    def _is_withheld(self, key: Key) -> bool:
        return any(fnmatchcase("/".join(key), pattern) for pattern in withheld(self._folder))

    async def _set_finalizers(self, service: Service, finalizers: list[str]) -> None:
        assert service.metadata is not None
        namespace, name = _key(service)
        patch = {"metadata": {"resourceVersion": service.metadata.resourceVersion, "finalizers": finalizers}}
        await self._client.patch(Service, name, patch, namespace=namespace, patch_type=PatchType.MERGE)

    async def _patch_status(self, service: Service, load_balancer: dict[str, Any] | None) -> None:
        namespace, name = _key(service)
        patch = {"status": {"loadBalancer": load_balancer}}
        await self._client.patch(ServiceStatusResource, name, patch, namespace=namespace, patch_type=PatchType.MERGE)


def _key(item: Service | EndpointSlice) -> Key:
    assert item.metadata is not None
    return item.metadata.namespace or "", item.metadata.name or ""


def _finalizers(service: Service) -> list[str]:
    assert service.metadata is not None
    return service.metadata.finalizers or []


def _wants_address(service: Service) -> bool:
    assert service.metadata is not None
    assert service.spec is not None
    return (
        service.spec.type == "LoadBalancer"
        and service.spec.loadBalancerClass is None
        and service.metadata.deletionTimestamp is None
    )


def _address(service: Service) -> str | None:
    balancer = service.status.loadBalancer if service.status else None
    ingress = balancer.ingress if balancer else None
    return ingress[0].ip if ingress else None
