"""The Grafana dashboard asks for what there is."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgard.api.metrics import Metrics as ApiMetrics
from asgard.serving.metrics import Metrics, SharedNumbers

DASHBOARD: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "asgard.json"
_GRAFANAS: Final = re.compile(r"\$__\w+|\$\w+|\$\{\w+\}")


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """Names of all samples that a model and the API give, with their labels."""
    info = dict.fromkeys(("name", "version", "run_id", "deployment_id", "flavor"), "a")
    model = Metrics(SharedNumbers(1), 0, ["/predict"], info)
    model.ended(model.began(), "/predict", 422)
    api = ApiMetrics()
    with api.deploy(lambda _: None):
        pass
    found: dict[str, set[str]] = {}
    for text in (model.text(), api.exposed()):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions(dashboard: Any) -> list[str]:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [
        *panels,
        *(variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"),
    ]


def test_every_metric_and_label_that_a_panel_asks_for_exists(dashboard: Any, samples: dict[str, set[str]]) -> None:
    asked = [name for text in expressions(dashboard) for name in re.findall(r"\b(?:asgard|process)_\w+", text)]
    assert len(set(asked)) > 10
    assert set(asked) <= samples.keys()
    labels = {label for found in samples.values() for label in found} | {"instance"}
    for text in expressions(dashboard):
        for names in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", text):
            assert {name.strip() for name in names.split(",")} <= labels
        assert set(re.findall(r"(\w+)=~?\"", _GRAFANAS.sub("1m", text))) <= labels


def test_every_metric_of_ours_is_on_the_dashboard_but_those_that_say_who_answers(
    dashboard: Any, samples: dict[str, set[str]]
) -> None:
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in samples if name.startswith("asgard_")}
    shown = " ".join(expressions(dashboard))
    assert {family for family in families if family not in shown} == {"asgard_info"}


def test_panels_do_not_overlap(dashboard: Any) -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
