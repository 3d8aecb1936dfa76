"""When a rollout is over: once its pods alone serve, or at once where they crash again and again."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from ..settings import Settings
from ..stacks.spec import ModelSpec
from . import cluster

if TYPE_CHECKING:
    from lightkube.models.core_v1 import ContainerStatus
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import Pod

CRASHES: Final = 3
"""As many in a row, and a new pod is not going to run: about half a minute, as the kubelet waits longer each time."""

PATIENCE_SECONDS: Final = {
    "ErrImagePull": 40.0,
    "ImagePullBackOff": 40.0,
    "InvalidImageName": 0.0,
    "CreateContainerConfigError": 10.0,
    "CreateContainerError": 10.0,
}
"""How long a container may wait for that reason: three attempts to pull, a moment for what it refers to."""

SETTLING_SECONDS: Final = 60.0
"""How long to wait for the former pods to go once Pulumi has found the new ones ready."""

_LOOK_SECONDS: Final = 2.0
_SETTLING_LOOK_SECONDS: Final = 0.5

_log = structlog.get_logger("asgard.rollouts")


@contextmanager
def watched(settings: Settings, spec: ModelSpec, give_up: Callable[[], None]) -> Iterator[None]:
    """While an `up` waits for the spec's release: `give_up` is called, once, when a new pod of it cannot become ready.

    Pods that were there before are not looked at. Where the cluster does not answer, nothing is given up.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(settings, spec, give_up, ended), name="rollout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def settle(settings: Settings, spec: ModelSpec) -> None:
    """Wait until the model's former pods are gone from its Service.

    Pulumi's provider does not, and takes a ReplicaSet that is used again, as in a rollback, for ready where it sees
    that before its new number of pods. Past `SETTLING_SECONDS`, or without an answer of the cluster, its word counts.
    """
    deadline = time.monotonic() + SETTLING_SECONDS
    try:
        while not is_settled(cluster.deployment(settings, spec)):
            if time.monotonic() > deadline:
                _log.warning("the former pods are still there", model=spec.name)
                return
            time.sleep(_SETTLING_LOOK_SECONDS)
    except Exception as error:
        _log.warning("the former pods could not be looked at", model=spec.name, reason=str(error))


def is_settled(deployment: "Deployment") -> bool:
    """Whether all its pods are new and available, as `kubectl rollout status` tells it.

    Source: https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go.
    """
    spec, status, metadata = deployment.spec, deployment.status, deployment.metadata
    if spec is None or status is None or metadata is None:
        return False
    seen = (status.observedGeneration or 0) >= (metadata.generation or 0)
    wanted, updated = 1 if spec.replicas is None else spec.replicas, status.updatedReplicas or 0
    return seen and wanted <= updated and (status.replicas or 0) <= updated <= (status.availableReplicas or 0)


def _watch(settings: Settings, spec: ModelSpec, give_up: Callable[[], None], ended: threading.Event) -> None:
    before: set[str] | None = None
    waits = Waits()
    while not ended.is_set():
        try:
            pods = {_name(pod): pod for pod in cluster.pods(settings, spec)}
        except Exception as error:
            _log.warning("the new pods could not be looked at", model=spec.name, reason=str(error))
        else:
            before = set(pods) if before is None else before
            if waits.hopeless([pod for name, pod in pods.items() if name not in before], time.monotonic()):
                _log.info("the new pods cannot become ready", model=spec.name)
                give_up()
                return
        ended.wait(_LOOK_SECONDS)


class Waits:
    """Since when each pod's container waits without having run."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def hopeless(self, pods: "list[Pod]", now: float) -> bool:
        """Whether one of them is not going to be ready, as they are seen at `now` (of `time.monotonic`)."""
        return any(
            self._is_hopeless(_name(pod), container, now)
            for pod in pods
            for container in (pod.status and pod.status.containerStatuses) or ()
        )

    def _is_hopeless(self, name: str, container: "ContainerStatus", now: float) -> bool:
        waiting = container.state and container.state.waiting
        if not waiting:
            return False
        if waiting.reason == "CrashLoopBackOff":
            return container.restartCount >= CRASHES - 1
        if waiting.reason not in PATIENCE_SECONDS:
            return False
        return now - self._since.setdefault(name, now) >= PATIENCE_SECONDS[waiting.reason]


def _name(pod: "Pod") -> str:
    return str(pod.metadata and pod.metadata.name)
