import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform import secrets
from asgard.platform.secrets import Cipher, WrongPassphrase
from asgard.settings import Settings


@pytest.fixture(autouse=True)
def _no_passphrase_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE_FILE", raising=False)


def test_a_passphrase_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = secrets.passphrase(settings)
    assert len(first) >= 32
    assert secrets.passphrase(settings) == first
    assert stat.S_IMODE((tmp_path / "passphrase").stat().st_mode) == 0o600


def test_a_passphrase_file_that_is_given_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("given\n")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(tmp_path / "mine"))
    assert secrets.passphrase(Settings(data_dir=tmp_path / "data")) == "given"
    assert not (tmp_path / "data").exists()


def test_a_passphrase_file_with_a_relative_path_is_one_in_the_folder_where_asgard_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", "mine")
    assert secrets.passphrase_file(Settings(data_dir=tmp_path / "data")) == tmp_path / "mine"


def test_of_a_passphrase_and_a_file_the_first_is_used_as_it_is_as_by_the_pulumi_cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("of the file")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(tmp_path / "mine"))
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "given\n")
    assert secrets.passphrase(Settings(data_dir=tmp_path / "data")) == "given\n"
    assert (tmp_path / "mine").read_text() == "of the file"


def test_a_passphrase_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(tmp_path / "gone"))
    with pytest.raises(InfrastructureFailed, match=r"gone: No such file .* PULUMI_CONFIG_PASSPHRASE_FILE"):
        secrets.passphrase(Settings(data_dir=tmp_path))


def test_a_passphrase_that_is_given_reaches_the_engine_through_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "given")
    assert secrets.passphrase_file(Settings(data_dir=tmp_path)).read_text() == "given"


def test_a_passphrase_that_is_given_leaves_the_one_that_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path)
    made = secrets.passphrase(settings)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "of another project")
    file = secrets.passphrase_file(settings)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("of another project", 0o600)
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    assert secrets.passphrase(settings) == made


def test_the_first_passphrase_that_is_given_is_kept_for_commands_that_do_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "given")
    secrets.passphrase(Settings(data_dir=tmp_path))
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    assert secrets.passphrase(Settings(data_dir=tmp_path)) == "given"


@pytest.mark.parametrize("given", [True, False])
def test_threads_that_ask_at_once_get_one_passphrase(
    tmp_path: Path, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given:
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "given")
    settings = [Settings(data_dir=tmp_path / str(number)) for number in range(100)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(secrets.passphrase, [one for one in settings for _ in range(4)]))
    assert all(len(set(found[begin : begin + 4])) == 1 for begin in range(0, len(found), 4))
    assert {path.name for path in tmp_path.glob("*/*")} == {"passphrase"}


def test_what_one_cipher_encrypts_another_of_the_same_salt_decrypts() -> None:
    cipher = Cipher("phrase")
    assert Cipher("phrase", cipher.encryption_salt).decrypt(cipher.encrypt("tëxt")) == "tëxt"


def test_another_passphrase_does_not_open_the_salt() -> None:
    with pytest.raises(WrongPassphrase):
        Cipher("other", Cipher("phrase").encryption_salt)


def test_what_the_pulumi_cli_encrypts_is_read() -> None:
    # `pulumi stack init x` and `pulumi config set --secret A tëxt` of 3.255.0, passphrase "phrase".
    cipher = Cipher("phrase", "v1:jYADgboZWwo=:v1:jv0Cd/1QAv/b/Ft9:2UM4WzikDj/GrZ3we5Oa6QvYp6hKog==")
    assert cipher.decrypt("v1:aOr3q5WffAOBKI9n:9ffl+Du2FBIxpxbyo31/oZnbVirB") == "tëxt"
