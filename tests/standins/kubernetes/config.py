"""Configuration of the provider resource, and the cluster that it means.

As in the real provider: a property decides, else an environment variable; the kubeconfig is a path, YAML or JSON, else
the ambient one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from .values import Properties, plain

PROPERTIES: Final = frozenset(
    {
        *("alwaysRender", "cluster", "clusterIdentifier", "context", "deleteUnreachable", "enableConfigMapMutable"),
        *("enablePatchForce", "enableSecretMutable", "enableServerSideApply", "helmReleaseSettings"),
        *("kubeClientSettings", "kubeconfig", "namespace", "renderYamlToDirectory", "skipUpdateUnreachable"),
        *("strictMode", "suppressDeprecationWarnings", "suppressHelmHookWarnings", "upsertExistingObjects"),
    }
)
_ENGINES_OWN: Final = frozenset({"version", "pluginDownloadURL", "__internal", "__defaults"})
_PREFIX: Final = "kubernetes:config:"

_NOT_HERE: Final = ("alwaysRender", "helmReleaseSettings", "renderYamlToDirectory", "strictMode")
"""What the real provider can and the stand-in cannot; to set one is an error, so nobody takes it for done."""


@dataclass(frozen=True)
class Config:
    """`cluster`: None with `unreachable` saying why. `namespace`: of objects that name none."""

    cluster: SingleConfig | None
    unreachable: str
    namespace: str
    delete_unreachable: bool
    skip_update_unreachable: bool
    patch_force: bool
    upsert: bool
    secret_mutable: bool
    config_map_mutable: bool


class BadConfig(Exception):
    """The engine is told so by Configure."""


def problems(properties: Properties) -> dict[str, str]:
    """What is wrong with each property of the provider resource."""
    found = {}
    for name, value in plain(properties).items():
        if name not in PROPERTIES | _ENGINES_OWN:
            found[name] = "the provider has no such property"
        elif name in _NOT_HERE and value not in (None, "", False, "false"):
            found[name] = "the stand-in does not do this"
    if plain(properties).get("enableServerSideApply") in (False, "false"):
        found["enableServerSideApply"] = "the stand-in only does server-side apply"
    return found


def configured(variables: Mapping[str, str], environment: Mapping[str, str]) -> Config:
    """From what Configure is given, and the environment variables of the provider. Raises BadConfig."""
    given = {name.removeprefix(_PREFIX): value for name, value in variables.items()}
    if wrong := problems(dict(given)):
        raise BadConfig(f"bad provider configuration: {wrong}")

    def flag(name: str, variable: str) -> bool:
        return (given[name] if name in given else environment.get(f"PULUMI_K8S_{variable}", "")) == "true"

    try:
        cluster, unreachable = _cluster(given, environment), ""
    except (ConfigError, OSError, yaml.YAMLError, KeyError, ValueError) as error:
        cluster, unreachable = None, f"failed to parse kubeconfig data in `kubernetes:config:kubeconfig`- {error}"
    return Config(
        cluster=cluster,
        unreachable=unreachable,
        namespace=given.get("namespace") or (cluster.namespace if cluster else "default"),
        delete_unreachable=flag("deleteUnreachable", "DELETE_UNREACHABLE"),
        skip_update_unreachable=flag("skipUpdateUnreachable", "SKIP_UPDATE_UNREACHABLE"),
        patch_force=flag("enablePatchForce", "ENABLE_PATCH_FORCE"),
        upsert=flag("upsertExistingObjects", "UPSERT_EXISTING_OBJECTS"),
        secret_mutable=flag("enableSecretMutable", "ENABLE_SECRET_MUTABLE"),
        config_map_mutable=flag("enableConfigMapMutable", "ENABLE_CONFIGMAP_MUTABLE"),
    )


def difference(olds: Properties, news: Properties) -> tuple[list[str], list[str]]:
    """Names of the properties that changed, and those of them that replace the provider and all it made.

    Another cluster is one whose entry in the kubeconfig differs; the same `clusterIdentifier` says that it is not.
    Raises BadConfig for a kubeconfig, new or recorded, that is none.
    """
    olds, news = plain(olds), plain(news)
    changed = sorted(name for name in olds.keys() | news.keys() if olds.get(name) != news.get(name))
    identifiers = (olds.get("clusterIdentifier"), news.get("clusterIdentifier"))
    if None not in identifiers:
        return changed, ["clusterIdentifier"] if identifiers[0] != identifiers[1] else []
    old, new = _entry(olds), _entry(news)
    if old is None or new is None or old == new:
        return changed, []
    return changed, [name for name in ("kubeconfig", "context", "cluster") if name in changed]


def _cluster(given: Mapping[str, str], environment: Mapping[str, str]) -> SingleConfig:
    text = given.get("kubeconfig") or environment.get("KUBECONFIG") or "~/.kube/config"
    path = _path(text)
    config = KubeConfig.from_file(path) if path else KubeConfig.from_dict(yaml.safe_load(text))
    if given.get("cluster"):
        raise ConfigError("the stand-in does not do `cluster`")
    found = config.get(given.get("context") or None)
    if found is None:
        raise ConfigError("there is no current context")
    return found


def _entry(properties: Properties) -> Any:
    """The cluster's entry in a kubeconfig that is given as a property; None when it is not or cannot be read."""
    text = properties.get("kubeconfig")
    if not text:
        return None
    path = _path(text) if isinstance(text, str) else None
    content = path.read_text() if path else text if isinstance(text, str) else json.dumps(text)
    try:
        known = KubeConfig.from_dict(yaml.safe_load(content))
    except (ConfigError, yaml.YAMLError, LookupError, ValueError, TypeError, AttributeError) as error:
        # Of what was recorded too: a path that leads nowhere any more is taken for a kubeconfig.
        raise BadConfig(f"failed to parse kubeconfig: {error}") from error
    try:
        config = known.get(properties.get("context") or None)
    except (ConfigError, KeyError, ValueError):
        return None
    return config.cluster if config else None


def _path(text: str) -> Path | None:
    """The file that a kubeconfig property names; None when it is the content itself."""
    try:
        path = Path(text).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):
        return None
