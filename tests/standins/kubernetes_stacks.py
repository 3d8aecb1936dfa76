"""Pulumi stacks whose `kubernetes` plugin is the stand-in, driven by the real engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi import automation as auto
from pulumi.automation.events import EngineEvent

from asgard.platform import engine

PROJECT = "kubernetes-standin"

Program = Callable[[], None]


@dataclass(frozen=True)
class Step:
    """What the engine does to one resource. `details`: how each property changes, by its path."""

    op: str
    type: str
    name: str
    details: dict[str, str]


@dataclass
class Run:
    """What was seen of an operation; `steps` without those that change nothing, the stack's and the provider's own."""

    steps: list[Step] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    failed: bool = False

    def ops(self) -> list[str]:
        return [step.op for step in self.steps]

    def text(self) -> str:
        return "\n".join(self.messages)

    def saw(self, event: EngineEvent) -> None:
        if event.diagnostic_event is not None and event.diagnostic_event.severity != "debug":
            self.messages.append(event.diagnostic_event.message)
        if event.resource_pre_event is not None:
            about = event.resource_pre_event.metadata
            if about.op not in ("same", "refresh", "read") and about.type.startswith("kubernetes:"):
                details = {path: diff.diff_kind.value for path, diff in (about.detailed_diff or {}).items()}
                self.steps.append(Step(about.op.value, about.type, about.urn.rpartition("::")[2], details))


def declare(kind: type[pulumi.Resource], name: str, **properties: Any) -> Any:
    """A resource with properties, right or wrong, that nobody looks at before the provider does.

    Nor does mypy, which otherwise takes gigabytes to compare a nested literal with the SDK's unions of types.
    """
    resource: Any = kind
    return resource(name, **properties)


class Stack:
    """A stack of its own folder and file backend. Operations do not raise: `Run.failed` says how they ended."""

    def __init__(self, folder: Path, command: auto.PulumiCommand, port: int) -> None:
        backend = folder / "backend"
        backend.mkdir(parents=True)
        self._state_file = backend / ".pulumi" / "stacks" / PROJECT / "dev.json"
        self._workspace = auto.LocalWorkspace(
            work_dir=str(folder),
            pulumi_command=command,
            project_settings=auto.ProjectSettings(PROJECT, "python", backend=auto.ProjectBackend(f"file://{backend}")),
            env_vars={
                "PULUMI_DEBUG_PROVIDERS": f"kubernetes:{port}",
                "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
                "PULUMI_CONFIG_PASSPHRASE": "correct horse",
            },
        )
        self._workspace.create_stack("dev")

    def preview(self, program: Program) -> Run:
        return self._run(lambda stack, run: stack.preview(on_event=run.saw), program)

    def up(self, program: Program) -> Run:
        return self._run(lambda stack, run: stack.up(on_event=run.saw), program)

    def refresh(self) -> Run:
        return self._run(lambda stack, run: stack.refresh(on_event=run.saw))

    def destroy(self) -> Run:
        return self._run(lambda stack, run: stack.destroy(on_event=run.saw))

    def outputs(self) -> dict[str, Any]:
        return {name: output.value for name, output in self._workspace.stack_outputs("dev").items()}

    def secret_outputs(self) -> set[str]:
        return {name for name, output in self._workspace.stack_outputs("dev").items() if output.secret}

    def state(self, name: str) -> dict[str, Any]:
        """The resource as Pulumi keeps it, secrets in the clear."""
        deployment = self._workspace.export_stack("dev").deployment or {}
        [found] = [item for item in deployment["resources"] if item["urn"].endswith(f"::{name}")]
        return dict(found)

    def state_text(self) -> str:
        """All that is kept of the stack, as it is kept."""
        return self._state_file.read_text()

    def _run(self, operation: Callable[[auto.Stack, Run], object], program: Program = lambda: None) -> Run:
        run = Run()
        try:
            operation(engine._Stack("dev", self._workspace, program), run)
        except auto.CommandError as error:
            run.failed = True
            run.messages.append(str(error))
        return run
