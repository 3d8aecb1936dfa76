"""Reads a Feast registry over and over, in a process of its own: `python -m asgard.platform.feast_probe FOLDER`.

`import feast` takes seconds and 200 MB, and a registry in a database or a bucket may hang: neither belongs in the API.
Prints one JSON object a line: `{"error": null}`, or what is wrong.
"""

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import children, imports

if TYPE_CHECKING:
    from feast import FeatureStore

INTERVAL_SECONDS: Final = 2.0

_NEW_REPOSITORY: Final = """\
project: asgard
registry: data/registry.db
provider: local
online_store:
  type: sqlite
  path: data/online_store.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""


def main() -> None:
    """Make the repository if there is none, then read its registry until the parent ends."""
    children.end_with_parent()
    folder = Path(sys.argv[1])
    # What Feast prints must not pass for a line of ours.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    imports.leave_types_unchecked()
    with imports.uncollected(), suppress(Exception):  # whoever needs it below tells why it cannot be
        importlib.import_module("feast")
    store: FeatureStore | None = None
    read_from: float | None = None
    while True:
        error = None
        try:
            # Opened again only for new settings: opening a repository writes a registry where there is none.
            if store is None or read_from != _changed(folder):
                store, read_from = open_store(folder), _changed(folder)
            read(store)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:500]
        print(json.dumps({"error": error}), file=lines, flush=True)
        time.sleep(INTERVAL_SECONDS)


def open_store(folder: Path) -> "FeatureStore":
    """The repository in `folder`; where there is none, a new one with an empty registry."""
    from feast import FeatureStore

    settings = folder / "feature_store.yaml"
    if settings.exists():
        return FeatureStore(repo_path=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    # Named as Feast expects it only when its registry is there: an interrupted start begins anew.
    fresh = folder / "feature_store.yaml.new"
    fresh.write_text(_NEW_REPOSITORY)
    (folder / "data").mkdir(exist_ok=True)
    FeatureStore(repo_path=str(folder), fs_yaml_file=fresh).apply([])
    fresh.replace(settings)
    return FeatureStore(repo_path=str(folder))


def read(store: "FeatureStore") -> None:
    """Fetch the registry itself, not its cache, and look at what is in it. Raises whatever Feast raises."""
    store.refresh_registry()  # type: ignore[no-untyped-call]
    # An emptied file parses as a registry without anything; one that was applied names its project.
    if not store.list_projects() and not store.list_all_feature_views():
        raise ValueError("the registry is empty: run `feast apply`")


def _changed(folder: Path) -> float:
    return (folder / "feature_store.yaml").stat().st_mtime


if __name__ == "__main__":
    main()
