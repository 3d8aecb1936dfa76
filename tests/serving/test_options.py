"""What a deploy's variables ask of the model's server."""

import pytest

from asgard.serving import options
from asgard.serving.options import Options


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, Options()),
        ({"ASGARD_SERVER_ACCESS_LOG": "True", "OTHER": "1"}, Options(access_log=True)),
        ({"ASGARD_SERVER_ACCESS_LOG": "0"}, Options()),
        (
            {"ASGARD_SERVER_CORS_ORIGINS": "https://a.example.com, http://localhost:3000"},
            Options(cors_origins=frozenset({"https://a.example.com", "http://localhost:3000"})),
        ),
        ({"ASGARD_SERVER_CORS_ORIGINS": "*"}, Options(cors_origins=frozenset({"*"}))),
    ],
)
def test_variables_become_options(variables: dict[str, str], found: Options) -> None:
    assert options.read(variables) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASGARD_SERVER_ACCESS_LOG", "perhaps"),
        ("ASGARD_SERVER_CORS_ORIGINS", "example.com"),
        ("ASGARD_SERVER_CORS_ORIGINS", "https://a/path"),
        ("ASGARD_SERVER_CORS_ORIGINS", "https://a\r\nx: y"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        options.read({name: value})
