"""The embedded MLflow's registered models, read from its database. Its own answer takes most of a millisecond a model.

The tables are MLflow's own affair, so a database that does not look as expected is left to MLflow. Its models:
https://github.com/mlflow/mlflow/blob/v3.17.0/mlflow/store/model_registry/dbmodels/models.py
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
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
    ORDER BY name
"""
_TAGS: Final = "SELECT name, key, value FROM registered_model_tags WHERE workspace = 'default'"


@dataclass(frozen=True)
class ModelRow:
    """Times in milliseconds since the epoch. `latest_version` 0: it has none."""

    name: str
    description: str | None
    creation_time: int
    last_updated_time: int
    latest_version: int
    tags: dict[str, str]


def registered_models(database: Path) -> list[ModelRow] | None:
    """All of them, by name; None: the database is not there, or not as expected."""
    try:
        return list(_read(database))
    except sqlite3.Error:
        return None


def _read(database: Path) -> Iterator[ModelRow]:
    address = f"file:{quote(str(database.absolute()))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as connection:
        connection.execute("BEGIN")  # both selects see the same state
        tags: dict[str, dict[str, str]] = {}
        for name, key, value in connection.execute(_TAGS):
            tags.setdefault(name, {})[key] = value
        for name, description, created, updated, latest in connection.execute(_MODELS):
            yield ModelRow(name, description, created, updated, latest, tags.get(name, {}))
