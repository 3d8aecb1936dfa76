"""Servers of this machine, which no proxy can reach: MLflow, the engine, its providers."""

from collections.abc import Mapping
from typing import Final

_HOSTS: Final = ("127.0.0.1", "localhost")


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep clients from asking a proxy for these servers; what they hold already stays.

    Both, and alike where one is not set: gRPC reads the lower-case one alone, others prefer it.
    """
    lower, upper = environment.get("no_proxy", ""), environment.get("NO_PROXY", "")
    return {"no_proxy": _completed(lower or upper), "NO_PROXY": _completed(upper or lower)}


def _completed(hosts: str) -> str:
    given = [host for host in map(str.strip, hosts.split(",")) if host]
    return "*" if "*" in given else ",".join(dict.fromkeys([*given, *_HOSTS]))
