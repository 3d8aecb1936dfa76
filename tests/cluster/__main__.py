"""`python -m tests.cluster up|down DIR`: a cluster by hand, for a demo or to look at."""

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
    parser.add_argument("what", choices=["up", "down", "run"], help="`run` is what `up` leaves in the background")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the cluster's logs and kubeconfig")
    parser.add_argument("--cache", type=Path, default=_cache(), help="for what is built once")
    parser.add_argument("--for-process", type=int, help="end with that process")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    try:
        if arguments.what == "run":
            harness.run(folder, arguments.cache, arguments.for_process)
        elif arguments.what == "up":
            cluster = harness.start(
                folder,
                arguments.cache,
                for_process=None,
                on_log=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
            )
            for name, value in exports(cluster).items():
                print(f"export {name}={shlex.quote(value)}")  # noqa: T201
        else:
            harness.stop(folder)
    except HarnessError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _cache() -> Path:
    return Path(os.environ.get("ASGARD_TEST_CACHE") or user_cache_path("asgard-tests"))


def exports(cluster: Cluster) -> dict[str, str]:
    """What Asgard needs in its environment to use the cluster."""
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "ASGARD_TARGET": "kubernetes",
        "ASGARD_KUBE_CONTEXT": cluster.context,
        "ASGARD_REGISTRY": f"{cluster.registry}/asgard-model",
        "ASGARD_BASE_IMAGE": cluster.base_image,
    }


if __name__ == "__main__":
    sys.exit(main())
