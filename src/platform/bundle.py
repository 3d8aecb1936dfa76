"""The bundle is what is served: MLflow model folder, exact lock of its environment, and the server it came with.

bundle.json            {"schema", "model_name", "model_version", "run_id", "deployment_id", "python",
                       "image": {"base", "platform"} where it is to become one}
model/                 the MLflow model folder
environment/           pyproject.toml and uv.lock
server/asgard_server/  the model server's source
compiled/              what was found out about a compiled form of the model, and the form (serving/loading.py)
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from .. import naming, serving
from . import environments

SCHEMA: Final = 1


def assemble(
    folder: Path,
    *,
    model: Path,
    environment: Path,
    model_name: str,
    version: int,
    run_id: str,
    python: str,
    image: Mapping[str, str] | None = None,
    compile_model: Callable[[Path], None] = lambda _: None,
) -> str:
    """Make `folder` a bundle of the folders `model` (moved) and `environment`; gives its digest, as `sha256:…`.

    `image`: what the image of it is built on, so that the same one can be built again. `compile_model`: adds
    `compiled/`.
    """
    folder.mkdir(parents=True)
    shutil.move(model, folder / "model")
    (folder / "environment").mkdir()
    for name in environments.FILES:
        shutil.copyfile(environment / name, folder / "environment" / name)
    copy_server(folder / "server")
    about = {
        "schema": SCHEMA,
        "model_name": model_name,
        "model_version": str(version),
        "run_id": run_id,
        "deployment_id": naming.deployment_id(model_name, version, run_id),
        "python": python,
        **({"image": dict(image)} if image is not None else {}),
    }
    (folder / "bundle.json").write_text(json.dumps(about, indent=2) + "\n")
    compile_model(folder)
    return digest(folder)


def copy_server(folder: Path) -> None:
    """Put the package `asgard_server` into a folder that is to be on the path of an interpreter."""
    server = folder / "asgard_server"
    server.mkdir(parents=True)
    for source in sorted(Path(serving.__file__).parent.glob("*.py")):
        shutil.copyfile(source, server / source.name)


def digest(folder: Path) -> str:
    """SHA-256 over the sorted relative paths and contents of all files, as `sha256:…`. Byte code does not count."""
    total = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + content.digest())
    return f"sha256:{total.hexdigest()}"
