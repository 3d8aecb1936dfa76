"""Resource `asgard:index:LocalServer`: a model's server on this machine.

What really serves stands in the model's `desired.json`, written by the model's parent process after each success.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ... import quantities
from ...serving import control
from ...serving import desired as desired_state
from ...serving.desired import ApplyFailed, Desired
from .resource import Properties, Resource

TYPE: Final = "asgard:index:LocalServer"
HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Materialized:
    """A release made ready on this machine. `bundle`: its folder. `python`: the interpreter of its environment."""

    bundle: Path
    python: Path


Materialize = Callable[[str, dict[str, Any]], Materialized]
"""Model, release -> the release on this machine: from its local copy, else from MLflow."""


@dataclass(frozen=True)
class LocalRuntime:
    """What the resource works with. Functions take the model's name first."""

    data_dir: Path
    health_timeout_seconds: float
    materialize: Materialize
    on_log: Callable[[str, str], None]
    """Model, a line of progress."""
    on_failure: Callable[[str, ApplyFailed], None]
    """Model, why it could not be made to serve."""


def resource(runtime: LocalRuntime) -> Resource:
    """The resource type, working in `runtime`."""
    return Resource(
        token=TYPE,
        create=lambda inputs: _create(runtime, inputs),
        read=lambda identifier, inputs, outputs: _read(runtime, identifier, inputs, outputs),
        update=lambda _, inputs, outputs: _apply(runtime, inputs, _directory(runtime, inputs["name"], outputs)),
        delete=lambda identifier, outputs: _delete(runtime, identifier, outputs),
        preview=lambda inputs, outputs: _outputs(inputs, _directory(runtime, inputs["name"], outputs)),
    )


def bundles(data_dir: Path, model: str) -> Path:
    """Folder of a model's local bundles, each named by the hex of its digest."""
    return data_dir / "bundles" / model


def bundle_path(data_dir: Path, model: str, digest: str) -> Path:
    """Where the local copy of a bundle stands."""
    return bundles(data_dir, model) / digest.removeprefix("sha256:")


def directories(data_dir: Path) -> list[Path]:
    """Folders of the models that are to serve."""
    return sorted(path.parent for path in (data_dir / "models").glob("*/desired.json"))


def serving(data_dir: Path) -> list[Desired]:
    """What serves on this machine, or should: one a model."""
    found = (desired_state.read(directory) for directory in directories(data_dir))
    return [desired for desired in found if desired is not None]


def url(port: int) -> str:
    """Where a model on this machine answers."""
    return f"http://{HOST}:{port}"


def restart(runtime: LocalRuntime, directory: Path, environment: Mapping[str, str]) -> None:
    """Start the parent of a model that was to serve, as it served before. Raises ApplyFailed."""
    desired = desired_state.read(directory)
    if desired is None:
        return
    ready = runtime.materialize(desired.name, dict(desired.release))
    _control(runtime, directory, replace(desired, python=str(ready.python), bundle=str(ready.bundle)), environment)


def prune(data_dir: Path, model: str) -> None:
    """Delete the local bundles that do not serve, after an operation that did not end well."""
    desired = desired_state.read(data_dir / "models" / model)
    if desired is None:
        shutil.rmtree(bundles(data_dir, model), ignore_errors=True)
    else:
        _keep_only(Path(desired.bundle))


def discard(data_dir: Path, model: str) -> bool:
    """End and delete what is here without the engine knowing, as after a lost `create`; False: there is nothing."""
    directory = data_dir / "models" / model
    found = directory.exists()
    _remove(directory)
    return found


def _directory(runtime: LocalRuntime, model: str, outputs: Properties) -> Path:
    """The model's folder: where the state says it is, so that what was made elsewhere is found again.

    In a data folder that was moved or copied, the state names the former place; what serves here is here.
    """
    here = runtime.data_dir / "models" / model
    recorded = Path(outputs.get("directory") or here)
    return here if (here / desired_state.FILE).exists() or not recorded.exists() else recorded


def _outputs(inputs: Properties, directory: Path) -> Properties:
    data_dir = directory.parent.parent
    return {key: value for key, value in inputs.items() if key != "environment"} | {
        "url": url(inputs["port"]),
        "image_uri": bundle_path(data_dir, inputs["name"], inputs["release"]["digest"]).as_uri(),
        "directory": str(directory),
    }


def _create(runtime: LocalRuntime, inputs: Properties) -> tuple[str, Properties]:
    model = inputs["name"]
    try:
        return model, _apply(runtime, inputs, _directory(runtime, model, {}))
    except Exception:
        _delete(runtime, model, {})
        raise


def _apply(runtime: LocalRuntime, inputs: Properties, directory: Path) -> Properties:
    """Make the model's parent run `inputs`; on failure the former bundle and workers stay."""
    model, release = inputs["name"], inputs["release"]
    former = desired_state.read(directory)
    ready = runtime.materialize(model, release)
    desired = Desired(
        name=model,
        host=HOST,
        port=inputs["port"],
        replicas=inputs["replicas"],
        memory_limit_bytes=quantities.to_bytes(inputs["memory_limit"]),
        cpu_limit_millicores=quantities.to_millicores(inputs["cpu_limit"]),
        python=str(ready.python),
        bundle=str(ready.bundle),
        release=release,
    )
    try:
        _control(runtime, directory, desired, inputs.get("environment") or {})
    except Exception:
        if former is not None:
            _keep_only(Path(former.bundle))
        raise
    _keep_only(ready.bundle)
    return _outputs(inputs, directory)


def _control(runtime: LocalRuntime, directory: Path, desired: Desired, environment: Mapping[str, str]) -> None:
    began = time.monotonic()
    try:
        control.apply(
            directory,
            desired,
            environment,
            timeout_seconds=runtime.health_timeout_seconds,
            on_log=lambda line: runtime.on_log(desired.name, line),
        )
    except ApplyFailed as error:
        runtime.on_failure(desired.name, error)
        raise
    runtime.on_log(desired.name, f"{url(desired.port)} answers after {time.monotonic() - began:.2f} s")


def _keep_only(bundle: Path) -> None:
    for other in bundle.parent.glob("*"):
        if other != bundle:
            shutil.rmtree(other, ignore_errors=True)


def _read(
    runtime: LocalRuntime, identifier: str, inputs: Properties, outputs: Properties
) -> tuple[Properties, Properties] | None:
    directory = _directory(runtime, identifier, outputs)
    desired = desired_state.read(directory)
    if desired is None:
        return None
    actual = inputs | {
        "name": identifier,
        "port": desired.port,
        # Nothing answers while the parent is gone: the next `up` then sees a difference and brings it back.
        "replicas": desired.replicas if control.status(directory) else 0,
        "release": dict(desired.release),
    }
    for key, amount, parse in (
        ("memory_limit", desired.memory_limit_bytes, quantities.to_bytes),
        ("cpu_limit", desired.cpu_limit_millicores, quantities.to_millicores),
    ):
        if key not in inputs or parse(inputs[key]) != amount:
            actual[key] = str(amount) if key == "memory_limit" else f"{amount}m"
    return actual, _outputs(actual, directory)


def _delete(runtime: LocalRuntime, identifier: str, outputs: Properties) -> None:
    _remove(_directory(runtime, identifier, outputs))


def _remove(directory: Path) -> None:
    control.stop(directory)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(bundles(directory.parent.parent, directory.name), ignore_errors=True)
