import re
from pathlib import Path

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from asgard.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()
ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", re.MULTILINE)

IN_A_FOLDER = {
    "data_dir": "the user's data folder",
    "cache_dir": "the user's cache folder",
    "stacks_dir": "`stacks` in the data folder",
    "backend_url": "`backend` in the data folder",
    "feast_repo_path": "`feast` in the data folder",
}


def row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    alias = field.validation_alias
    variable = alias.choices[0] if isinstance(alias, AliasChoices) else alias or f"ASGARD_{name.upper()}"
    default = IN_A_FOLDER[name] if field.default is PydanticUndefined else f"`{field.default}`"
    meaning = (field.description or "").replace("\n", " ").removesuffix(".").replace(" Default: in the data folder", "")
    return str(variable), "-" if field.default is None else default, meaning.removesuffix(".")


def test_the_settings_table_says_what_the_code_does() -> None:
    assert ROW.findall(README) == [row(name, field) for name, field in Settings.model_fields.items()]


def test_what_the_readme_points_to_is_there() -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (Path(__file__).parents[1] / link).exists()] == []
