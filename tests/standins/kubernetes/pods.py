"""Why a pod is not ready, in the real provider's words (provider/pkg/await/checker/pod)."""

from typing import Any

from .types import Manifest


def problem(pod: Manifest) -> str | None:
    """None for a pod that is ready, or waits for a node: that is no warning."""
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    for name in ("PodScheduled", "Initialized", "Ready"):
        condition = conditions.get(name)
        if condition is None:
            return None
        if condition["status"] == "True" or (name == "Ready" and status.get("phase") == "Succeeded"):
            continue
        if name == "PodScheduled":
            return None
        errors = [error for container in status.get("containerStatuses", []) for error in _container_errors(container)]
        message = condition.get("message", "")
        if not errors and not message:
            return None
        said = message if condition.get("reason") else ""
        return f"[Pod {_qualified(pod)}]: {said}" + "\n".join(errors)
    return None


def _container_errors(container: Manifest) -> list[str]:
    if container.get("ready"):
        return []
    state, errors = container.get("state", {}), []
    waiting, terminated = state.get("waiting"), state.get("terminated")
    last: dict[str, Any] | None = container.get("lastState", {}).get("terminated")
    if waiting and waiting.get("reason") != "ContainerCreating":
        errors.append(f"[{waiting.get('reason', '')}] {_trimmed(waiting.get('message', ''))}")
    if terminated and terminated.get("reason"):
        errors.append(
            f"[{terminated['reason']}] {_trimmed(terminated['message'])}"
            if terminated.get("message")
            else f'container "{container["name"]}" completed with exit code {terminated["exitCode"]}'
        )
    if last:
        errors.append(
            f'container "{container["name"]}" terminated at {last.get("finishedAt")} '
            f"({last.get('reason', '')}: exit code {last['exitCode']})"
        )
        if last.get("message"):
            errors.append(last["message"])
    return errors


def _trimmed(message: str) -> str:
    prefix = "rpc error: code = Unknown desc = Error response from daemon: "
    return message.removeprefix(prefix).removesuffix(": manifest unknown")


def _qualified(pod: Manifest) -> str:
    metadata = pod["metadata"]
    return metadata["name"] if metadata["namespace"] == "default" else f"{metadata['namespace']}/{metadata['name']}"
