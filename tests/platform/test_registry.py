"""What a deploy finds, makes and takes away in MLflow: a real server, and scripts that use MLflow's own API."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from asgard import naming
from asgard.errors import InfrastructureFailed, InvalidRequest, ModelNotFound, TrackingUnavailable
from asgard.platform import artifacts, registry, runs
from asgard.platform.registry import ModelVersion, Trained
from asgard.platform.tracking import Tracking, connect
from asgard.settings import Settings
from asgard.stacks.spec import Release

from .tracking_fixtures import log_model, log_transformer, script

SOURCE = "s3://bucket/model"
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def token() -> str:
    return uuid4().hex


@pytest.fixture
def name() -> str:
    """Of a registered model that no other test has."""
    return f"model-{uuid4().hex[:12]}"


@pytest.fixture(params=["embedded", "external"])
def either(request: pytest.FixtureRequest, tracking: Tracking) -> Tracking:
    """The server with its artifacts on this disk, and as one of which nothing but the address is known."""
    return tracking if request.param == "embedded" else Tracking(tracking.uri)


def found_by(tracking: Tracking, token: str, name: str) -> Trained:
    """What the script of the deploy with this token made, which is something."""
    found = registry.find_trained(tracking, token, name, "unused")
    assert found is not None
    return found


def trained_by(tracking: Tracking, token: str, name: str) -> Trained:
    """What a deploy whose script logs one model in one run has."""
    with script(tracking, token) as mlflow, mlflow.start_run():
        log_model(mlflow)
    return found_by(tracking, token, name)


def deployed(tracking: Tracking, name: str, token: str, folder: Path) -> tuple[int, Release]:
    """A version with a bundle, as a deploy leaves it."""
    trained = trained_by(tracking, token, name)
    version = registry.register(tracking, name, trained, {})
    bundle = folder / token
    bundle.mkdir()
    (bundle / "bundle.json").write_text(token)
    release = Release(
        version=version,
        run_id=trained.run_id,
        digest=DIGEST,
        bundle=artifacts.upload_bundle(tracking, trained.run_id, bundle),
    )
    registry.record_release(tracking, name, release)
    return version, release


def versions(tracking: Tracking, name: str) -> list[ModelVersion]:
    return registry.get_model(tracking, name)[1]


def status_of(tracking: Tracking, run_id: str) -> str:
    return str(connect(tracking.uri).get_run(run_id).info.status)


# Reading


@pytest.mark.parametrize(
    "shape", ["plain", "With Capitals.and_dots", "ünï cödé 模型", "it's", 'say "hi"', "'\"", "a%b_c"]
)
def test_models_are_found_whatever_their_name(tracking: Tracking, name: str, shape: str) -> None:
    named = f"{shape} {name}"
    client = connect(tracking.uri)
    client.create_registered_model(named, tags={"team": "iris"})
    client.create_model_version(named, SOURCE)
    model, [version] = registry.get_model(tracking, named)
    assert (model, [version]) == registry.get_model(Tracking(tracking.uri), named)
    assert (model.name, model.description, model.latest_version, model.tags) == (named, "", 1, {"team": "iris"})
    assert abs(datetime.now(UTC) - model.creation_timestamp) < timedelta(minutes=5)
    assert model.last_updated_timestamp >= model.creation_timestamp
    assert (version.version, version.run_id, version.status, version.description) == (1, "", "READY", "")
    assert model in registry.list_models(tracking)


def test_a_model_without_versions_has_latest_version_zero(tracking: Tracking, name: str) -> None:
    connect(tracking.uri).create_registered_model(name, description="to come")
    model, found = registry.get_model(tracking, name)
    assert (model.latest_version, model.description, found) == (0, "to come", [])
    assert model in registry.list_models(tracking)


def test_versions_come_newest_first_and_the_highest_number_is_the_latest(tracking: Tracking, name: str) -> None:
    client = connect(tracking.uri)
    client.create_registered_model(name)
    for _ in range(11):
        client.create_model_version(name, SOURCE, await_creation_for=0)
    client.delete_model_version(name, "11")
    client.set_model_version_tag(name, "3", "touched", "last")
    model, found = registry.get_model(tracking, name)
    assert [version.version for version in found] == list(range(10, 0, -1))
    assert model.latest_version == 10
    assert [listed.latest_version for listed in registry.list_models(tracking) if listed.name == name] == [10]


def test_all_pages_are_followed(tracking: Tracking, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(tracking.uri)
    client.create_registered_model(name)
    client.create_registered_model(f"{name}-2")
    for _ in range(3):
        client.create_model_version(name, SOURCE, await_creation_for=0)
    whole = registry.list_models(Tracking(tracking.uri))
    monkeypatch.setattr(registry, "_PAGE", 1)
    assert registry.list_models(Tracking(tracking.uri)) == whole
    assert len(versions(tracking, name)) == 3


def test_models_of_a_server_from_before_prompts_are_listed(
    tracking: Tracking, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.entities import PagedList
    from mlflow.store.model_registry.rest_store import RestStore

    search = RestStore.search_registered_models

    def before_prompts(store: RestStore, filter_string: str | None = None, *more: Any, **named: Any) -> Any:
        # No model has the tag, so a comparison with it is true of none.
        nothing = "mlflow.prompt.is_prompt" in (filter_string or "")
        return PagedList([], None) if nothing else search(store, filter_string, *more, **named)  # type: ignore[no-untyped-call]

    connect(tracking.uri).create_registered_model(name)
    monkeypatch.setattr(RestStore, "search_registered_models", before_prompts)
    assert name in [model.name for model in registry.list_models(Tracking(tracking.uri))]


def test_the_embedded_servers_list_is_what_it_would_answer(tracking: Tracking, name: str) -> None:
    client = connect(tracking.uri)
    client.create_registered_model(name, tags={"team": "iris", "empty": ""}, description="to come")
    client.create_registered_model(f"{name}-É", description="")
    client.register_prompt(f"{name}-prompt", "Say {{{{it}}}}")
    for _ in range(3):
        client.create_model_version(name, SOURCE, await_creation_for=0)
    client.delete_model_version(name, "3")
    client.set_registered_model_tag(name, "owner", "'\"\n")
    listed = registry.list_models(tracking)
    assert listed == registry.list_models(Tracking(tracking.uri))
    assert [model.name for model in listed if model.name.startswith(name)] == [name, f"{name}-É"]
    for named in (name, f"{name}-É"):
        assert registry.get_model(tracking, named) == registry.get_model(Tracking(tracking.uri), named)


def test_a_database_of_another_shape_is_left_to_mlflow(tracking: Tracking, tmp_path: Path, name: str) -> None:
    elsewhere = Tracking(tracking.uri, tmp_path / "artifacts")
    assert registry.list_models(elsewhere) == registry.list_models(tracking)
    connect(tracking.uri).create_registered_model(name)
    assert registry.get_model(elsewhere, name) == registry.get_model(tracking, name)
    (tmp_path / "mlflow.db").write_text("no database")
    assert registry.list_models(elsewhere) == registry.list_models(tracking)


@pytest.mark.parametrize("unknown", ["nobody", "with/slash", "with:colon", " ", "it's"])
def test_an_unknown_model_is_not_found(tracking: Tracking, unknown: str) -> None:
    with pytest.raises(ModelNotFound):
        registry.get_model(tracking, unknown)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_stage_is_mlflows_or_production_for_what_serves(tracking: Tracking, name: str) -> None:
    client = connect(tracking.uri)
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, SOURCE, await_creation_for=0)
    client.transition_model_version_stage(name, "1", "Archived")
    registry.mark_serving(tracking, name, 2, "http://127.0.0.1:1", f"{name}-v2")
    assert [version.current_stage for version in versions(tracking, name)] == ["None", "Production", "Archived"]
    registry.mark_serving(tracking, name, 1, "http://127.0.0.1:1", f"{name}-v1")
    assert [version.current_stage for version in versions(tracking, name)] == ["None", "None", "Archived"]
    assert registry.get_model(tracking, name) == registry.get_model(Tracking(tracking.uri), name)


def test_a_server_that_is_away_is_said_to_be_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingUnavailable) as caught:
        registry.list_models(Tracking("http://user:secret@127.0.0.1:9"))
    assert "127.0.0.1:9" in caught.value.message
    assert "secret" not in caught.value.message


# What a script made


def test_the_model_of_a_script_is_found_by_its_token_in_whatever_experiment(
    tracking: Tracking, token: str, name: str
) -> None:
    with script(tracking, uuid4().hex) as mlflow, mlflow.start_run():
        log_model(mlflow)
    with script(tracking, token) as mlflow:
        experiment = mlflow.create_experiment(f"of {name}")
        with mlflow.start_run(experiment_id=experiment) as run:
            logged = log_model(mlflow)
    found = registry.find_trained(tracking, token, name, "unused")
    assert found == Trained(run.info.run_id, f"models:/{logged.model_id}", logged.model_id, None)


def test_of_several_runs_the_last_finished_one_with_a_model_counts(tracking: Tracking, token: str, name: str) -> None:
    with script(tracking, token) as mlflow:
        with mlflow.start_run():
            log_model(mlflow)
        with mlflow.start_run() as chosen:
            log_model(mlflow)
            last = log_model(mlflow)
        with mlflow.start_run():
            mlflow.log_metric("only", 1)
        mlflow.start_run()
        log_model(mlflow)
        mlflow.end_run("FAILED")
    found = found_by(tracking, token, name)
    assert (found.run_id, found.model_id) == (chosen.info.run_id, last.model_id)


def test_a_model_in_a_run_that_the_client_made_is_found_and_one_in_a_deleted_run_is_not(
    tracking: Tracking, token: str, name: str
) -> None:
    client = connect(tracking.uri)
    with script(tracking, token) as mlflow:
        with mlflow.start_run():
            log_model(mlflow)
        made, deleted = (client.create_run("0") for _ in range(2))
        with mlflow.start_run(made.info.run_id):
            chosen = log_model(mlflow)
        with mlflow.start_run(deleted.info.run_id):
            log_model(mlflow)
        mlflow.delete_run(deleted.info.run_id)
    found = found_by(tracking, token, name)
    assert (found.run_id, found.model_id) == (made.info.run_id, chosen.model_id)


def test_the_runs_of_others_survive_a_script_that_failed_in_one_of_them(
    tracking: Tracking, token: str, name: str
) -> None:
    earlier = trained_by(tracking, uuid4().hex, name)
    registry.register(tracking, name, earlier, {})
    with script(tracking, token) as mlflow, mlflow.start_run(earlier.run_id):
        log_model(mlflow)
    registry.discard(tracking, token)
    runs.mark_failed(tracking, runs.traces(tracking, token))
    assert [version.version for version in versions(tracking, name)] == [1]
    assert status_of(tracking, earlier.run_id) == "FINISHED"


def test_what_cannot_predict_is_passed_over(either: Tracking, token: str, name: str) -> None:
    with script(either, token) as mlflow:
        with mlflow.start_run():
            chosen = log_model(mlflow)
            log_transformer(mlflow)
        with mlflow.start_run():
            log_transformer(mlflow)
        with mlflow.start_run() as run:
            mlflow.tracking.MlflowClient().create_logged_model("0", "never finished", run.info.run_id)
    assert found_by(either, token, name).model_id == chosen.model_id


def test_a_script_that_logs_only_what_cannot_predict_has_no_model(tracking: Tracking, token: str, name: str) -> None:
    with script(tracking, token) as mlflow, mlflow.start_run():
        log_transformer(mlflow)
    assert registry.find_trained(tracking, token, name, "unused") is None


def test_a_model_logged_in_a_run_that_failed_is_none(tracking: Tracking, token: str, name: str) -> None:
    with script(tracking, token) as mlflow:
        mlflow.start_run()
        log_model(mlflow)
        mlflow.end_run("FAILED")
    assert registry.find_trained(tracking, token, name, "unused") is None


def test_a_script_that_left_nothing_has_no_model(tracking: Tracking, token: str, name: str) -> None:
    assert registry.find_trained(tracking, token, name, "unused") is None


def test_a_model_logged_outside_any_run_gets_one_in_the_posted_experiment(
    tracking: Tracking, token: str, name: str, tmp_path: Path
) -> None:
    client = connect(tracking.uri)
    model = client.create_logged_model("0", "loose", tags={naming.TAG_DEPLOYMENT: token})
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {}}")
    client.log_model_artifacts(model.model_id, str(tmp_path))
    client.finalize_logged_model(model.model_id, "READY")
    found = registry.find_trained(tracking, token, name, f"experiment of {name}")
    assert found is not None
    run = client.get_run(found.run_id)
    assert (found.model_id, run.info.status) == (model.model_id, "FINISHED")
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert client.get_experiment(run.info.experiment_id).name == f"experiment of {name}"
    assert registry.register(tracking, name, found, {}) == 1


def test_what_a_client_of_mlflow_2_logged_is_found_by_its_runs_history(
    tracking: Tracking, token: str, name: str, tmp_path: Path
) -> None:
    client = connect(tracking.uri)
    run = client.create_run("0", tags={naming.TAG_DEPLOYMENT: token})
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {}}")
    client.log_artifacts(run.info.run_id, str(tmp_path), "best/model")
    client.set_tag(run.info.run_id, "mlflow.log-model.history", '[{"artifact_path": "best/model"}]')
    client.set_terminated(run.info.run_id)
    found = registry.find_trained(tracking, token, name, "unused")
    assert found == Trained(run.info.run_id, f"{run.info.artifact_uri}/best/model", None, None)
    assert registry.register(tracking, name, found, {}) == 1
    assert versions(tracking, name)[0].run_id == run.info.run_id
    artifacts.download(tracking, found.source, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "MLmodel").exists()


# Registering


def test_a_version_is_registered_with_its_run_and_tags(tracking: Tracking, token: str, name: str) -> None:
    trained = trained_by(tracking, token, name)
    assert registry.register(tracking, name, trained, {"team": "iris"}) == 1
    assert registry.register(tracking, name, trained, {}) == 2
    assert [version.run_id for version in versions(tracking, name)] == [trained.run_id] * 2
    assert connect(tracking.uri).get_model_version(name, "1").tags["team"] == "iris"


def test_a_version_that_the_script_registered_under_the_name_is_used(tracking: Tracking, token: str, name: str) -> None:
    with script(tracking, token) as mlflow:
        with mlflow.start_run() as run:
            logged = log_model(mlflow, registered_model_name=name)
        with mlflow.start_run():
            log_model(mlflow, registered_model_name=f"{name}-other")
    found = registry.find_trained(tracking, token, name, "unused")
    assert found == Trained(run.info.run_id, f"models:/{logged.model_id}", logged.model_id, 1)
    assert registry.register(tracking, name, found, {"team": "iris"}) == 1
    assert len(versions(tracking, name)) == 1
    assert connect(tracking.uri).get_model_version(name, "1").tags["team"] == "iris"


def test_of_several_models_the_one_that_the_script_registered_last_under_another_name_counts(
    either: Tracking, token: str, name: str
) -> None:
    with script(either, token) as mlflow:
        with mlflow.start_run() as chosen:
            best = log_model(mlflow)
        for _ in range(2):
            with mlflow.start_run():
                log_model(mlflow, registered_model_name=f"{name}-each")
        with mlflow.start_run():
            log_model(mlflow)
            log_transformer(mlflow, registered_model_name=f"{name}-scaler")
        mlflow.register_model(f"runs:/{chosen.info.run_id}/{best.name}", f"{name}-best")
    found = found_by(either, token, name)
    assert found == Trained(chosen.info.run_id, f"models:/{best.model_id}", best.model_id, None)


def test_what_the_script_registered_before_its_last_run_is_not_taken_for_its_best(
    either: Tracking, token: str, name: str
) -> None:
    with script(either, token) as mlflow:
        with mlflow.start_run():
            log_model(mlflow, registered_model_name=f"{name}-baseline")
        with mlflow.start_run() as last:
            model = log_model(mlflow)
    found = found_by(either, token, name)
    assert found == Trained(last.info.run_id, f"models:/{model.model_id}", model.model_id, None)


def test_a_registration_that_fails_leaves_no_empty_model(tracking: Tracking, name: str) -> None:
    with pytest.raises(TrackingUnavailable):
        registry.register(tracking, name, Trained("no-such-run", "mlflow-artifacts:/0/x/model", None, None), {})
    with pytest.raises(ModelNotFound):
        registry.get_model(tracking, name)


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow with users: who asks may do anything with the models that this one creates, and read others."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.model_registry.rest_store import RestStore

    own = set()
    create_model, create_version = RestStore.create_registered_model, RestStore.create_model_version

    def create_own(store: RestStore, name: str, *more: Any, **named: Any) -> Any:
        made = create_model(store, name, *more, **named)  # type: ignore[no-untyped-call]
        own.add(name)
        return made

    def create_where_own(store: RestStore, name: str, *more: Any, **named: Any) -> Any:
        if name not in own:
            raise MlflowException("Response body: 'Permission denied'", PERMISSION_DENIED)
        return create_version(store, name, *more, **named)

    monkeypatch.setattr(RestStore, "create_registered_model", create_own)
    monkeypatch.setattr(RestStore, "create_model_version", create_where_own)


@pytest.mark.usefixtures("users")
def test_a_model_is_made_where_mlflow_denies_what_it_does_not_hold(tracking: Tracking, token: str, name: str) -> None:
    assert registry.register(tracking, name, trained_by(tracking, token, name), {}) == 1


def test_a_version_of_somebody_elses_model_is_denied_in_mlflows_words(
    tracking: Tracking, token: str, name: str, request: pytest.FixtureRequest
) -> None:
    trained = trained_by(tracking, token, name)
    connect(tracking.uri).create_registered_model(name)
    request.getfixturevalue("users")
    with pytest.raises(TrackingUnavailable, match="Permission denied"):
        registry.register(tracking, name, trained, {})
    assert versions(tracking, name) == []


def test_what_serves_is_marked_moved_and_unmarked(tracking: Tracking, name: str) -> None:
    client = connect(tracking.uri)
    client.create_registered_model(name, tags={"team": "iris"})
    for _ in range(2):
        client.create_model_version(name, SOURCE, await_creation_for=0)
    registry.mark_serving(tracking, name, 1, "http://127.0.0.1:1", "first")
    registry.mark_serving(tracking, name, 2, "http://127.0.0.1:2", "second")
    assert registry.get_model(tracking, name)[0].tags == {
        "team": "iris",
        "asgard.inference_url": "http://127.0.0.1:2",
        "asgard.deployment_id": "second",
    }
    assert client.get_model_version_by_alias(name, "asgard").version == "2"
    registry.tag_model(tracking, name, {"team": "roses", "stage": "trial"})
    assert registry.get_model(tracking, name)[0].tags.items() >= {"team": "roses", "stage": "trial"}.items()
    registry.tag_model(tracking, name, {"team": "iris"})
    registry.unmark_serving(tracking, name)
    registry.unmark_serving(tracking, name)
    registry.unmark_serving(tracking, f"{name}-unknown")
    assert registry.get_model(tracking, name)[0].tags == {"team": "iris", "stage": "trial"}
    assert not client.get_registered_model(name).aliases


# Releases


def test_a_rollback_goes_to_the_newest_earlier_version_that_did_not_fail(
    tracking: Tracking, name: str, tmp_path: Path
) -> None:
    releases = [deployed(tracking, name, uuid4().hex, tmp_path)[1] for _ in range(4)]
    registry.mark_failed(tracking, name, 3)
    connect(tracking.uri).create_model_version(name, SOURCE)
    assert registry.find_release(tracking, name, None, before=6) == releases[3]
    assert registry.find_release(tracking, name, None, before=4) == releases[1]
    assert registry.find_release(tracking, name, 1, before=4) == releases[0]
    assert registry.find_release(tracking, name, 3, before=4) == releases[2]
    with pytest.raises(InvalidRequest, match="deployed ones: 1, 2, 3, 4"):
        registry.find_release(tracking, name, 5, before=4)
    with pytest.raises(InvalidRequest, match="no version before 1"):
        registry.find_release(tracking, name, None, before=1)


# Artifacts


def test_a_bundle_goes_up_replaces_an_earlier_one_and_comes_down_the_same(
    either: Tracking, token: str, name: str, tmp_path: Path
) -> None:
    trained = trained_by(either, token, name)
    bundle = tmp_path / "bundle"
    (bundle / "model" / "deep").mkdir(parents=True)
    (bundle / "model" / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 100)
    (bundle / "bundle.json").write_text("{}")
    for content in ("{}", '{"schema": 1}'):
        (bundle / "bundle.json").write_text(content)
        uri = artifacts.upload_bundle(either, trained.run_id, bundle)
    assert uri.startswith("mlflow-artifacts:/")
    artifacts.download(either, uri, tmp_path / "fetched" / "here")
    assert tree(tmp_path / "fetched" / "here") == tree(bundle)
    artifacts.delete(either, uri)
    artifacts.delete(either, uri)
    with pytest.raises(InfrastructureFailed, match=uri) as gone:
        artifacts.download(either, uri, tmp_path / "gone")
    assert gone.value.reason == "ArtifactMissing"
    assert not (tmp_path / "gone").exists()


def test_a_logged_model_comes_down(either: Tracking, token: str, name: str, tmp_path: Path) -> None:
    artifacts.download(either, trained_by(either, token, name).source, tmp_path / "model")
    assert (tmp_path / "model" / "MLmodel").exists()


def test_a_bundle_of_the_embedded_server_comes_down_with_no_server(
    tracking: Tracking, token: str, name: str, tmp_path: Path
) -> None:
    _, release = deployed(tracking, name, token, tmp_path)
    artifacts.download(Tracking("http://127.0.0.1:9", tracking.artifacts_dir), release.bundle, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "bundle.json").read_text() == token


def test_an_experiment_whose_artifacts_mlflow_does_not_proxy_is_refused_and_left_alone(
    either: Tracking, token: str, name: str, tmp_path: Path
) -> None:
    precious = tmp_path / "chosen by the script"
    with script(either, token) as mlflow:
        experiment = mlflow.create_experiment(f"of {name} {token}", artifact_location=precious.as_uri())
        with mlflow.start_run(experiment_id=experiment) as run:
            log_model(mlflow, registered_model_name=name)
    with pytest.raises(InvalidRequest, match="does not proxy") as caught:
        registry.find_trained(either, token, name, "unused")
    assert caught.value.field == "experiment_name"
    before = tree(precious)
    runs.log(either, run.info.run_id, {"train.py": "pass"}, {"team": "iris"})
    with pytest.raises(InvalidRequest, match="does not proxy"):
        artifacts.upload_bundle(either, run.info.run_id, tmp_path)
    with pytest.raises(InvalidRequest, match="does not proxy"):
        artifacts.download(either, Path("/etc").as_uri(), tmp_path / "fetched")
    assert registry.purge(either, name)
    assert tree(precious) == before != {}


@pytest.mark.parametrize("uri", ["mlflow-artifacts:/../../etc", "mlflow-artifacts:/", "mlflow-artifacts:/1/../.."])
def test_a_uri_cannot_leave_the_store(tracking: Tracking, uri: str) -> None:
    with pytest.raises(ValueError, match="no folder in the artifact store"):
        artifacts.delete(tracking, uri)


def test_the_script_its_log_and_tags_join_the_run(tracking: Tracking, token: str, name: str, tmp_path: Path) -> None:
    trained = trained_by(tracking, token, name)
    (tmp_path / "uv.lock").write_text("version = 1")
    files: dict[str, str | Path] = {"asgard/train.py": "print('ü')", "asgard/uv.lock": tmp_path / "uv.lock"}
    runs.log(tracking, trained.run_id, files, {"team": "iris", naming.TAG_DEPLOYMENT_ID: f"{name}-v1"})
    client = connect(tracking.uri)
    assert {found.path for found in client.list_artifacts(trained.run_id, "asgard")} == set(files)
    artifacts.download(tracking, f"{client.get_run(trained.run_id).info.artifact_uri}/asgard", tmp_path / "fetched")
    assert (tmp_path / "fetched" / "train.py").read_text() == "print('ü')"
    assert client.get_run(trained.run_id).data.tags["team"] == "iris"


# Failure


def test_discarding_deletes_the_versions_a_script_registered_and_the_models_it_made(
    tracking: Tracking, token: str, name: str
) -> None:
    client = connect(tracking.uri)
    client.create_registered_model(f"{name}-empty-before")
    client.create_registered_model(f"{name}-shared")
    client.create_model_version(f"{name}-shared", SOURCE)
    time.sleep(0.01)  # The clock of MLflow ticks in milliseconds.
    with script(tracking, token) as mlflow, mlflow.start_run():
        log_model(mlflow, registered_model_name=f"{name}-made")
        log_model(mlflow, registered_model_name=f"{name}-shared")
        log_model(mlflow, registered_model_name=f"{name}-empty-before")
    registry.discard(tracking, token)
    registry.discard(tracking, token)
    with pytest.raises(ModelNotFound):
        registry.get_model(tracking, f"{name}-made")
    assert [version.version for version in versions(tracking, f"{name}-shared")] == [1]
    assert versions(tracking, f"{name}-empty-before") == []


def test_the_runs_of_a_failed_script_are_failed_where_they_failed(tracking: Tracking, token: str) -> None:
    with script(tracking, token) as mlflow:
        with mlflow.start_run() as good:
            mlflow.log_param("a", 1)
        with mlflow.start_run() as last:
            mlflow.log_param("a", 2)
    client = connect(tracking.uri)
    ended = client.get_run(last.info.run_id).info.end_time
    left_open = client.create_run("0", tags={naming.TAG_DEPLOYMENT: token}).info.run_id
    assert registry.discard(tracking, token) == [left_open]
    client.set_terminated(left_open)
    client.delete_run(left_open)
    assert registry.discard(tracking, token) == [last.info.run_id]
    assert status_of(tracking, good.info.run_id) == "FINISHED"
    failed = client.get_run(last.info.run_id).info
    assert (failed.status, failed.end_time) == ("FAILED", ended)


def test_an_experiment_that_several_ask_for_at_once_is_made_once(tracking: Tracking, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: runs.ensure_experiment(tracking, f"shared by {name}"), range(8)))
    assert len({experiment.experiment_id for experiment in found}) == 1


def test_a_server_of_mlflow_2_knows_runs_alone(tracking: Tracking, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND

    def search(*_: Any, **__: Any) -> None:
        raise MlflowException("/api/2.0/mlflow/logged-models/search failed with error code 404", ENDPOINT_NOT_FOUND)

    with script(tracking, token) as mlflow, mlflow.start_run() as run:
        log_model(mlflow)
    monkeypatch.setattr(MlflowClient, "search_logged_models", search)
    found = runs.traces(tracking, token)
    assert [found.info.run_id for found in found.runs] == [run.info.run_id]
    assert found.models == ()


def test_a_script_that_reached_no_run_gets_one_for_its_log(tracking: Tracking, token: str, name: str) -> None:
    nothing = runs.traces(tracking, token)
    run_id = runs.ensure_run(tracking, nothing, token, f"experiment of {name}", "a run")
    runs.end_run(tracking, run_id, failed=True)
    found = runs.traces(tracking, token)
    assert [run.info.run_id for run in found.runs] == [run_id]
    assert runs.ensure_run(tracking, found, token, f"experiment of {name}", "a run") == run_id
    assert (status_of(tracking, run_id), found.runs[0].info.run_name) == ("FAILED", "a run")


def test_a_version_whose_infrastructure_failed_is_tagged(tracking: Tracking, token: str, name: str) -> None:
    version = registry.register(tracking, name, trained_by(tracking, token, name), {})
    registry.mark_failed(tracking, name, version)
    registry.mark_failed(tracking, name, version + 1)
    registry.mark_failed(tracking, f"{name}-unknown", 1)
    assert connect(tracking.uri).get_model_version(name, str(version)).tags["asgard.status"] == "failed"


# Purging


def test_purging_leaves_nothing_on_disk_but_what_others_need(
    either: Tracking, mlflow_settings: Settings, name: str, tmp_path: Path
) -> None:
    first, second, shared = uuid4().hex, uuid4().hex, uuid4().hex
    deployed(either, name, first, tmp_path)
    with script(either, second) as mlflow:
        with mlflow.start_run():
            log_model(mlflow)  # of the same deploy, not registered
        with mlflow.start_run() as run:
            log_model(mlflow)
    registry.register(either, name, found_by(either, second, name), {})
    theirs = trained_by(either, shared, name)
    registry.register(either, name, theirs, {})
    registry.register(either, f"{name}-other", theirs, {})

    stored = mlflow_settings.data_dir / "mlflow" / "artifacts"
    traced = {token: runs.traces(either, token) for token in (first, second, shared)}
    purged = places(stored, traced[first]) + places(stored, traced[second])
    kept = places(stored, traced[shared])
    assert len(purged) == 4  # one model and one bundle, two models
    assert kept
    assert registry.purge(either, name)
    assert not any(any(place.rglob("*")) for place in purged)
    assert all(any(place.rglob("*")) for place in kept)
    with pytest.raises(ModelNotFound):
        registry.get_model(either, name)
    assert len(versions(either, f"{name}-other")) == 1
    assert status_of(either, run.info.run_id) == "FINISHED"
    assert not registry.purge(either, name)


def test_purging_a_model_that_somebody_registered_by_hand_leaves_the_rest_of_their_run(
    either: Tracking, mlflow_settings: Settings, name: str
) -> None:
    import mlflow

    mlflow.set_tracking_uri(either.uri)
    with mlflow.start_run() as run:
        mlflow.log_text("dear", "notes.txt")
        mlflow.log_text("a model of MLflow 2", "model/MLmodel")
    client = connect(either.uri)
    client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/model"
    client.create_model_version(name, source, run.info.run_id, await_creation_for=0)
    assert registry.purge(either, name)
    assert [kept.path for kept in client.list_artifacts(run.info.run_id)] == ["notes.txt"]


def places(stored: Path, found: runs.Traces) -> list[Path]:
    """Folders of the store that hold what was logged there."""
    uris = [run.info.artifact_uri for run in found.runs] + [model.artifact_location for model in found.models]
    folders = [stored / str(uri).removeprefix("mlflow-artifacts:/") for uri in uris]
    return [folder for folder in folders if folder.exists()]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Speed


def test_each_step_of_a_deploy_takes_few_requests(
    tracking: Tracking, token: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = trained_by(tracking, token, name)
    assert requests_of(monkeypatch, lambda: registry.list_models(tracking)) == 0
    assert requests_of(monkeypatch, lambda: registry.list_models(Tracking(tracking.uri))) == 1
    assert requests_of(monkeypatch, lambda: registry.find_trained(tracking, token, name, "unused")) == 4
    assert requests_of(monkeypatch, lambda: registry.register(tracking, name, trained, {"a": "b"})) == 3
    assert requests_of(monkeypatch, lambda: registry.register(tracking, name, trained, {"a": "b"})) == 1
    assert requests_of(monkeypatch, lambda: registry.get_model(tracking, name)) == 0
    assert requests_of(monkeypatch, lambda: registry.get_model(Tracking(tracking.uri), name)) == 2
    # MLflow's client looks at the model before it sets a tag or an alias.
    assert requests_of(monkeypatch, lambda: registry.mark_serving(tracking, name, 1, "http://x", "x")) == 6


def requests_of(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> int:
    """How many requests go over the wire."""
    import requests

    sent, send = SimpleNamespace(count=0), requests.Session.send

    def counted(*args: Any, **kwargs: Any) -> Any:
        sent.count += 1
        return send(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(requests.Session, "send", counted)
        act()
    return int(sent.count)
