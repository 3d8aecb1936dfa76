"""An image with a real model in a real Docker daemon: as restricted as a pod of the cluster's."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from asgard.errors import InfrastructureFailed, ModelNotFound
from asgard.platform import artifacts, model_images, registry, stackfile
from asgard.platform.bundle import digest
from asgard.platform.images import base as bases
from asgard.platform.images.build import Image, build
from asgard.platform.images.daemon import load
from asgard.platform.images.push import push
from asgard.platform.images.registry import Repository
from asgard.platform.tracking import Tracking, connect
from asgard.settings import Settings
from asgard.stacks.spec import DeploymentConfig, ModelSpec, Release

from ...cluster.harness import Prepared
from ...ports import free_port
from ...serving import models
from . import bundles, docker_daemon
from .conftest import SECONDS, ignore

RESTRICTED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": ""},
    "network_mode": "host",
}


@pytest.fixture(scope="module")
def daemon(prepared: Prepared) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="asgard-docker-") as folder,
        docker_daemon.running(prepared.dockerd, Path(folder)) as host,
    ):
        yield host


@pytest.fixture(scope="module")
def client(daemon: str) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=daemon, timeout=300)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def bundle(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the specification's model."""
    folder = tmp_path_factory.mktemp("bundle")
    models.SAVE["specification"](folder / "model")
    lock = bundles.lock(test_cache, bundles.model_requirements())
    return bundles.assemble(folder / "bundle", folder / "model", lock)


@pytest.fixture(scope="module")
def kept(test_cache: Path) -> Path:
    """A cache folder that lasts: this environment takes half a minute to make."""
    return test_cache / "asgard"


@pytest.fixture(scope="module")
def image(bundle: Path, base_name: str, kept: Path) -> Image:
    return build(bundle, bases.resolve(base_name, "linux/amd64", kept, ignore), kept, ignore, SECONDS)


@pytest.fixture(scope="module")
def pushed(image: Image, registry: str, kept: Path) -> str:
    """The image in the registry, by digest."""
    with Repository(registry, "asgard-model/iris", push=True) as repository:
        push(image, repository, "iris-v1-abcdef", kept, ignore)
    return f"{registry}/asgard-model/iris@{image.digest}"


@pytest.fixture
def container(client: docker.DockerClient, pushed: str) -> Iterator[tuple[Container, str]]:
    """A container of the image, and its URL."""
    port = free_port()
    client.images.pull(pushed)
    started = client.containers.run(
        pushed, ["--port", str(port)], detach=True, cpu_quota=150_000, cpu_period=100_000, mem_limit="1g", **RESTRICTED
    )
    yield started, f"http://127.0.0.1:{port}"
    started.remove(force=True)


def wait_ready(container: Container, url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            assert httpx.get(f"{url}/health", timeout=10).status_code == 200
            return
        except httpx.TransportError:
            container.reload()
            assert container.status == "running", container.logs().decode()
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.1)


def test_a_restricted_container_predicts_and_drains(container: tuple[Container, str]) -> None:
    running, url = container
    wait_ready(running, url)
    answer = httpx.post(f"{url}/predict", json={"data": [[1, 2, 3, 4, 5]]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [1]})
    assert httpx.get(f"{url}/health").json() == {"status": "healthy", "worker_pid": 1}
    running.stop(timeout=30)
    running.reload()
    assert running.attrs["State"]["ExitCode"] == 0
    assert b"Traceback" not in running.logs()
    assert b"limited to 1.5 cores" in running.logs()


def test_the_environment_in_the_image_is_that_of_the_lock(container: tuple[Container, str]) -> None:
    running, url = container
    wait_ready(running, url)
    libraries = httpx.get(f"{url}/metadata").json()["libraries"]
    pinned = dict(requirement.split("==") for requirement in bundles.model_requirements() if "==" in requirement)
    assert {name: libraries[name] for name in pinned} == pinned
    assert "pip" not in libraries


def test_a_container_is_what_it_says_it_is(container: tuple[Container, str]) -> None:
    running, url = container
    wait_ready(running, url)
    program = """
import json, os, sys, sklearn
try:
    open("/app/new", "w")
except OSError as error:
    written = error.strerror
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "home": os.path.expanduser("~"), "cwd": os.getcwd(), "prefix": sys.prefix,
    "path": [path for path in sys.path if "packages" in path], "compiled": os.path.exists(sklearn.__cached__),
    "written": written,
}))
"""
    code, output = running.exec_run(["/app/env/bin/python", "-c", program])
    assert isinstance(output, bytes)
    assert code == 0, output.decode()
    assert json.loads(output.decode().splitlines()[-1]) == {
        "uid": 65532,
        "gid": 65532,
        "home": "/tmp",
        "cwd": "/tmp",
        "prefix": "/app/env",
        "path": ["/app/env/lib/python3.11/site-packages"],
        "compiled": True,
        "written": "Read-only file system",
    }


def test_nothing_is_compiled_when_it_starts(client: docker.DockerClient, pushed: str) -> None:
    """Else each start would take seconds longer."""
    client.images.pull(pushed)
    program = """
import importlib._bootstrap_external as loader, json
compiled = []
compile_source = loader.SourceLoader.source_to_code
def note(self, data, path, **more):
    compiled.append(path)
    return compile_source(self, data, path, **more)
loader.SourceLoader.source_to_code = note
import asgard_server.worker, sklearn.ensemble
print(json.dumps([path for path in compiled if path.startswith("/app")]))
"""
    output: Any = client.containers.run(
        pushed, ["-c", program], entrypoint="/app/env/bin/python", remove=True, **RESTRICTED
    )
    assert json.loads(output.splitlines()[-1]) == []


@pytest.fixture
def release(bundle: Path, tracking: Tracking) -> Iterator[Callable[[str], Release]]:
    """Registers the bundle as a version of `iris` with the digest that is given."""
    client = connect(tracking.uri)
    client.create_registered_model("iris")

    def register(digest: str) -> Release:
        run_id = client.create_run("0").info.run_id
        uri = artifacts.upload_bundle(tracking, run_id, bundle)
        version = int(client.create_model_version("iris", uri, run_id).version)
        release = Release(version=version, run_id=run_id, digest=digest, bundle=uri)
        registry.record_release(tracking, "iris", release)
        return release

    yield register
    client.delete_registered_model("iris")


@pytest.fixture
def settings(base_name: str, kept: Path, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, cache_dir=kept, base_image=base_name)


def test_a_version_is_loaded_into_a_local_daemon(
    release: Callable[[str], Release],
    bundle: Path,
    image: Image,
    settings: Settings,
    tracking: Tracking,
    daemon: str,
    client: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon)
    version = release(digest(bundle)).version
    name = model_images.load(settings, tracking, "iris", version, ignore)
    assert name == "asgard-model/iris:iris-v1-abcdef"
    found = client.images.get(name)
    assert found.id == image.config.digest
    layers = [step for step in found.history() if step["CreatedBy"].startswith("asgard: ")]
    assert [step["CreatedBy"] for step in layers] == ["asgard: model", "asgard: server", "asgard: environment"]
    assert layers[2]["Size"] > 100 * layers[1]["Size"]


def test_a_version_whose_bundle_was_changed_is_not_loaded(
    release: Callable[[str], Release], settings: Settings, tracking: Tracking
) -> None:
    version = release(f"sha256:{0:064}").version
    with pytest.raises(InfrastructureFailed, match="changed in MLflow"):
        model_images.load(settings, tracking, "iris", version, ignore)


def test_without_a_version_it_is_the_one_that_serves(settings: Settings, tracking: Tracking) -> None:
    with pytest.raises(ModelNotFound):
        model_images.load(settings, tracking, "iris", None, ignore)
    gone = Release(version=7, run_id="a", digest=f"sha256:{0:064}", bundle="mlflow-artifacts:/gone")
    spec = ModelSpec(
        name="iris", target="local", namespace="asgard", port=20000, deployment=DeploymentConfig(), release=gone
    )
    path = stackfile.path_of(settings.stacks_dir, "iris")
    path.parent.mkdir(parents=True)
    stackfile.write(path, stackfile.StackFile(spec, {}), "phrase")
    lines: list[str] = []
    with pytest.raises(InfrastructureFailed, match="mlflow-artifacts:/gone"):
        model_images.load(settings, tracking, "iris", None, lines.append)
    assert lines == ["Fetching the bundle of version 7 from MLflow"]


def test_a_daemon_that_is_not_there_is_said_to_be(
    image: Image, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    with pytest.raises(InfrastructureFailed, match="DOCKER_HOST") as raised:
        load(image, "iris:v1", kept, ignore)
    assert raised.value.reason == "DockerUnavailable"
