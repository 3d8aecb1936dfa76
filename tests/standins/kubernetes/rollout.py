"""The wait for a Deployment, as the real provider does it (provider/pkg/await/deployment.go).

A rollout that misses its progress deadline is said to have, and waited for all the same, until the time is up.
"""

import time
from collections.abc import Iterable
from typing import Any, Final

from . import pods
from .feed import Feed
from .metadata import owned_by
from .session import INFO, WARNING, AwaitFailed, Operation
from .types import Manifest

_REVISION: Final = "deployment.kubernetes.io/revision"
_WATCHED: Final = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "Pod"),
    ("v1", "PersistentVolumeClaim"),
)
_REPORT_SECONDS: Final = 10


class Rollout:
    """What is known of a Deployment's. `observed`: whether the controller is known to have seen this generation."""

    def __init__(self, current: Manifest, *, observed: bool = False) -> None:
        self.deployment = current
        self._generation: int = current["metadata"]["generation"]
        self._observed = observed
        self._revision = ""
        self._available = False
        self._replica_set_available = False
        self._replica_sets: dict[str, Manifest] = {}
        self._pods: dict[str, Manifest] = {}
        self._errors: dict[str, str] = {}

    def saw(self, kind: str, event: str, item: Manifest) -> None:
        if kind == "Deployment" and event != "DELETED":
            self._saw_deployment(item)
        elif kind == "ReplicaSet" and owned_by(item, self.deployment):
            _keep(self._replica_sets, item["metadata"]["annotations"].get(_REVISION, ""), event, item)
        elif kind == "Pod":
            _keep(self._pods, item["metadata"]["name"], event, item)

    def is_complete(self) -> bool:
        """A first one has no old pods to replace, so nothing else to progress to."""
        available = self._available and (self._revision == "1" or self._replica_set_available)
        return self._observed and available and self._new_pods_ready()

    def errors(self) -> list[str]:
        """Everything that stands in the way, pods' own words last."""
        said = list(self._errors.values())
        if not self._available:
            said.append("Minimum number of live Pods was not attained")
        elif self._revision != "1" and not self._replica_set_available:
            said.append("Minimum number of Pods to consider the application live was not attained")
        elif not self._new_pods_ready():
            said.append(
                "Minimum number of Pods to consider the application live was not attained"
                if self._revision == "1"
                else "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live"
            )
        return said + self.pod_errors()

    def pod_errors(self) -> list[str]:
        replica_set = self._replica_sets.get(self._revision)
        if replica_set is None:
            return []
        found = (pods.problem(pod) for pod in self._pods.values() if owned_by(pod, replica_set))
        return [problem for problem in found if problem is not None]

    def progress(self) -> str:
        ready, wanted = self._counts()
        return f"Waiting for app ReplicaSet to be available ({ready or 0}/{wanted} Pods available)"

    def _saw_deployment(self, item: Manifest) -> None:
        metadata, status = item["metadata"], item.get("status", {})
        if metadata["name"] != self.deployment["metadata"]["name"] or metadata["generation"] < self._generation:
            return
        self._errors = {}
        self.deployment = item
        self._observed = self._observed or status.get("observedGeneration") == metadata["generation"]
        self._revision = metadata.get("annotations", {}).get(_REVISION, "")
        for condition in status.get("conditions", []) if self._revision else []:
            true = condition["status"] == "True"
            if condition["type"] == "Progressing":
                self._replica_set_available = true and condition.get("reason") == "NewReplicaSetAvailable"
            elif condition["type"] == "Available":
                self._available = true
            else:
                continue
            if not true and "reason" in condition and "message" in condition:
                self._errors[condition["reason"]] = f"[{condition['reason']}] {condition['message']}"

    def _new_pods_ready(self) -> bool:
        if not self._revision or self._revision not in self._replica_sets:
            return False
        ready, wanted = self._counts()
        return wanted == 0 if ready is None else ready >= wanted

    def _counts(self) -> tuple[int | None, int]:
        """Ready pods, None where the ReplicaSet does not say, and wanted ones."""
        replica_set: dict[str, Any] = self._replica_sets.get(self._revision, {})
        wanted: int = replica_set.get("spec", {}).get("replicas", 1)
        return replica_set.get("status", {}).get("readyReplicas"), wanted


def wait(operation: Operation, current: Manifest) -> Manifest:
    """The Deployment when it is rolled out. Raises AwaitFailed, ApiFailure."""
    rollout, name = Rollout(current), current["metadata"]["name"]
    reported = time.monotonic()
    with Feed(operation.api, current["metadata"]["namespace"]) as feed:
        for api_version, kind in _WATCHED:
            feed.subscribe(api_version, kind)
        for seen in feed.events(operation.deadline, operation.cancelled):
            if seen is not None:
                rollout.saw(*seen)
            if rollout.is_complete():
                operation.log.status(operation.urn, INFO, "Deployment initialization complete")
                return rollout.deployment
            operation.log.status(operation.urn, INFO, rollout.progress())
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                _report(operation, rollout.errors())
    if operation.cancelled.is_set():
        raise AwaitFailed(f'Resource operation was cancelled for "{name}"', rollout.deployment, rollout.errors())
    raise AwaitFailed(f"'{name}' timed out waiting to be Ready", rollout.deployment, rollout.errors())


def read(operation: Operation, current: Manifest) -> None:
    """Raises AwaitFailed for a Deployment that is not rolled out now."""
    rollout = Rollout(current, observed=True)
    for api_version, kind in _WATCHED:
        plural = operation.api.plural(api_version, kind)
        for item in operation.api.list(api_version, plural, current["metadata"]["namespace"])[0]:
            rollout.saw(kind, "ADDED", item)
    if not rollout.is_complete():
        name = current["metadata"]["name"]
        raise AwaitFailed(f"Resource '{name}' was created but failed to initialize", current, rollout.errors())


def _report(operation: Operation, errors: Iterable[str]) -> None:
    for error in errors:
        operation.log.status(operation.urn, WARNING, error)


def _keep(known: dict[str, Manifest], key: str, event: str, item: Manifest) -> None:
    if event == "DELETED":
        known.pop(key, None)
    else:
        known[key] = item
