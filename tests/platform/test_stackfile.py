import difflib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from asgard.platform import stackfile
from asgard.platform.secrets import WrongPassphrase
from asgard.platform.stackfile import StackFile, StackFileInvalid
from asgard.stacks.spec import DeploymentConfig, ModelSpec, Release

RELEASE = Release(version=1, run_id="1234e56", digest="sha256:" + "0" * 64, bundle="mlflow-artifacts:/1/x")
SPEC = ModelSpec(
    name="iris", target="local", namespace="asgard", deployment=DeploymentConfig(), port=20001, release=RELEASE
)
CONTENT = StackFile(SPEC, {"API_KEY": "s3cret", "MODE": "fast"})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file's text, made once: a key is derived from the passphrase in a second."""
    path = stackfile.path_of(tmp_path_factory.mktemp("written"), "iris")
    stackfile.write(path, CONTENT, "phrase")
    return path.read_text()


@pytest.fixture
def path(tmp_path: Path, written: str) -> Path:
    path = stackfile.path_of(tmp_path, "iris")
    path.write_text(written)
    return path


def changed_lines(old: str, new: str) -> list[str]:
    return [line.strip() for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line.startswith("+ ")]


def test_what_was_written_is_read_back(path: Path) -> None:
    assert stackfile.read(path, "phrase") == CONTENT


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert stackfile.read(tmp_path / "Pulumi.none.yaml", "phrase") is None


def test_environment_values_are_not_in_the_file_in_the_clear(path: Path) -> None:
    assert "s3cret" not in path.read_text()


def test_every_string_is_quoted_so_that_a_run_id_like_a_float_stays_text(path: Path) -> None:
    assert 'run_id: "1234e56"' in path.read_text()


def test_a_new_release_changes_the_release_lines_and_nothing_else(path: Path) -> None:
    before = path.read_text()
    release = RELEASE.model_copy(update={"version": 2, "run_id": "abc"})
    stackfile.write(path, StackFile(SPEC.model_copy(update={"release": release}), CONTENT.environment), "phrase")
    assert changed_lines(before, path.read_text()) == ["+       version: 2", '+       run_id: "abc"']


def test_an_environment_value_that_changes_keeps_the_ciphertext_of_the_others(path: Path) -> None:
    before = YAML().load(path.read_text())["config"]["asgard-models:environment"]
    stackfile.write(path, StackFile(SPEC, {"API_KEY": "s3cret", "MODE": "slow"}), "phrase")
    after = YAML().load(path.read_text())["config"]["asgard-models:environment"]
    assert after["API_KEY"] == before["API_KEY"]
    assert after["MODE"] != before["MODE"]
    read = stackfile.read(path, "phrase")
    assert read is not None
    assert read.environment == {"API_KEY": "s3cret", "MODE": "slow"}


def test_comments_and_values_written_by_hand_stay(path: Path) -> None:
    edited = path.read_text().replace("replicas: 1", "replicas: 3  # for the sale").replace('"1000m"', "2")
    path.write_text(edited)
    read = stackfile.read(path, "phrase")
    assert read is not None
    assert read.spec.deployment == DeploymentConfig(replicas=3, cpu_limit="2")
    release = RELEASE.model_copy(update={"version": 2})
    stackfile.write(path, StackFile(read.spec.model_copy(update={"release": release}), read.environment), "phrase")
    assert path.read_text() == edited.replace("version: 1", "version: 2")


def test_a_wrong_passphrase_is_named_as_such(path: Path) -> None:
    with pytest.raises(WrongPassphrase, match="PULUMI_CONFIG_PASSPHRASE"):
        stackfile.read(path, "other")


def test_a_wrong_passphrase_is_found_out_where_nothing_is_encrypted(path: Path) -> None:
    stackfile.write(path, StackFile(SPEC, {}), "phrase")
    stackfile.check(path, "phrase")
    with pytest.raises(WrongPassphrase):
        stackfile.check(path, "other")
    path.unlink()
    stackfile.check(path, "other")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("replicas: 1", "replicas: many", "deployment.replicas"),
        ('"2Gi"', '"2GB"', "deployment.memory_limit: .2GB. is not a Kubernetes quantity"),
        ("config:", "config: {", "not valid YAML"),
    ],
)
def test_an_edit_gone_wrong_is_named_with_its_file(path: Path, old: str, new: str, complaint: str) -> None:
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(StackFileInvalid, match=complaint) as caught:
        stackfile.read(path, "phrase")
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"- one\n- two\n", "the file is no mapping"),
        (b"hello", "the file is no mapping"),
        (b"config: {a: \xff}", "not valid YAML"),
        (b"config: [a]", "config is no mapping"),
        (b"config: {asgard-models:environment: [a], asgard-models:model: {}}", "environment is no mapping"),
        (b"config: {asgard-models:environment: {A: {secure: x}}, asgard-models:model: {}}", "as Pulumi encrypts"),
        (b"config: {asgard-models:environment: {A: {plain: x}}, asgard-models:model: {}}", "as Pulumi encrypts"),
        (b"encryptionsalt: 5\nconfig: {asgard-models:environment: {A: x}, asgard-models:model: {}}", "encryptionsalt"),
    ],
)
def test_a_file_of_another_shape_is_named(path: Path, text: bytes, complaint: str) -> None:
    path.write_bytes(text)
    with pytest.raises(StackFileInvalid, match=complaint) as caught:
        stackfile.read(path, "phrase")
    assert str(path) in caught.value.message


def test_a_copy_under_another_name_is_not_taken_for_that_model(path: Path) -> None:
    copy = path.rename(stackfile.path_of(path.parent, "iris-two"))
    with pytest.raises(StackFileInvalid, match="iris is another model, and this is the stack iris-two"):
        stackfile.read(copy, "phrase")


def test_a_variable_for_the_server_that_cannot_be_meant_is_named_with_its_file(path: Path) -> None:
    path.write_text(path.read_text().replace("environment:", 'environment:\n    ASGARD_SERVER_ACCESS_LOG: "perhaps"'))
    with pytest.raises(StackFileInvalid, match=r"(?s)Pulumi\.iris\.yaml.*ASGARD_SERVER_ACCESS_LOG"):
        stackfile.read(path, "phrase")


def test_models_are_the_names_of_the_stack_files_without_the_platforms(path: Path) -> None:
    (path.parent / "Pulumi.yaml").touch()
    (path.parent / "Pulumi.platform.yaml").touch()
    assert stackfile.models(path.parent) == ["iris"]


def test_restoring_gives_back_the_former_text_or_its_absence(path: Path) -> None:
    before = path.read_text()
    path.write_text("something else")
    stackfile.restore(path, before)
    assert path.read_text() == before
    stackfile.restore(path, None)
    assert not path.exists()


def test_a_secrets_provider_that_cannot_be_written_with_is_refused_with_the_way_out(path: Path) -> None:
    path.write_text('secretsprovider: "awskms://alias/x"\n' + path.read_text())
    with pytest.raises(StackFileInvalid, match="change-secrets-provider passphrase"):
        stackfile.write(path, CONTENT, "phrase")


@pytest.mark.parametrize("text", ["config: [", "- one"])
def test_a_file_that_is_not_valid_does_not_hide_the_others(path: Path, text: str) -> None:
    stackfile.path_of(path.parent, "broken").write_text(text)
    assert stackfile.specs(path.parent) == [SPEC]
