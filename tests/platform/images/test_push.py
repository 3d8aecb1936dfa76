"""Images into real registries."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform.environments import Lock
from asgard.platform.images import blobs, progress
from asgard.platform.images.auth import Credentials
from asgard.platform.images.base import Base
from asgard.platform.images.build import Image, build
from asgard.platform.images.push import Pushed, push
from asgard.platform.images.registry import Repository

from ...cluster.harness import Prepared
from . import bundles, front, registries, token_service
from .conftest import SECONDS, ignore
from .front import Fault, Front
from .token_service import TokenService

Build = Callable[..., Image]


@pytest.fixture
def model() -> str:
    """The name of a model that no other test has."""
    return f"m{uuid4().hex[:8]}"


@pytest.fixture
def proxy(registry: str) -> Iterator[Front]:
    with front.running(registry) as started:
        yield started


def put(image: Image, host: str, name: str, tag: str, cache: Path, on_log: Callable[[str], None] = ignore) -> Pushed:
    with Repository(host, f"asgard-model/{name}", push=True) as repository:
        return push(image, repository, tag, cache, on_log)


def test_what_is_pushed_is_the_image_whose_digest_was_known_before(
    small_image: Build, registry: str, cache: Path, model: str
) -> None:
    image = small_image(model)
    pushed = put(image, registry, model, "v1", cache)
    assert [title for title, _ in pushed.parts] == ["base", "environment", "server", "model", "config"]
    with Repository(registry, f"asgard-model/{model}") as repository:
        assert repository.digest("v1") == image.digest
        assert repository.manifest("v1")[0] == image.manifest
        for layer in (*image.base.layers, *image.layers):
            assert repository.has_blob(layer.descriptor.digest)


def test_a_second_version_with_an_equal_lock_uploads_its_model_and_what_names_it_alone(
    small_image: Build, proxy: Front, cache: Path, model: str
) -> None:
    put(small_image(model, 1), proxy.host, model, "v1", cache)
    image = small_image(model, 2, "a little more")
    proxy.received = 0
    pushed = put(image, proxy.host, model, "v2", cache)
    assert dict(pushed.parts) == {
        "base": "present", "environment": "present", "server": "present", "model": "uploaded", "config": "uploaded",
    }  # fmt: skip
    assert proxy.received == image.layers[2].descriptor.size + image.config.size + len(image.manifest)


def test_another_models_repository_shares_what_is_equal(
    small_image: Build, registry: str, cache: Path, model: str
) -> None:
    put(small_image(model), registry, model, "v1", cache)
    pushed = put(small_image(f"{model}-b"), registry, f"{model}-b", "v1", cache)
    assert dict(pushed.parts) == {
        "base": "mounted", "environment": "mounted", "server": "mounted", "model": "uploaded", "config": "uploaded",
    }  # fmt: skip


def test_what_cannot_be_mounted_any_more_is_uploaded(
    small_image: Build, prepared: Prepared, cache: Path, tmp_path: Path, model: str
) -> None:
    image = small_image(model)
    with registries.running(tmp_path / "one") as host:
        port = int(host.rpartition(":")[2])
        put(image, host, model, "v1", cache)
    with registries.running(tmp_path / "emptied", port=port) as host:
        other = small_image(f"{model}-b")
        pushed = put(other, host, f"{model}-b", "v1", cache)
        assert set(dict(pushed.parts).values()) == {"uploaded"}


def test_the_base_is_copied_from_its_own_registry(
    small_image: Build, prepared: Prepared, cache: Path, tmp_path: Path, model: str
) -> None:
    image = small_image(model)
    for layer in image.base.layers:
        blobs.path(cache, layer.descriptor.digest).unlink()
    with registries.running(tmp_path / "registry") as host:
        pushed = put(image, host, model, "v1", cache)
        with Repository(host, f"asgard-model/{model}") as repository:
            assert all(repository.has_blob(layer.descriptor.digest) for layer in image.base.layers)
    assert dict(pushed.parts)["base"] == "uploaded"


def test_an_equal_image_under_the_tag_is_success_after_one_question(
    small_image: Build, proxy: Front, cache: Path, model: str
) -> None:
    image = small_image(model)
    put(image, proxy.host, model, "v1", cache)
    proxy.requests.clear()
    assert put(image, proxy.host, model, "v1", cache) == Pushed([])
    assert [request.split()[0] for request in proxy.requests] == ["HEAD"]


def test_another_image_under_the_tag_is_an_error_and_stays(
    small_image: Build, registry: str, cache: Path, model: str
) -> None:
    first = small_image(model, 1)
    put(first, registry, model, "v1", cache)
    with pytest.raises(InfrastructureFailed, match="is another image") as raised:
        put(small_image(model, 1, "changed"), registry, model, "v1", cache)
    assert raised.value.reason == "TagTaken"
    with Repository(registry, f"asgard-model/{model}") as repository:
        assert repository.digest("v1") == first.digest


def test_a_tag_that_may_not_change_and_was_made_meanwhile_is_success(
    small_image: Build, proxy: Front, cache: Path, model: str
) -> None:
    """As ECR refuses even the same image under an immutable tag."""
    image = small_image(model)
    put(image, proxy.host, model, "v1", cache)
    refusal = b'{"errors": [{"code": "TAG_INVALID", "message": "the tag is immutable"}]}'
    proxy.faults = [Fault("^HEAD .*/manifests/", status=404), Fault("^PUT .*/manifests/", status=400, body=refusal)]
    put(image, proxy.host, model, "v1", cache)
    proxy.faults = [Fault("^HEAD .*/manifests/", status=404), Fault("^PUT .*/manifests/", status=400, body=refusal)]
    with pytest.raises(InfrastructureFailed, match="is another image"):
        put(small_image(model, 2), proxy.host, model, "v1", cache)


def test_a_repository_that_does_not_exist_is_named(small_image: Build, proxy: Front, cache: Path, model: str) -> None:
    body = b'{"errors": [{"code": "NAME_UNKNOWN", "message": "The repository does not exist"}]}'
    proxy.faults = [Fault("^POST", status=404, body=body, times=9)]
    with pytest.raises(InfrastructureFailed, match=f"has no asgard-model/{model}") as raised:
        put(small_image(model), proxy.host, model, "v1", cache)
    assert raised.value.reason == "RepositoryUnknown"


def test_two_who_push_the_same_at_once_both_succeed(small_image: Build, registry: str, cache: Path, model: str) -> None:
    image = small_image(model)
    with ThreadPoolExecutor(3) as pool:
        pushed = [pool.submit(put, image, registry, model, "v1", cache) for _ in range(3)]
    assert all(future.result() is not None for future in pushed)
    with Repository(registry, f"asgard-model/{model}") as repository:
        assert repository.digest("v1") == image.digest


def test_a_registry_with_tokens_that_last_a_moment_takes_it(
    small_image: Build, prepared: Prepared, cache: Path, tmp_path: Path, model: str
) -> None:
    made = TokenService(registries.certificate(tmp_path), {"someone": "hidden"}, seconds=2)
    image = small_image(model)
    with (
        token_service.running(made) as service,
        registries.running(tmp_path / "registry", auth=service.configuration()) as host,
    ):
        for name in ("one", "two"):
            with Repository(
                host, f"asgard-model/{name}", push=True, credentials=Credentials("someone", "hidden")
            ) as repository:
                push(image, repository, "v1", cache, ignore)
                time.sleep(2)
                assert repository.digest("v1") == image.digest


def test_what_takes_long_says_so(
    base: Base, small_lock: Lock, proxy: Front, cache: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    lines: list[str] = []
    folder = bundles.plain(tmp_path / "bundle", small_lock, name=model, content="x" * 5_000_000)
    put(build(folder, base, cache, ignore, SECONDS), proxy.host, model, "v1", cache, lines.append)
    assert f"Uploading the model of {model} version 1: 0 of 0 MB" in lines


def test_what_is_quick_says_nothing(small_image: Build, registry: str, cache: Path, model: str) -> None:
    lines: list[str] = []
    image = small_image(model)
    put(image, registry, model, "v1", cache, ignore)
    put(small_image(model, 2), registry, model, "v2", cache, lines.append)
    assert lines == []


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lines: list[str] = []
    count = progress.counter("Uploading", 10_000_000, lines.append)
    for _ in range(10):
        now[0] += 0.5
        count(1_000_000)
    assert lines == ["Uploading: 4 of 10 MB", "Uploading: 8 of 10 MB"]


def test_pushing_a_large_layer_takes_little_memory(registry: str, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(400 * 1024**2)
    digest = f"sha256:{subprocess.check_output(['sha256sum', tmp_path / 'large'], text=True).split()[0]}"
    program = f"""
import resource
from pathlib import Path
from types import SimpleNamespace
from asgard.platform.images.oci import LAYER, Descriptor
from asgard.platform.images.registry import Repository
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blob = Descriptor(LAYER, {digest!r}, {400 * 1024**2})
with Repository({registry!r}, "large/one", push=True) as repository:
    repository.upload(blob, lambda: Path({str(tmp_path / "large")!r}), lambda _: None)
    repository.download(blob, Path({str(tmp_path)!r}), lambda _: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50 * 1024, "KiB"
