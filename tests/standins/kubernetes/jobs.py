"""The wait for a Job, as the real provider does it (provider/pkg/await/job.go): it completes, or fails at once."""

from typing import Final

from . import pods
from .feed import Feed
from .metadata import owned_by
from .session import INFO, AwaitFailed, Operation
from .types import Manifest

_FAILED: Final = ("BackoffLimitExceeded", "DeadlineExceeded")


def wait(operation: Operation, current: Manifest) -> Manifest:
    """The Job when it is complete. Raises AwaitFailed, ApiFailure."""
    job, said = current, dict[str, None]()
    name = job["metadata"]["name"]
    with Feed(operation.api, job["metadata"]["namespace"]) as feed:
        feed.subscribe("batch/v1", "Job")
        feed.subscribe("v1", "Pod")
        for seen in feed.events(operation.deadline, operation.cancelled):
            if seen is None:
                continue
            kind, _, item = seen
            if kind == "Pod" and owned_by(item, current):
                said |= dict.fromkeys(_pod_errors(item))
            elif kind == "Job" and item["metadata"]["name"] == name:
                job = item
                if failure := _failure(job):
                    raise AwaitFailed(f"Resource '{name}' was created but failed to initialize", job, [*said, failure])
                if _is_complete(job):
                    return job
                operation.log.status(operation.urn, INFO, _progress(job))
    if operation.cancelled.is_set():
        raise AwaitFailed(f'Resource operation was cancelled for "{name}"', job, [*said])
    raise AwaitFailed(f"'{name}' timed out waiting to be Ready", job, [*said])


def read(operation: Operation, current: Manifest) -> None:
    """Raises AwaitFailed for a Job that is not complete now."""
    if _is_complete(current):
        return
    metadata = current["metadata"]
    items, _ = operation.api.list("v1", operation.api.plural("v1", "Pod"), metadata["namespace"])
    said = [error for pod in items if owned_by(pod, current) for error in _pod_errors(pod)]
    failure = _failure(current)
    raise AwaitFailed(
        f"Resource '{metadata['name']}' was created but failed to initialize",
        current,
        [*([failure] if failure else []), *said],
    )


def _is_complete(job: Manifest) -> bool:
    return "startTime" in job.get("status", {}) and "Complete" in _conditions(job)


def _failure(job: Manifest) -> str | None:
    condition = _conditions(job).get("Failed")
    if condition is None or condition.get("reason") not in _FAILED:
        return None
    return f"[{condition['reason']}] {condition.get('message', '')}"


def _conditions(job: Manifest) -> dict[str, Manifest]:
    """Those that are true, by type."""
    conditions = job.get("status", {}).get("conditions") or []
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


def _pod_errors(pod: Manifest) -> list[str]:
    problem = pods.problem(pod)
    return [problem] if problem else []


def _progress(job: Manifest) -> str:
    status = job.get("status", {})
    counts = " | ".join(f"{name.title()}: {status.get(name, 0)}" for name in ("active", "succeeded", "failed"))
    return f'Waiting for Job "{job["metadata"]["name"]}" to succeed ({counts})'
