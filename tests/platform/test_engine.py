"""The real Pulumi CLI and file backend; the resource is one that only remembers what it was asked."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pulumi import automation as auto
from pulumi.automation import _server

from asgard.errors import DeployInProgress, InfrastructureFailed
from asgard.platform import secrets, stackfile
from asgard.platform.engine import Engine, Watches
from asgard.platform.secrets import WrongPassphrase
from asgard.settings import Settings
from asgard.stacks.provider.image import TYPE as IMAGE
from asgard.stacks.provider.local_server import TYPE
from asgard.stacks.provider.resource import Properties, Resource
from asgard.stacks.provider.servicer import serve
from asgard.stacks.spec import DeploymentConfig, ModelSpec, Release

from ..waiting import until


class World:
    """What serves, by model, and what was asked."""

    def __init__(self) -> None:
        self.serving: dict[str, Properties] = {}
        self.calls: list[str] = []
        self.failure: str | None = None
        self.gate = threading.Event()
        self.gate.set()

    def resource(self) -> Resource:
        return Resource(
            token=TYPE,
            create=lambda inputs: (inputs["name"], self._apply("create", inputs)),
            read=lambda name, inputs, outputs: (self.serving[name], outputs) if name in self.serving else None,
            update=lambda _, inputs, outputs: self._apply("update", inputs),
            delete=self._delete,
            preview=lambda inputs, outputs: outputs,
        )

    def _apply(self, call: str, inputs: Properties) -> Properties:
        self.calls.append(call)
        self.gate.wait(60)
        if self.failure:
            raise RuntimeError(self.failure)
        self.serving[inputs["name"]] = inputs
        return {"url": f"http://127.0.0.1:{inputs['port']}", "image_uri": "file:///bundle", "directory": "/x"}

    def _delete(self, name: str, outputs: Properties) -> None:
        self.calls.append("delete")
        self.serving.pop(name, None)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def engine(settings: Settings, world: World, pulumi_command: auto.PulumiCommand) -> Iterator[Engine]:
    server, port = serve({kind: replace(world.resource(), token=kind) for kind in (TYPE, IMAGE)})
    yield Engine(settings, pulumi_command, {"asgard": port}, Watches())
    server.stop(0)


def write(settings: Settings, model: str = "iris", *, replicas: int = 1, version: int = 1) -> None:
    spec = ModelSpec(
        name=model,
        target="local",
        namespace="asgard",
        deployment=DeploymentConfig(replicas=replicas),
        port=20001,
        release=Release(version=version, run_id="1234e56", digest="sha256:" + "0" * 64, bundle="mlflow-artifacts:/1"),
    )
    path = stackfile.path_of(settings.stacks_dir, model)
    stackfile.write(path, stackfile.StackFile(spec, {"API_KEY": "s3cret"}), secrets.passphrase(settings))


def up(engine: Engine, model: str = "iris", *, refresh: bool = False) -> str:
    outputs = engine.up(model, token="t", on_log=lambda _: None, refresh=refresh)
    return str(outputs["deployment_id"])


def test_the_first_up_makes_the_stack_and_a_second_changes_nothing(
    engine: Engine, settings: Settings, world: World
) -> None:
    write(settings)
    assert up(engine) == "iris-v1-1234e5"
    before = stackfile.path_of(settings.stacks_dir, "iris").read_text()
    assert up(engine) == "iris-v1-1234e5"
    assert world.calls == ["create"]
    assert stackfile.path_of(settings.stacks_dir, "iris").read_text() == before


def test_whole_numbers_and_secrets_reach_the_resource_as_they_are(
    engine: Engine, settings: Settings, world: World
) -> None:
    write(settings, replicas=3)
    up(engine)
    assert world.serving["iris"]["environment"] == {"API_KEY": "s3cret"}
    assert repr(world.serving["iris"]["replicas"]) == "3"


def test_no_secret_stands_in_the_clear_in_state_or_stack_file(engine: Engine, settings: Settings) -> None:
    write(settings)
    up(engine)
    files = [path for path in settings.data_dir.rglob("*") if path.is_file()]
    assert any(path.name == "iris.json" for path in files)
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


def test_a_failed_update_keeps_the_former_state_and_says_why(engine: Engine, settings: Settings, world: World) -> None:
    write(settings)
    up(engine)
    write(settings, version=2)
    world.failure = "the new version does not load"
    with pytest.raises(InfrastructureFailed, match="the new version does not load"):
        up(engine)
    world.failure = None
    write(settings, version=1)
    world.calls.clear()
    assert up(engine) == "iris-v1-1234e5"
    assert world.calls == []


def test_a_refresh_finds_what_really_serves(engine: Engine, settings: Settings, world: World) -> None:
    write(settings)
    up(engine)
    world.serving["iris"] = world.serving["iris"] | {"replicas": 0}
    world.calls.clear()
    up(engine, refresh=True)
    assert world.calls == ["update"]
    assert world.serving["iris"]["replicas"] == 1


def test_destroy_takes_resource_and_stack_and_can_be_repeated(engine: Engine, settings: Settings, world: World) -> None:
    write(settings)
    up(engine)
    assert engine.destroy("iris", token="t", on_log=lambda _: None)
    assert world.serving == {}
    assert not engine.destroy("iris", token="t", on_log=lambda _: None)


def test_several_models_at_once_all_succeed(engine: Engine, settings: Settings, world: World) -> None:
    models = [
        f"model-{number}" for number in range(4)
    ]  # ten, through the whole of a deploy: tests/e2e/test_failures.py
    for model in models:
        write(settings, model)
    with ThreadPoolExecutor(len(models)) as pool:
        ids = list(pool.map(lambda model: up(engine, model), models))
    assert ids == [f"{model}-v1-1234e5" for model in models]
    assert sorted(world.serving) == sorted(models)


def test_a_stack_that_another_driver_works_on_is_in_progress(engine: Engine, settings: Settings, world: World) -> None:
    write(settings)
    up(engine)
    write(settings, replicas=2)
    world.gate.clear()
    world.calls.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(up, engine)
        while "update" not in world.calls:
            assert not first.done()
        with pytest.raises(DeployInProgress):
            up(engine)
        world.gate.set()
        first.result()


def path_of_lock(settings: Settings) -> Path:
    path = settings.data_dir / "backend/.pulumi/locks/organization/asgard-models/iris/0.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def lock_of(settings: Settings, **holder: object) -> None:
    path_of_lock(settings).write_text(json.dumps({"username": "u", "hostname": socket.gethostname(), **holder}))


@pytest.mark.parametrize("made", [False, True], ids=["new", "made"])
@pytest.mark.parametrize("lock", ["held", "freed as it is read"])
def test_a_stack_that_is_locked_elsewhere_is_in_progress(
    engine: Engine, settings: Settings, lock: str, *, made: bool
) -> None:
    write(settings)
    if made:
        up(engine)
    if lock == "held":
        lock_of(settings, hostname="another", pid=1, timestamp=datetime.now(UTC).isoformat())
    else:
        path_of_lock(settings).symlink_to("freed")
    engine.free_dead_lock("iris")
    with pytest.raises(DeployInProgress):
        up(engine)


def test_a_lock_whose_holder_is_gone_is_freed(engine: Engine, settings: Settings) -> None:
    write(settings)
    up(engine)
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock_of(settings, pid=gone.pid, timestamp="2026-01-01T00:00:00.5Z")
    with pytest.raises(DeployInProgress):
        up(engine)
    engine.free_dead_lock("iris")
    assert up(engine) == "iris-v1-1234e5"


@pytest.fixture
def pulumi_process(tmp_path: Path) -> Iterator[int]:
    """The number of a process that is called `pulumi`."""
    (tmp_path / "pulumi").symlink_to(str(shutil.which("sleep")))
    process = subprocess.Popen([tmp_path / "pulumi", "3600"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_lock_whose_holders_number_was_given_to_a_later_pulumi_is_freed(
    engine: Engine, settings: Settings, pulumi_process: int
) -> None:
    write(settings)
    up(engine)
    lock_of(settings, pid=pulumi_process, timestamp="2026-01-01T00:00:00Z")
    engine.free_dead_lock("iris")
    assert up(engine) == "iris-v1-1234e5"


def test_a_lock_whose_holders_number_was_given_to_another_program_is_freed(engine: Engine, settings: Settings) -> None:
    """Whenever it began: within the second of the lock's time nobody can tell."""
    write(settings)
    up(engine)
    lock_of(settings, pid=os.getpid(), timestamp=datetime.now(UTC).isoformat())
    engine.free_dead_lock("iris")
    assert up(engine) == "iris-v1-1234e5"


def test_half_a_lock_that_a_full_disk_left_is_taken_away(engine: Engine, settings: Settings) -> None:
    write(settings)
    up(engine)
    half = path_of_lock(settings).with_name("0.json.18ec167301fb6156.tmp")
    half.touch()
    os.utime(half, (0, 0))
    engine.free_dead_lock("iris")
    assert up(engine) == "iris-v1-1234e5"


@pytest.mark.parametrize("hostname", [socket.gethostname(), "another"])
def test_a_lock_whose_holder_lives_or_is_elsewhere_stays(
    engine: Engine, settings: Settings, pulumi_process: int, hostname: str
) -> None:
    write(settings)
    up(engine)
    pid = pulumi_process if hostname == socket.gethostname() else 1
    lock_of(settings, pid=pid, hostname=hostname, timestamp=datetime.now(UTC).isoformat())
    engine.free_dead_lock("iris")
    with pytest.raises(DeployInProgress):
        up(engine)


def test_recovery_brings_the_state_in_line_with_what_is(engine: Engine, settings: Settings, world: World) -> None:
    write(settings)
    up(engine)
    world.serving.clear()
    engine.recover("iris", token="t")
    world.calls.clear()
    up(engine)
    assert world.calls == ["create"]


def test_recovery_takes_over_what_was_made_and_not_recorded_and_leaves_no_creation_undecided(
    engine: Engine, settings: Settings, world: World
) -> None:
    write(settings)
    up(engine)
    path = settings.data_dir / "backend/.pulumi/stacks/asgard-models/iris.json"
    state = json.loads(path.read_text())
    latest = state["checkpoint"]["latest"]
    [server] = [resource for resource in latest["resources"] if resource["type"] == TYPE]
    image = {**server, "type": IMAGE, "urn": server["urn"].replace(TYPE, IMAGE)}
    image = {key: value for key, value in image.items() if key not in ("id", "outputs")}
    latest["pending_operations"] = [{"resource": image, "type": "creating"}]
    path.write_text(json.dumps(state))
    path.with_name("iris.json.attrs").unlink(missing_ok=True)
    engine.recover("iris", token="t")
    latest = json.loads(path.read_text())["checkpoint"]["latest"]
    assert "pending_operations" not in latest
    assert [resource["id"] for resource in latest["resources"] if resource["type"] == IMAGE] == ["iris"]
    world.calls.clear()
    engine.destroy("iris", token="t", on_log=lambda _: None)
    assert world.calls == ["delete", "delete"]


def test_an_operation_that_is_given_up_fails_and_the_next_one_succeeds(
    engine: Engine, settings: Settings, world: World
) -> None:
    write(settings)
    up(engine)
    write(settings, replicas=2)
    world.calls.clear()
    world.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(up, engine)
        while "update" not in world.calls:
            assert not first.done()
        engine.give_up("another")
        engine.give_up("t")
        world.gate.set()
        with pytest.raises(InfrastructureFailed):
            first.result()
    assert up(engine, refresh=True) == "iris-v1-1234e5"
    assert world.serving["iris"]["replicas"] == 2


def test_a_stack_that_is_not_there_has_no_outputs(engine: Engine, settings: Settings) -> None:
    assert engine.outputs("iris", token="t") == {}
    write(settings)
    up(engine)
    assert engine.outputs("iris", token="t")["deployment_id"] == "iris-v1-1234e5"


def test_recovery_of_a_stack_that_never_came_to_be_is_nothing(engine: Engine) -> None:
    engine.recover("iris", token="t")


def test_a_project_folder_that_a_team_made_is_not_overwritten(
    settings: Settings, pulumi_command: auto.PulumiCommand
) -> None:
    settings.stacks_dir.mkdir(parents=True)
    (settings.stacks_dir / "Pulumi.yaml").write_text("name: asgard-models\nruntime: python\n# ours\n")
    Engine(settings, pulumi_command, {}, Watches())
    assert "# ours" in (settings.stacks_dir / "Pulumi.yaml").read_text()
    assert (settings.stacks_dir / "__main__.py").exists()


def running_programs() -> list[traceback.FrameSummary]:
    """Frames of Pulumi's language host in any thread of this process."""
    stacks = [traceback.extract_stack(frame) for frame in sys._current_frames().values()]
    return [frame for stack in stacks for frame in stack if frame.filename == _server.__file__]


def test_a_failed_operation_leaves_no_program_running(
    engine: Engine, settings: Settings, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    write(settings)
    up(engine)
    write(settings, version=2)
    world.failure = "the new version does not load"
    for _ in range(3):
        with pytest.raises(InfrastructureFailed):
            up(engine)
    until(lambda: not running_programs(), "the programs end")
    assert caplog.text == ""


def test_a_stack_that_was_made_with_another_passphrase_says_so(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(settings)
    up(engine)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another")
    with pytest.raises(WrongPassphrase, match="PULUMI_CONFIG_PASSPHRASE"):
        up(engine)
    with pytest.raises(WrongPassphrase):
        engine.destroy("iris", token="t", on_log=lambda _: None)
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    assert up(engine) == "iris-v1-1234e5"


def test_a_command_of_the_cli_that_fails_is_named(engine: Engine, settings: Settings) -> None:
    write(settings)
    up(engine)
    state = settings.data_dir / "backend/.pulumi/stacks/asgard-models/iris.json"
    state.write_text("{")
    with pytest.raises(InfrastructureFailed, match="pulumi stack output failed"):
        engine.outputs("iris", token="token")
