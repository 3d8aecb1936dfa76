"""The embedded MLflow's registered models, read from its database. Its own answers take ten milliseconds and more.

The tables are MLflow's own affair, so a database that does not look as expected is left to MLflow. Its models:
https://github.com/mlflow/mlflow/blob/v3.17.0/mlflow/store/model_registry/dbmodels/models.py
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

_BUSY_SECONDS: Final = 5.0

# Prompts are registered models too, which no search for models gives.
_MODELS: Final = """
    SELECT name, description, creation_time, last_updated_time, COALESCE((
        SELECT MAX(version) FROM model_versions
        WHERE workspace = 'default' AND name = model.name AND current_stage IS NOT 'Deleted_Internal'
    ), 0)
    FROM registered_models AS model
    WHERE workspace = 'default' AND NOT EXISTS (
        SELECT 1 FROM registered_model_tags
        WHERE workspace = 'default' AND name = model.name AND key = 'mlflow.prompt.is_prompt' AND value = 'true'
    )
"""
_TAGS: Final = "SELECT name, key, value FROM registered_model_tags WHERE workspace = 'default'"
_VERSIONS: Final = """
    SELECT version, run_id, status, creation_time, current_stage, description FROM model_versions
    WHERE workspace = 'default' AND current_stage IS NOT 'Deleted_Internal' AND name = ?
    ORDER BY version DESC
"""
_ALIASED: Final = "SELECT version FROM registered_model_aliases WHERE workspace = 'default' AND name = ? AND alias = ?"


@dataclass(frozen=True)
class ModelRow:
    """Times in milliseconds since the epoch. `latest_version` 0: it has none."""

    name: str
    description: str | None
    creation_time: int
    last_updated_time: int
    latest_version: int
    tags: dict[str, str]


@dataclass(frozen=True)
class VersionRow:
    """A version, with the names of MLflow's entity."""

    version: int
    run_id: str | None
    status: str
    creation_timestamp: int
    current_stage: str | None
    description: str | None


def registered_models(database: Path) -> list[ModelRow] | None:
    """All of them, by name; None: the database is not there, or not as expected."""
    try:
        return list(_read(database))
    except sqlite3.Error:
        return None


def registered_model(database: Path, name: str, alias: str) -> tuple[ModelRow, list[VersionRow], int] | None:
    """One of them, its versions, newest first, and the one that has the alias; 0: none has.

    None: it is not there, or the database is not, or not as expected.
    """
    try:
        with _reading(database) as connection:
            model = connection.execute(f"{_MODELS} AND name = ?", [name]).fetchone()
            if model is None:
                return None
            tags = {key: value for _, key, value in connection.execute(f"{_TAGS} AND name = ?", [name])}
            versions = [VersionRow(*row) for row in connection.execute(_VERSIONS, [name])]
            aliased = connection.execute(_ALIASED, [name, alias]).fetchone()
    except sqlite3.Error:
        return None
    return _model(model, tags), versions, 0 if aliased is None else int(aliased[0])


def _read(database: Path) -> Iterator[ModelRow]:
    with _reading(database) as connection:
        tags: dict[str, dict[str, str]] = {}
        for name, key, value in connection.execute(_TAGS):
            tags.setdefault(name, {})[key] = value
        for row in connection.execute(f"{_MODELS} ORDER BY name"):
            yield _model(row, tags.get(row[0], {}))


def _model(row: tuple[str, str | None, int, int, int], tags: dict[str, str]) -> ModelRow:
    name, description, created, updated, latest = row
    return ModelRow(name, description, created, updated, latest, tags)


@contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    """All that is read sees the same state."""
    address = f"file:{quote(str(database.absolute()))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as connection:
        connection.execute("BEGIN")
        yield connection
