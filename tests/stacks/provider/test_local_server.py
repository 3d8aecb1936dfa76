"""Which folder of this machine is a model's, where the state and the data folder say different things."""

import socket
from pathlib import Path

import pytest

from asgard.serving import desired as desired_state
from asgard.serving.desired import Desired
from asgard.stacks.provider import local_server
from asgard.stacks.provider.local_server import LocalRuntime
from asgard.stacks.provider.resource import Resource


def serving(data_dir: Path) -> Path:
    """A model's folder in a data folder, as its parent leaves it."""
    folder = data_dir / "models" / "iris"
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    desired_state.write(folder, Desired("iris", "127.0.0.1", port, 1, 1, 1, "python", "bundle", {}))
    return folder


@pytest.fixture
def resource(tmp_path: Path) -> Resource:
    """Of the data folder `here`."""
    return local_server.resource(LocalRuntime(tmp_path / "here", 1, _never, _ignore, _ignore))


def test_destroying_a_model_in_a_copied_data_folder_leaves_the_originals_alone(
    tmp_path: Path, resource: Resource
) -> None:
    here, original = serving(tmp_path / "here"), serving(tmp_path / "original")
    resource.delete("iris", {"directory": str(original)})
    assert not here.exists()
    assert (original / desired_state.FILE).exists()


def test_a_model_in_a_data_folder_that_was_moved_is_found_where_it_is_now(tmp_path: Path, resource: Resource) -> None:
    here, former = serving(tmp_path / "here"), tmp_path / "former" / "models" / "iris"
    resource.delete("iris", {"directory": str(former)})
    assert not here.exists()


def test_a_model_that_was_made_in_another_data_folder_is_found_there(tmp_path: Path, resource: Resource) -> None:
    elsewhere = serving(tmp_path / "elsewhere")
    resource.delete("iris", {"directory": str(elsewhere)})
    assert not elsewhere.exists()


def _never(*_: object) -> local_server.Materialized:
    raise AssertionError


def _ignore(*_: object) -> None:
    return
