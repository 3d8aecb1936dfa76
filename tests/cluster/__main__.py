"""`python -m tests.cluster prepare|up DIR|down DIR`: a cluster by hand, for a demo or to look at."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from platformdirs import user_cache_path

from . import harness
from .model import Cluster, HarnessError


def main() -> int:
    """Prints what is going on to standard error, and for `up` the exports to set to standard output."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--cache", type=Path, default=_cache(), help="for what is built once")
    actions = parser.add_subparsers(dest="what", required=True)
    actions.add_parser("prepare", help="install and build what a cluster needs: minutes the first time, then nothing")
    for what, about in {
        "up": "bring a cluster up that stays until `down`, or until a process ends",
        "down": "take it away",
        "run": "what `up` leaves in the background",
    }.items():
        action = actions.add_parser(what, help=about)
        action.add_argument("folder", type=lambda text: Path(text).absolute(), metavar="DIR", help="logs, kubeconfig")
        if what in ("up", "run"):
            action.add_argument("--for-process", type=int, help="end with that process")
    arguments = parser.parse_args()
    try:
        if arguments.what == "prepare":
            _prepare(arguments.cache)
        elif arguments.what == "run":
            harness.run(arguments.folder, arguments.cache, arguments.for_process)
        elif arguments.what == "down":
            harness.stop(arguments.folder)
        else:
            cluster = harness.start(arguments.folder, arguments.cache, for_process=arguments.for_process, on_log=_say)
            for name, value in exports(cluster).items():
                print(f"export {name}={shlex.quote(value)}")  # noqa: T201
    except HarnessError as error:
        _say(str(error))
        return 1
    return 0


def _prepare(cache: Path) -> None:
    reason = harness.unavailable()
    if reason is None or os.environ.get("CI") == "true":
        harness.prepare(cache, _say)
    else:
        _say(f"{reason} Tests that need one will be skipped.")


def exports(cluster: Cluster) -> dict[str, str]:
    """What Asgard needs in its environment to use the cluster."""
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "ASGARD_TARGET": "kubernetes",
        "ASGARD_KUBE_CONTEXT": cluster.context,
        "ASGARD_REGISTRY": f"{cluster.registry}/asgard-model",
        "ASGARD_BASE_IMAGE": cluster.base_image,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _cache() -> Path:
    return Path(os.environ.get("ASGARD_TEST_CACHE") or user_cache_path("asgard-tests"))


if __name__ == "__main__":
    sys.exit(main())
