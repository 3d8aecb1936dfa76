"""The wait for a Service, as the real provider does it (provider/pkg/await/service.go): its pods, then its address."""

import time
from collections.abc import Iterable
from typing import Final

from .feed import Feed
from .session import INFO, AwaitFailed, Operation
from .types import Manifest

_SETTLE_SECONDS: Final = 10
"""After each change of its endpoints the real provider waits that long for more."""


class Addresses:
    """What is known of a Service and its endpoints. `settled`: no more changes of the endpoints are waited for."""

    def __init__(self, service: Manifest, *, settled: bool = False) -> None:
        self.service = service
        self._type: str = service["spec"].get("type", "ClusterIP")
        self._settled = settled
        self._settle_at: list[float] = []
        self._has_address = False
        self._pods_ready = False
        self._pods_pending = False

    def saw(self, kind: str, event: str, item: Manifest) -> None:
        if item["metadata"]["name"] != self.service["metadata"]["name"]:
            return
        if kind == "Service":
            self._has_address = False
            if event != "DELETED":
                self.service = item
                ingress = item.get("status", {}).get("loadBalancer", {}).get("ingress")
                self._has_address = self._type != "LoadBalancer" or bool(ingress)
        else:
            self._settled = False
            self._settle_at.append(time.monotonic() + _SETTLE_SECONDS)
            subsets = item.get("subsets") or [] if event != "DELETED" else []
            self._pods_ready = any(subset.get("addresses") for subset in subsets)
            self._pods_pending = any(subset.get("notReadyAddresses") for subset in subsets)

    def is_complete(self) -> bool:
        if not self._waits_for_pods():
            return self._has_address
        return self._has_address and self._is_settled() and not self._pods_pending

    def will_do(self) -> bool:
        """When the time is up: endpoints need not have settled."""
        return self._has_address and not self._pods_pending

    def errors(self) -> Iterable[str]:
        spec = self.service["spec"]
        if spec.get("clusterIP") == "None" or self._type == "ExternalName":
            return
        if not self._pods_ready:
            yield (
                "Service does not target any Pods. Selected Pods may not be ready, or "
                "field '.spec.selector' may not match labels on any Pods"
            )
        if self._type == "LoadBalancer" and not self._has_address:
            yield "Service was not allocated an IP address; does your cloud provider support this?"

    def settle(self) -> None:
        """For one look at the endpoints as they are."""
        self._settled = True

    def progress(self) -> str:
        if self._is_settled() and self._pods_ready:
            return "[2/3] Attempting to allocate IP address to Service"
        return "[1/3] Finding Pods to direct traffic to"

    def _is_settled(self) -> bool:
        now = time.monotonic()
        if any(when <= now for when in self._settle_at):
            self._settle_at = [when for when in self._settle_at if when > now]
            self._settled = True
        return self._settled

    def _waits_for_pods(self) -> bool:
        spec = self.service["spec"]
        return self._type != "ExternalName" and spec.get("clusterIP") != "None" and bool(spec.get("selector"))


def wait(operation: Operation, current: Manifest) -> Manifest:
    """The Service when it has what it needs. Raises AwaitFailed, ApiFailure."""
    addresses, name = Addresses(current), current["metadata"]["name"]
    with Feed(operation.api, current["metadata"]["namespace"]) as feed:
        feed.subscribe("v1", "Service")
        feed.subscribe("v1", "Endpoints")
        for seen in feed.events(operation.deadline, operation.cancelled):
            if seen is not None:
                addresses.saw(*seen)
            if addresses.is_complete():
                operation.log.status(operation.urn, INFO, "Service initialization complete")
                return addresses.service
            operation.log.status(operation.urn, INFO, addresses.progress())
    if addresses.will_do():
        return addresses.service
    if operation.cancelled.is_set():
        message = f'Resource operation was cancelled for "{name}"'
    else:
        message = f"'{name}' timed out waiting to be Ready"
    raise AwaitFailed(message, addresses.service, list(addresses.errors()))


def read(operation: Operation, current: Manifest) -> None:
    """Raises AwaitFailed for a Service that has not what it needs now."""
    addresses = Addresses(current)
    for kind in ("Service", "Endpoints"):
        plural = operation.api.plural("v1", kind)
        for item in operation.api.list("v1", plural, current["metadata"]["namespace"])[0]:
            addresses.saw(kind, "ADDED", item)
    addresses.settle()
    if not addresses.is_complete():
        name = current["metadata"]["name"]
        raise AwaitFailed(f"Resource '{name}' was created but failed to initialize", current, list(addresses.errors()))
