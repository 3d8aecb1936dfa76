"""What the cluster says of a model that does not come up. Reading only: what is there, Pulumi has made."""

import os
import re
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from .. import naming
from ..errors import InfrastructureFailed, InfrastructureTimeout
from ..settings import Settings
from ..stacks.spec import ModelSpec

if TYPE_CHECKING:
    from lightkube import Client, KubeConfig
    from lightkube.models.core_v1 import ContainerStatus
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import Pod

LOG_LINES: Final = 20
EVENTS: Final = 10
_REQUEST_SECONDS: Final = 10.0
_USUAL_KUBECONFIG: Final = Path("~/.kube/config")

_log = structlog.get_logger("asgard.cluster")


@dataclass(frozen=True)
class Trouble:
    """`reason`: as Kubernetes names it (`ImagePullBackOff`, `OOMKilled`, `FailedScheduling`, …); None: nothing said.

    `lines`: events of the model's objects, oldest first, then the last lines of a pod's log.
    """

    reason: str | None
    message: str | None
    lines: list[str]


def has_namespace(settings: Settings) -> bool:
    """Whether the namespace of `ASGARD_NAMESPACE` is there. Raises InfrastructureFailed where nobody can tell."""
    # Who may not even look at it was given rights in one that is there.
    return _look(settings, settings.namespace) != 404


def identity(settings: Settings) -> str | None:
    """What no other cluster has; None: this account may not see it. Raises InfrastructureFailed as `has_namespace`."""
    found = _look(settings, "kube-system")
    return found if isinstance(found, str) else None


def _look(settings: Settings, namespace: str) -> str | int:
    """The namespace's uid, or with which status it is kept from us: 403 or 404."""
    import httpx2
    from lightkube import ApiError
    from lightkube.core.exceptions import ConfigError
    from lightkube.resources.core_v1 import Namespace

    try:
        found = _client(settings, settings.namespace).get(Namespace, namespace)
    except ApiError as error:
        if error.status.code in (403, 404):
            return error.status.code
        raise InfrastructureFailed(
            f"The cluster refuses: {error.status.message}. A token may have ended: see that `kubectl get pods` works "
            "with KUBECONFIG and ASGARD_KUBE_CONTEXT.",
            reason="ClusterUnavailable",
        ) from error
    except (ConfigError, httpx2.HTTPError, OSError) as error:
        raise InfrastructureFailed(
            f"The cluster cannot be reached ({type(error).__name__}: {error}). See that KUBECONFIG and "
            "ASGARD_KUBE_CONTEXT name it, and that `kubectl get pods` works.",
            reason="ClusterUnavailable",
        ) from error
    return str(found.metadata and found.metadata.uid)


def explained(settings: Settings, spec: ModelSpec, error: InfrastructureFailed) -> InfrastructureFailed:
    """The engine's error with what the cluster says of it; InfrastructureTimeout where it is the time that ran out."""
    if error.reason is not None:
        return error  # of the registry
    found = trouble(settings, spec)
    took_too_long = found.reason in (None, "FailedScheduling", "Unhealthy") and _TOO_LONG.search(error.message)
    kind = InfrastructureTimeout if took_too_long else InfrastructureFailed
    message = error.message if found.message is None else f"{found.reason}: {found.message}"
    return kind(message, reason=found.reason, log_tail=[*found.lines, *error.log_tail])


_TOO_LONG: Final = re.compile("timed? ?out|deadline", re.IGNORECASE)


def trouble(settings: Settings, spec: ModelSpec) -> Trouble:
    """Why the release's pods, or its Service, are not ready. Never raises: the cluster may be what failed."""
    try:
        client = _client(settings, spec.namespace)
        return _trouble(client, spec.name, _pods(client, spec))
    except Exception:
        _log.exception("the cluster does not say why the model does not come up", model=spec.name)
        return Trouble(None, None, [])


def pods(settings: Settings, spec: ModelSpec) -> "list[Pod]":
    """Of the spec's release. Raises what the cluster or the way to it says."""
    return _pods(_client(settings, spec.namespace), spec)


def deployment(settings: Settings, spec: ModelSpec) -> "Deployment":
    """The model's. Raises as `pods`."""
    from lightkube.resources.apps_v1 import Deployment

    return _client(settings, spec.namespace).get(Deployment, spec.name)


def _client(settings: Settings, namespace: str) -> "Client":
    import httpx2
    from lightkube import Client, KubeConfig

    usual = _USUAL_KUBECONFIG.expanduser()
    if configured := os.environ.get("KUBECONFIG"):
        config = _merged([Path(path) for path in configured.split(os.pathsep) if path], settings.kube_context)
    elif usual.is_file():
        # A pod's own account counts after it, as for kubectl and Pulumi.
        config = KubeConfig.from_file(usual)
    else:
        config = KubeConfig.from_env()
    return Client(config.get(settings.kube_context), namespace=namespace, timeout=httpx2.Timeout(_REQUEST_SECONDS))


def _merged(paths: Sequence[Path], context: str | None) -> "KubeConfig":
    """Kubeconfigs as kubectl takes several: what one of them says first counts, and one that is not there says nothing.

    Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files.
    """
    from lightkube import KubeConfig

    there = [path for path in paths if path.expanduser().is_file()]
    files = [KubeConfig.from_file(path) for path in there or paths[:1]]
    chosen = context or next((file.current_context for file in files if file.current_context), None)
    return KubeConfig(
        clusters=dict(ChainMap(*(file.clusters for file in files))),
        contexts=dict(ChainMap(*(file.contexts for file in files))),
        users=dict(ChainMap(*(file.users for file in files))),
        current_context=chosen,
        fname=next((file.fname for file in files if chosen in file.contexts), None),
    )


def _pods(client: "Client", spec: ModelSpec) -> "list[Pod]":
    from lightkube.resources.core_v1 import Pod

    wanted = naming.deployment_id(spec.name, spec.release.version, spec.release.run_id)
    return [
        pod
        for pod in client.list(Pod, labels={naming.NAME_LABEL: spec.name})
        if ((pod.metadata and pod.metadata.annotations) or {}).get(naming.DEPLOYMENT_ID_ANNOTATION) == wanted
    ]


def _trouble(client: "Client", model: str, found: "list[Pod]") -> Trouble:
    reason, message = most_telling(*found)
    events = _events(client, model)
    if reason is None:
        # Where there is no pod at all, its creation may have been refused.
        refused = [(name, text) for name, text in events if name == "FailedCreate"]
        reason, message = refused[-1] if refused and not found else (None, None)
    lines = [text for _, text in events][-EVENTS:]
    for pod in found:
        if log := _last_lines(client, pod):
            lines += log
            break
    return Trouble(reason, message, lines)


_RANK: Final = {
    name: rank
    for rank, name in enumerate(
        ["OOMKilled", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "Crashed",
         "CrashLoopBackOff", "FailedScheduling", "Unhealthy"]
    )
}  # fmt: skip
"""The more telling first."""


def most_telling(*pods: "Pod") -> tuple[str | None, str | None]:
    """The reason, and what is said of it, that tells most of why these pods are not ready."""
    said = [answer for pod in pods for answer in _reasons(pod)]
    return min(said, key=lambda answer: _RANK.get(answer[0], len(_RANK)), default=(None, None))


def _reasons(pod: "Pod") -> Iterator[tuple[str, str]]:
    status = pod.status
    if status is None:
        return
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            yield "FailedScheduling", condition.message or ""
    for container in status.containerStatuses or ():
        yield from _container_reasons(container)


def _container_reasons(container: "ContainerStatus") -> Iterator[tuple[str, str]]:
    for state in (container.state, container.lastState):
        if state is None:
            continue
        if state.terminated is not None:
            ended = state.terminated
            name = ended.reason if ended.reason == "OOMKilled" else "Crashed"
            yield name, f"the container ended with exit code {ended.exitCode}"
        elif state.waiting is not None and state.waiting.reason not in ("ContainerCreating", "PodInitializing"):
            # The kubelet pulls and waits in turn: which of the two it does at a moment says nothing.
            waiting = state.waiting.reason or "Waiting"
            yield "ImagePullBackOff" if waiting == "ErrImagePull" else waiting, state.waiting.message or ""
        elif state.running is not None and not container.ready:
            yield "Unhealthy", "the container runs and does not pass its probes"


def _events(client: "Client", model: str) -> list[tuple[str, str]]:
    """Reason and text of the warnings about the model's objects, oldest first."""
    from lightkube.resources.apps_v1 import Deployment, ReplicaSet
    from lightkube.resources.core_v1 import Event, Pod, Service

    kinds: tuple[Any, ...] = (Deployment, ReplicaSet, Pod, Service)
    objects = {
        (kind.__name__, item.metadata.name)
        for kind in kinds
        for item in client.list(kind, labels={naming.NAME_LABEL: model})
    }
    found = []
    for event in client.list(Event, fields={"type": "Warning"}):
        about = event.involvedObject
        if (about.kind, about.name) in objects:
            when = str(event.lastTimestamp or event.eventTime or "")
            text = f"{about.kind} {about.name}: {event.reason}: {(event.message or '').strip()}"
            found.append((when, event.reason or "", text))
    return [(reason, text) for _, reason, text in sorted(found)]


def _last_lines(client: "Client", pod: "Pod") -> list[str]:
    """Of the container that ended last, else of the one that runs."""
    from lightkube import ApiError

    assert pod.metadata is not None
    assert pod.metadata.name is not None
    try:
        return [line.rstrip("\n") for line in client.log(pod.metadata.name, tail_lines=LOG_LINES)]
    except ApiError:
        return []  # no container of it has ever run
