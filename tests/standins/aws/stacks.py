"""Stacks whose `aws` plugin is the stand-in, driven by the real engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pulumi
from pulumi import automation as auto

from asgard import naming
from asgard.platform import engine
from asgard.stacks import ecr
from asgard.stacks.spec import DeploymentConfig, KubernetesConfig, ModelSpec, Release

from .fixtures import REGION

TARGET: Final = KubernetesConfig(registry="ecr", region=REGION)
NAME: Final = "asgard-model/iris"
Program = Callable[[], None]


def spec(model: str = "iris") -> ModelSpec:
    return ModelSpec(
        name=model,
        target="kubernetes",
        namespace="staging",
        deployment=DeploymentConfig(),
        kubernetes=TARGET,
        release=Release(version=1, run_id="1234e56", digest="sha256:" + "0" * 64, bundle="mlflow-artifacts:/1"),
    )


def program(*models: str) -> Program:
    """What a model's stack declares of AWS; of several models, each in a component of its own."""

    def declare() -> None:
        for model in models or ("iris",):
            component = pulumi.ComponentResource(f"test:index:{model}", model)
            url = ecr.repository(spec(model), TARGET, pulumi.ResourceOptions(parent=component))
            pulumi.export(model, url)

    return declare


@dataclass
class Run:
    """What was seen of an operation. `steps`: each resource's that changes, in order, and how its properties do."""

    steps: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    def saw(self, event: auto.EngineEvent) -> None:
        if event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
            self.errors.append(event.diagnostic_event.message)
        if event.resource_pre_event is not None:
            about = event.resource_pre_event.metadata
            if about.op not in ("same", "refresh", "read") and about.type.startswith("aws:"):
                details = {path: str(diff.diff_kind.value) for path, diff in (about.detailed_diff or {}).items()}
                self.steps.append((about.op.value, about.type.rpartition(":")[2], details))
        if event.res_outputs_event is not None and event.res_outputs_event.metadata.new is not None:
            if event.res_outputs_event.metadata.type == "pulumi:pulumi:Stack":
                self.outputs = dict(event.res_outputs_event.metadata.new.outputs or {})
            # A refresh tells only afterwards what it has found.
            about = event.res_outputs_event.metadata
            if about.op == "refresh" and about.type.startswith("aws:"):
                details = {path: str(diff.diff_kind.value) for path, diff in (about.detailed_diff or {}).items()}
                self.steps.append(("refresh", about.type.rpartition(":")[2], details))

    def ops(self) -> list[tuple[str, str]]:
        return [(op, kind) for op, kind, _ in self.steps]

    def text(self) -> str:
        return "\n".join(self.errors)


class Stack:
    """One of a folder and a file backend of its own. Operations do not raise."""

    def __init__(self, folder: Path, command: auto.PulumiCommand, port: int) -> None:
        (folder / "backend").mkdir(parents=True)
        (folder / "Pulumi.yaml").write_text(f"name: {naming.PROJECT}\nruntime: python\n")
        self.folder = folder
        self.environment = {
            "PULUMI_BACKEND_URL": f"file://{folder / 'backend'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "correct horse",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        attached = {**self.environment, "PULUMI_DEBUG_PROVIDERS": f"aws:{port}"}
        self._workspace = auto.LocalWorkspace(str(folder), pulumi_command=command, env_vars=attached)
        self._workspace.create_stack("iris")

    def up(self, declare: Program | None = None) -> Run:
        return self._run(lambda stack: stack.up, declare)

    def preview(self, declare: Program | None = None) -> Run:
        return self._run(lambda stack: stack.preview, declare)

    def refresh(self) -> Run:
        return self._run(lambda stack: stack.refresh)

    def destroy(self) -> Run:
        return self._run(lambda stack: stack.destroy)

    def resources(self) -> dict[str, Any]:
        """What is recorded, by the last part of the type."""
        found = self._workspace.export_stack("iris").deployment or {}
        return {item["type"].rpartition(":")[2]: item for item in found.get("resources", [])}

    def _run(self, operation: Callable[[auto.Stack], Callable[..., Any]], declare: Program | None = None) -> Run:
        run = Run()
        try:
            operation(engine._Stack("iris", self._workspace, declare or program()))(on_event=run.saw)
        except auto.errors.CommandError as error:
            run.failed = True
            run.errors.append(str(error))
        return run
