"""A model's stack file, `Pulumi.<model>.yaml`: read, and changed only where something is to change.

Comments, order and hand edits stay. Ciphertext is kept while its plain value is the same, so a redeploy changes the
release lines and nothing else.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from .. import naming
from ..errors import InfrastructureFailed
from ..serving import options
from ..stacks.spec import ModelSpec, PlatformSpec, parse
from . import files
from .secrets import Cipher

S = TypeVar("S", bound=BaseModel)


class StackFileInvalid(InfrastructureFailed):
    """A stack file is not what Asgard reads: somebody's edit went wrong."""


@dataclass(frozen=True)
class StackFile:
    """What a stack file says. `environment`: plain values; keep them out of logs."""

    spec: ModelSpec
    environment: Mapping[str, str]


@dataclass(frozen=True)
class PlatformFile:
    """What the file of the stack `platform` says. `credentials`: plain values, for pulling; keep them out of logs."""

    spec: PlatformSpec
    credentials: Mapping[str, str]


def path_of(stacks_dir: Path, model: str) -> Path:
    """Where the model's stack file stands."""
    return stacks_dir / f"Pulumi.{model}.yaml"


def _stack(path: Path) -> str:
    return path.name.removeprefix("Pulumi.").removesuffix(".yaml")


def models(stacks_dir: Path) -> list[str]:
    """Names of all models that have a stack file."""
    names = map(_stack, stacks_dir.glob("Pulumi.?*.yaml"))
    return sorted(name for name in names if name != naming.PLATFORM_STACK)


def specs(stacks_dir: Path) -> list[ModelSpec]:
    """The specs of all models. A file that is not valid is left out: its own model's next operation says so."""
    found = []
    for model in models(stacks_dir):
        with suppress(StackFileInvalid):
            found.append(read_spec(path_of(stacks_dir, model)))
    return [spec for spec in found if spec is not None]


def read(path: Path, phrase: str) -> StackFile | None:
    """The file's content; None where there is no file or no spec in it. Raises StackFileInvalid, WrongPassphrase."""
    document, config = _read(path)
    if naming.MODEL_CONFIG not in config:
        return None
    environment = _decrypted(path, document, config, phrase)
    try:
        options.read(environment)
    except ValueError as error:
        raise StackFileInvalid(f"{path}: {naming.ENVIRONMENT_CONFIG}: {error}") from error
    return StackFile(_spec(path, config), environment)


def check(path: Path, phrase: str) -> None:
    """Raise WrongPassphrase where the file was made with another; no value needs to be encrypted in it for that."""
    document, _ = _read(path)
    if "encryptionsalt" in document:
        _cipher(path, document, phrase)


def read_platform(path: Path, phrase: str) -> PlatformFile | None:
    """As `read`, for the stack `platform`."""
    document, config = _read(path)
    if naming.PLATFORM_CONFIG not in config:
        return None
    spec = _valid(PlatformSpec, path, config, naming.PLATFORM_CONFIG)
    return PlatformFile(spec, _decrypted(path, document, config, phrase))


def read_spec(path: Path) -> ModelSpec | None:
    """The file's spec alone: no passphrase needed."""
    _, config = _read(path)
    return _spec(path, config) if naming.MODEL_CONFIG in config else None


def write(path: Path, content: StackFile | PlatformFile, phrase: str) -> None:
    """Make the file say `content`, atomically, changing only what differs."""
    if isinstance(content, StackFile):
        _write(path, naming.MODEL_CONFIG, content.spec, content.environment, phrase)
    else:
        _write(path, naming.PLATFORM_CONFIG, content.spec, content.credentials, phrase)


def _write(path: Path, key: str, wanted: ModelSpec | PlatformSpec, environment: Mapping[str, str], phrase: str) -> None:
    document, config = _read(path)
    if document.get("secretsprovider", "passphrase") != "passphrase":
        raise StackFileInvalid(
            f"{path}: the secrets provider {document['secretsprovider']} is not one that Asgard can encrypt with. "
            "Run `pulumi stack change-secrets-provider passphrase` on the stack."
        )
    cipher = _cipher(path, document, phrase)
    document.setdefault("encryptionsalt", cipher.encryption_salt)
    if not config:
        config = document["config"] = {}
    spec = wanted.model_dump(by_alias=True, exclude_none=True)
    if key in config:
        _change(config[key], _valid(type(wanted), path, config, key).model_dump(by_alias=True), spec)
    else:
        config[key] = _quoted(spec)
    former = config.get(naming.ENVIRONMENT_CONFIG) or {}
    if _decrypted(path, document, config, phrase) != dict(environment):
        config[naming.ENVIRONMENT_CONFIG] = {
            name: former[name]
            if name in former and _value(former[name], cipher) == value
            else {"secure": cipher.encrypt(value)}
            for name, value in environment.items()
        }
    _replace(path, document)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    return yaml


def _read(path: Path) -> tuple[Any, Any]:
    """The document and its `config`, both mappings; empty where there is no file."""
    try:
        document = _yaml().load(text(path) or "") or {}
    except YAMLError as error:
        raise StackFileInvalid(f"{path} is not valid YAML: {error}") from error
    return _mapping(path, document, "the file"), _mapping(path, document.get("config"), "config")


def _mapping(path: Path, value: Any, name: str) -> Any:
    if not isinstance(value or {}, dict):
        raise StackFileInvalid(f"{path}: {name} is no mapping of names to values.")
    return value or {}


def _replace(path: Path, document: Any) -> None:
    dumped = StringIO()
    _yaml().dump(document, dumped)
    restore(path, dumped.getvalue())


def text(path: Path) -> str | None:
    """The file as it stands, for `restore`; None: there is no file. Raises StackFileInvalid."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise StackFileInvalid(f"{path} is not valid YAML: it is not UTF-8: {error}") from error


def restore(path: Path, text: str | None) -> None:
    """Put a file's former text back, atomically; None: there was no file."""
    if text is None:
        path.unlink(missing_ok=True)
    else:
        files.replace(path, text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value


def _quoted(value: Any) -> Any:
    """Quote every string: a bare 1e3 or 08 is a number to some reader of YAML."""
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    return DoubleQuotedScalarString(value) if isinstance(value, str) else value


def _change(block: Any, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Write into the file's `block` what differs between the two, and leave every other line as somebody wrote it."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(block.get(key), dict):
            _change(block[key], old.get(key) or {}, value)
        elif old.get(key) != value:
            block[key] = _quoted(value)


def _value(value: Any, cipher: Cipher) -> str:
    return cipher.decrypt(value["secure"]) if isinstance(value, dict) else str(value)


def _decrypted(path: Path, document: Mapping[str, Any], config: Mapping[str, Any], phrase: str) -> dict[str, str]:
    values = _mapping(path, config.get(naming.ENVIRONMENT_CONFIG), naming.ENVIRONMENT_CONFIG)
    if not values:
        return {}
    cipher = _cipher(path, document, phrase)
    with _told(path):
        return {str(name): _value(value, cipher) for name, value in values.items()}


def _cipher(path: Path, document: Mapping[str, Any], phrase: str) -> Cipher:
    with _told(path):
        return Cipher(phrase, document.get("encryptionsalt"))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises StackFileInvalid for what is encrypted in the file and is not as Pulumi encrypts it."""
    try:
        yield
    except (AttributeError, KeyError, ValueError) as error:
        raise StackFileInvalid(
            f"{path}: encryptionsalt, or a value of {naming.ENVIRONMENT_CONFIG}, is not as Pulumi encrypts it. "
            "`git diff`, or a copy, may tell what it was."
        ) from error


def _spec(path: Path, config: Mapping[str, Any]) -> ModelSpec:
    return _valid(ModelSpec, path, config, naming.MODEL_CONFIG)


def _valid(kind: type[S], path: Path, config: Mapping[str, Any], key: str) -> S:
    try:
        return parse(kind, _plain(config[key]), _stack(path))
    except ValueError as error:
        raise StackFileInvalid(f"{path}: {key}: {error}") from error
