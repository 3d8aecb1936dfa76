"""What the stand-in for the kubernetes provider makes of objects, against what the real API server makes of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.config.kubeconfig import KubeConfig

from ..cluster import Cluster
from .kubernetes import diff, field_managers, quantities, schema
from .kubernetes.api import Api, ApiFailure
from .kubernetes.pruning import pruned
from .kubernetes.types import TYPES, Manifest, Type
from .kubernetes.values import UNKNOWN, Secret, from_struct, has_secret, has_unknown, mark_secrets, plain, to_struct

QUANTITIES = [
    "0", "1", "512", "1000", "1024", "2000", "12345", "100000", "1m", "100m", "500m", "1000m", "1500m", "0.5",
    ".5", "0.1", "1.5", "1k", "1000k", "1.5M", "1e3", "1e-3", "12e6", "5e9",
    "1Ki", "1024Ki", "2048Mi", "1536Mi", "1Gi", "2Gi", "1.5Gi", "0.5Gi", "0.5Ki", "1.5Ki", "0.1Mi", "1Ti", "1Pi", "1Ei",
    "128M", "1G", "0m", "0Gi",
]  # fmt: skip

SAMPLES = Path(__file__).with_name("kubernetes_objects.yaml")


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Api:
    config = KubeConfig.from_file(cluster.kubeconfig).get()
    assert config is not None
    return Api(config)


def known_type(manifest: Manifest) -> Type:
    return next(t for t in TYPES.values() if (t.api_version, t.kind) == (manifest["apiVersion"], manifest["kind"]))


def samples() -> list[Manifest]:
    """Objects in which much is zero, empty or written in another way than the API server writes it."""
    return list(yaml.safe_load_all(SAMPLES.read_text()))


def test_quantities_are_written_as_the_api_server_writes_them(api: Api) -> None:
    most = {f"example.com/{number}": text for number, text in enumerate(QUANTITIES)}
    manifest = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"limits": [{"type": "Container", "max": most}]},
    }
    answer = api.create(Type("v1", "LimitRange"), manifest, "test", preview=True)
    theirs = answer["spec"]["limits"][0]["max"]
    assert {key: quantities.canonical(text) for key, text in most.items()} == theirs


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "Gi", "1e", "--1", "1Kii", "1_000"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantities.canonical(text)


@pytest.mark.parametrize("manifest", samples(), ids=lambda manifest: str(manifest["kind"]))
def test_normal_forms_are_those_of_the_api_server(api: Api, manifest: Manifest) -> None:
    known = known_type(manifest)
    schemas = api.schemas(known.api_version)
    name = schema.definition(schemas, known)
    assert schema.problems(schemas, name, manifest) == {}
    normal = schema.normal(schemas, name, manifest)
    assert normal != manifest
    live = api.create(known, manifest, "test", preview=True)
    assert pruned(live, manifest) == normal
    assert schema.normal(schemas, name, normal) == normal


def test_every_type_that_has_a_normal_form_is_among_the_samples() -> None:
    assert {known_type(manifest).kind for manifest in samples()} == {known.kind for known in TYPES.values()} - {
        "Secret"
    }


def test_the_strict_api_server_refuses_what_the_schema_refuses(api: Api) -> None:
    """So that the two cannot drift apart."""
    known = TYPES["kubernetes:core/v1:Service"]
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"ports": [{"port": 80, "tragetPort": 8080}]},
    }
    schemas = api.schemas("v1")
    assert list(schema.problems(schemas, schema.definition(schemas, known), manifest)) == ["spec.ports[0].tragetPort"]
    with pytest.raises(ApiFailure, match=r'unknown field "spec.ports\[0\].tragetPort"'):
        api.create(known, manifest, "test", preview=True)


def changed(old: Manifest, new: Manifest, *replaced_on: str) -> dict[str, str]:
    kinds = diff.Detail.Kind
    return {path: kinds.Name(detail.kind) for path, detail in diff.detailed(old, new, replaced_on).items()}


@pytest.mark.parametrize(
    ("old", "new", "details"),
    [
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": True}, {"a": 1}, {"a": "UPDATE"}),
        ({"a": 1}, {"a": 2}, {"a": "UPDATE"}),
        ({"a": 1}, {}, {"a": "DELETE"}),
        ({}, {"a": {"b": 1}}, {"a": "ADD"}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, {"a.c": "ADD"}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": "UPDATE"}),
        ({"a": [1, 2]}, {"a": [1, 3]}, {"a[1]": "UPDATE"}),
        ({"a": [1, 2]}, {"a": [1]}, {"a[1]": "DELETE"}),
        ({"a": [1]}, {"a": [1, 2]}, {"a[1]": "ADD"}),
        ({"a": [{"n": 1, "x": 1}]}, {"a": [{"n": 1, "y": 2}]}, {"a[0].x": "DELETE", "a[0].y": "ADD"}),
        ({"a": {"b.c/d": 1}}, {"a": {"b.c/d": 2}}, {'a["b.c/d"]': "UPDATE"}),
        ({"a": 1}, {"a": UNKNOWN}, {"a": "UPDATE"}),
        ({}, {"a": UNKNOWN}, {"a": "ADD"}),
        ({"a": [{"n": 1}]}, {"a": [{"n": UNKNOWN}]}, {"a[0].n": "UPDATE"}),
    ],
)
def test_differences_are_told_to_the_property(old: Manifest, new: Manifest, details: dict[str, str]) -> None:
    assert changed(old, new) == details


@pytest.mark.parametrize(
    ("old", "new", "details"),
    [
        ({"s": {"t": {"x": 1}}}, {"s": {"t": {"x": 2}}}, {"s.t.x": "UPDATE_REPLACE"}),
        ({"s": {"t": {"x": 1}}}, {"s": {}}, {"s.t": "DELETE_REPLACE"}),
        ({"s": {}}, {"s": {"t": {"x": 1}}}, {"s.t": "ADD_REPLACE"}),
        ({}, {"s": {"t": 1}}, {"s": "ADD_REPLACE"}),
        ({}, {"s": {"u": 1}}, {"s": "ADD"}),
        ({"s": {"u": 1}}, {"s": {"u": 2}}, {"s.u": "UPDATE"}),
        ({"s": {"t": [{"x": 1}]}}, {"s": {"t": [{"x": 2}]}}, {"s.t[0].x": "UPDATE_REPLACE"}),
    ],
)
def test_a_change_at_or_below_a_fixed_property_replaces(old: Manifest, new: Manifest, details: dict[str, str]) -> None:
    assert changed(old, new, "s.t") == details


def test_live_objects_are_seen_in_the_shape_of_the_inputs() -> None:
    live = {"a": 1, "b": {"c": 2, "added": 3}, "l": [{"x": 1, "added": 2}, {"x": 2}], "added": 4, "t": "text"}
    shape: Manifest = {"a": 0, "b": {"c": 0, "gone": 0}, "l": [{"x": 0}], "gone": 0, "t": {}}
    assert pruned(live, shape) == {"a": 1, "b": {"c": 2}, "l": [{"x": 1}], "t": "text"}


def test_properties_go_to_the_engine_and_back() -> None:
    properties = {
        "plain": {"text": "x", "whole": 3, "part": 0.5, "yes": True, "none": None, "list": [1, {"a": []}]},
        "secret": Secret({"a": [1]}),
        "list": [Secret("x"), UNKNOWN],
    }
    back = from_struct(to_struct(properties))
    assert back == properties
    assert repr(back["plain"]["whole"]) == "3"
    assert has_secret(back)
    assert has_unknown(back)
    assert plain(back)["secret"] == {"a": [1]}


def test_outputs_are_as_secret_as_the_inputs_they_come_from() -> None:
    given = {"a": {"b": Secret(1), "c": 2}, "l": [1, Secret(2)], "gone": Secret(3)}
    outputs = {"a": {"b": 1, "c": 2, "d": 4}, "l": [1, 2], "more": 5}
    assert mark_secrets(outputs, given) == {"a": {"b": Secret(1), "c": 2, "d": 4}, "l": Secret([1, 2]), "more": 5}
    secret = {"kind": "Secret", "data": {"a": "eA=="}, "type": "Opaque"}
    assert mark_secrets(secret, {}) == {"kind": "Secret", "data": Secret({"a": "eA=="}), "type": "Opaque"}


def entry(manager: str, operation: str, *fields: str, subresource: str = "") -> Manifest:
    return {
        "manager": manager,
        "operation": operation,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}},
        **({"subresource": subresource} if subresource else {}),
    }


@pytest.mark.parametrize(
    ("entries", "left"),
    [
        (
            [entry("pulumi-kubernetes", "Update", "a"), entry("kubectl-edit", "Update", "b")],
            [entry("mine", "Apply", "a", "b")],
        ),
        (
            [entry("mine", "Apply", "a"), entry("other", "Update", "b"), entry("kubectl", "Apply", "c")],
            [entry("other", "Update", "b"), entry("mine", "Apply", "a", "c")],
        ),
        ([entry("mine", "Apply", "a"), entry("kubectl", "Update", "b", subresource="scale")], None),
    ],
)
def test_fields_are_taken_over_from_kubectl_and_from_the_creation(
    entries: list[Manifest], left: list[Manifest] | None
) -> None:
    patch = field_managers.takeover({"metadata": {"managedFields": entries, "resourceVersion": "7"}}, "mine")
    found: Any = next((part["value"] for part in patch if part["path"] == "/metadata/managedFields"), None)
    assert found == left
