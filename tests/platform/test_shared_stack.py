"""When the stack that models share is brought up, and when not."""

from pathlib import Path
from typing import Any

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform import cluster, shared_stack, stackfile
from asgard.settings import Settings


class FakeEngine:
    """Keeps which namespaces it brought up, as the cluster and the state then have them."""

    def __init__(self, settings: Settings, there: set[str]) -> None:
        self._file = settings.stacks_dir / "Pulumi.platform.yaml"
        self.there = there
        self.cluster: str | None = "one"
        self.ups: list[str] = []

    def outputs(self, _: str, **__: Any) -> dict[str, Any]:
        spec = stackfile.read_platform(self._file, "phrase") if self.ups else None
        return {} if spec is None else spec.spec.model_dump(include={"namespace", "cluster"}, exclude_none=True)

    def free_dead_lock(self, _: str) -> None: ...

    def up(self, _: str, *, refresh: bool = False, **__: Any) -> dict[str, Any]:
        assert refresh
        spec = stackfile.read_platform(self._file, "phrase")
        assert spec is not None
        self.ups.append(spec.spec.namespace)
        if spec.spec.creates_namespace:
            self.there.add(spec.spec.namespace)
        return self.outputs("")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "phrase")
    made = Settings(data_dir=tmp_path, target="kubernetes", registry="registry.test/acme", namespace="first")
    made.stacks_dir.mkdir()
    return made


@pytest.fixture
def engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = FakeEngine(settings, set())
    monkeypatch.setattr(cluster, "has_namespace", lambda settings: settings.namespace in made.there)
    monkeypatch.setattr(cluster, "identity", lambda _: made.cluster)
    return made


def ensure(settings: Settings, engine: Any) -> None:
    shared_stack.ensure(settings, engine, lambda _: None)


def test_it_is_brought_up_once_and_again_where_its_namespace_was_deleted(settings: Settings, engine: Any) -> None:
    ensure(settings, engine)
    ensure(settings, engine)
    assert engine.ups == ["first"]
    engine.there.clear()
    ensure(settings, engine)
    assert engine.ups == ["first", "first"]
    assert engine.there == {"first"}


def test_a_namespace_that_an_administrator_made_and_somebody_deleted_is_made_anew(
    settings: Settings, engine: Any
) -> None:
    engine.there.add("first")
    ensure(settings, engine)
    engine.there.clear()
    ensure(settings, engine)
    assert engine.there == {"first"}


def test_it_is_not_moved_to_another_namespace_which_would_take_the_models_with_the_former_one(
    settings: Settings, engine: Any
) -> None:
    other = settings.model_copy(update={"namespace": "second"})
    ensure(settings, engine)
    for bring_up in (shared_stack.up, shared_stack.ensure):
        with pytest.raises(InfrastructureFailed, match=r"the namespace first, .* Set ASGARD_NAMESPACE=first"):
            bring_up(other, engine, lambda _: None)
    assert engine.ups == ["first"]

    engine.there.add("second")
    ensure(other, engine)
    assert engine.ups == ["first"]  # a model goes into a namespace that is there


def test_it_has_another_namespace_after_it_was_destroyed(settings: Settings, engine: Any) -> None:
    shared_stack.up(settings, engine, lambda _: None)
    engine.ups.clear()
    shared_stack.up(settings.model_copy(update={"namespace": "second"}), engine, lambda _: None)
    assert engine.ups == ["second"]


def test_on_another_cluster_nothing_is_brought_up_until_the_stack_is_forgotten(settings: Settings, engine: Any) -> None:
    ensure(settings, engine)
    engine.cluster = "two"
    engine.there.clear()
    for bring_up in (shared_stack.up, shared_stack.ensure):
        with pytest.raises(InfrastructureFailed, match="on another cluster"):
            bring_up(settings, engine, lambda _: None)
    with pytest.raises(InfrastructureFailed, match="on another cluster"):
        shared_stack.require_cluster(settings, engine)
    assert engine.ups == ["first"]

    engine.ups.clear()
    ensure(settings, engine)
    assert engine.ups == ["first"]
    shared_stack.require_cluster(settings, engine)


def test_who_may_not_see_which_cluster_it_is_is_let_in(settings: Settings, engine: Any) -> None:
    ensure(settings, engine)
    engine.cluster = None
    ensure(settings, engine)
    shared_stack.require_cluster(settings, engine)
    assert engine.ups == ["first"]
