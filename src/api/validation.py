"""Checks of a deploy request's values. Each returns the value, or raises ValueError with a message that says the fix.

No message repeats a value that may be a secret: variables, requirements (a URL can hold a password), the script.
"""

import binascii
import posixpath
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from packaging.requirements import InvalidRequirement
from packaging.utils import canonicalize_name

from .. import naming, quantities
from ..platform import syntax
from ..serving import options

SCRIPT_MAX_BYTES: Final = 1024**2
"""Bytes of a decoded script."""

SCRIPT_NAME_MAX: Final = 100
SCRIPT_NAME_MAX_BYTES: Final = 255
"""Of a file's name in Linux's and macOS's file systems."""
EXPERIMENT_NAME_MAX: Final = 500
"""Characters; MLflow's limit (`mlflow.utils.validation`), as those of tags are."""

REQUIREMENTS_MAX: Final = 200
REQUIREMENT_MAX: Final = 300
"""Characters of one requirement."""

TAGS_MAX: Final = 50
"""MLflow takes 100 in one request; the rest is for tags that tracking sets itself."""
TAG_KEY_MAX: Final = 250
TAG_VALUE_MAX: Final = 8000
TAG_RESERVED: Final = ("asgard.", "mlflow.")

VARIABLE_NAME_MAX: Final = 200
VARIABLES_MAX_BYTES: Final = 64 * 1024
"""Names and values together. Linux takes 128 KiB for one variable, a Kubernetes Secret 1 MiB for all."""

MEMORY_MIN_BYTES: Final = 64 * 1024**2
"""Less than any Python that has loaded a model."""

QUANTITY_MAX: Final = Decimal(2**63 - 1)
"""A Kubernetes quantity's own limit."""

RESERVED_VARIABLES: Final[Mapping[str, str]] = {
    "PATH": "it decides which programs the script and the server find",
    "HOME": "the script has a home of its own",
    "TMPDIR": "the script has a folder for temporary files of its own",
    "VIRTUAL_ENV": "the environment is made from `requirements`",
    "PYTHONPATH": "it decides which modules the server loads; list packages in `requirements`",
    "PYTHONHOME": "it decides which Python runs",
    "MLFLOW_RUN_CONTEXT": "Asgard finds the script's runs by it",
    "MLFLOW_RUN_ID": "the script's run is its own",
    "MLFLOW_REGISTRY_URI": "the registry is Asgard's",
}
"""Names that `environment_vars` may not hold, and why."""

RESERVED_PREFIXES: Final[Mapping[str, str]] = {
    "LD_": "it changes what the system's loader loads",
    "DYLD_": "it changes what the system's loader loads",
    "UV_": "the environment is made from `requirements`",
    "MLFLOW_TRACKING_": "tracking goes to Asgard's MLflow",
    "MLFLOW_EXPERIMENT_": "the experiment is `experiment_name`",
    "ASGARD_": "such names are Asgard's own",
    "PULUMI_": "such names are the deployment engine's",
}
"""Beginnings of such names."""

_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG_KEY: Final = re.compile(r"[/\w.\- :]+")  # `validate_param_and_metric_name` of mlflow.utils.validation
_NOT_BASE64: Final = (
    "is not strict base64; encode the file with the standard alphabet, padding and no line breaks, "
    "as `base64 -w0 train.py` does"
)
_TOO_LONG: Final = "has {} characters; at most {} are allowed"


def script(text: bytes) -> bytes:
    """The source in a base64 text: strict base64, at most SCRIPT_MAX_BYTES, UTF-8, no NUL."""
    if len(text) > SCRIPT_MAX_BYTES * 4 // 3 + 4:
        raise ValueError(f"is a script of more than {SCRIPT_MAX_BYTES} bytes; read data from files or a store instead")
    try:
        source = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ValueError(_NOT_BASE64) from None
    if binascii.b2a_base64(source, newline=False) != text:  # strict mode lets surplus padding and stray bits pass
        raise ValueError(_NOT_BASE64)
    if not source:
        raise ValueError("is empty; send the script's source, base64-encoded")
    if len(source) > SCRIPT_MAX_BYTES:
        raise ValueError(f"is a script of more than {SCRIPT_MAX_BYTES} bytes; read data from files or a store instead")
    try:
        source.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text at byte {error.start}; save the script as UTF-8") from None
    if b"\0" in source:
        raise ValueError(f"holds a NUL at byte {source.index(0)}; send Python source")
    return source


def script_name(name: str) -> str:
    if len(name) > SCRIPT_NAME_MAX:
        raise ValueError(_TOO_LONG.format(len(name), SCRIPT_NAME_MAX))
    if len(name.encode()) > SCRIPT_NAME_MAX_BYTES:
        raise ValueError(f"has {len(name.encode())} bytes as UTF-8; at most {SCRIPT_NAME_MAX_BYTES} are allowed")
    if "/" in name or "\\" in name or not name.isprintable() or name[:1] in ("", ".", "-", " ") or name[-3:] != ".py":
        raise ValueError("must be a plain file name ending in .py, such as train.py: no folder, no leading dot or dash")
    return name


def experiment_name(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be empty")
    if len(name) > EXPERIMENT_NAME_MAX:
        raise ValueError(_TOO_LONG.format(len(name), EXPERIMENT_NAME_MAX))
    if name != name.strip() or not name.isprintable():
        raise ValueError("must not hold control characters, nor begin or end with a space")
    return name


def model_name(name: str) -> str:
    if name == naming.PLATFORM_STACK:
        raise ValueError(f"{name!r} is reserved; choose another name")
    if not naming.is_model_name(name):
        raise ValueError(
            f"must be 1 to {naming.MODEL_NAME_MAX} characters from a-z, 0-9 and -, beginning and ending with a letter "
            "or digit, such as iris-classifier"
        )
    return name


def requirement(text: str) -> str:
    """A name with version bounds, extras and markers as in PEP 508; without its surrounding spaces."""
    if len(text) > REQUIREMENT_MAX:
        raise ValueError(_TOO_LONG.format(len(text), REQUIREMENT_MAX))
    if "\n" in text or "\r" in text:
        raise ValueError("must not hold a line break; send one requirement an item")
    if text.strip().startswith("-"):
        raise ValueError("is an option; only names and versions are allowed, such as scikit-learn==1.3.0")
    try:
        parsed = syntax.requirement(text)
    except InvalidRequirement:
        raise ValueError(
            "is not a requirement of PEP 508; write a name and versions, such as scikit-learn==1.3.0, not a path or URL"
        ) from None
    if parsed.url is not None:
        raise ValueError("is a URL; only names and versions are allowed, such as scikit-learn==1.3.0")
    return text.strip()


def requirements(texts: Sequence[str]) -> Sequence[str]:
    seen: set[tuple[str, str]] = set()
    for text in texts:
        parsed = syntax.requirement(text)
        key = (canonicalize_name(parsed.name), str(parsed.marker))
        if key in seen:
            raise ValueError(f"name {key[0]} twice; put all its bounds in one requirement, as in {key[0]}>=1,<2")
        seen.add(key)
    return texts


def variable_name(name: str) -> str:
    if len(name) > VARIABLE_NAME_MAX:
        raise ValueError(f"has a name of {len(name)} characters; at most {VARIABLE_NAME_MAX} are allowed")
    if not _VARIABLE_NAME.fullmatch(name):
        raise ValueError("is not a variable's name; use letters, digits and _, not beginning with a digit")
    reason = RESERVED_VARIABLES.get(name) or next(
        (reason for prefix, reason in RESERVED_PREFIXES.items() if name.startswith(prefix)), None
    )
    if reason is not None and name not in options.NAMES:
        raise ValueError(f"is reserved: {reason}. Leave it out or use another name")
    return name


def variable_value(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character; an environment variable cannot")
    return value


def variables(pairs: Mapping[str, str]) -> Mapping[str, str]:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in pairs.items())
    if size > VARIABLES_MAX_BYTES:
        raise ValueError(f"have {size} bytes together; at most {VARIABLES_MAX_BYTES} are allowed")
    options.read(pairs)
    return pairs


def tag_key(key: str) -> str:
    if len(key) > TAG_KEY_MAX:
        raise ValueError(f"has a key of {len(key)} characters; at most {TAG_KEY_MAX} are allowed")
    # MLflow refuses keys that are no normal relative path, too.
    if not _TAG_KEY.fullmatch(key) or posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/")):
        raise ValueError("is not a tag's key; use letters, digits, and _ - . : / or space, as in team or team/owner")
    if key.startswith(TAG_RESERVED):
        raise ValueError(f"is reserved: keys that begin with {' or '.join(TAG_RESERVED)} are set by the platform")
    return key


def memory_limit(quantity: str) -> str:
    if not MEMORY_MIN_BYTES <= quantities.parse(quantity) <= QUANTITY_MAX:
        raise ValueError("must be at least 64Mi and less than 8Ei, such as 2Gi")
    return quantity


def cpu_limit(quantity: str) -> str:
    # Kubernetes counts no finer than thousandths of a core.
    if not Decimal("0.001") <= quantities.parse(quantity) <= QUANTITY_MAX / 1000:
        raise ValueError("must be at least 1m (a thousandth of a core), such as 500m or 2")
    return quantity
