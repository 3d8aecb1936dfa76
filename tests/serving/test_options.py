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
        ({"ASGARD_SERVER_METRICS_PORT": "9464"}, Options(metrics_port=9464)),
        ({"ASGARD_SERVER_OPENTELEMETRY": "true"}, Options(opentelemetry=True)),
    ],
)
def test_variables_become_options(variables: dict[str, str], found: Options) -> None:
    assert options.read(variables) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASGARD_SERVER_ACCESS_LOG", "perhaps"),
        ("ASGARD_SERVER_OPENTELEMETRY", "http://collector:4318"),
        ("ASGARD_SERVER_METRICS_PORT", ""),
        ("ASGARD_SERVER_METRICS_PORT", "80"),
        ("ASGARD_SERVER_METRICS_PORT", "8080"),
        ("ASGARD_SERVER_METRICS_PORT", "65536"),
        ("ASGARD_SERVER_METRICS_PORT", "9464/tcp"),
        ("ASGARD_SERVER_CORS_ORIGINS", "example.com"),
        ("ASGARD_SERVER_CORS_ORIGINS", "https://a/path"),
        ("ASGARD_SERVER_CORS_ORIGINS", "https://a\r\nx: y"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        options.read({name: value})


def test_an_exporter_is_needed_only_where_spans_are_asked_for() -> None:
    assert options.requirements({}) == ()
    assert [text[:22] for text in options.requirements({"ASGARD_SERVER_OPENTELEMETRY": "1"})] == [
        "opentelemetry-exporter"
    ]
