"""What `--help` says beside the options."""

from collections.abc import Sequence
from typing import Final

ASGARD: Final = """\
One call with a training script in, a live inference URL out; every model its own Pulumi stack.

Try:
  asgard serve &
  asgard deploy train.py --name iris -r mlflow -r scikit-learn==1.3.0
  asgard pulumi -- stack ls

[bold]deploy[/], [bold]models[/], [bold]model[/] and [bold]status[/] ask the API. [bold]logs[/], [bold]rollback[/],
[bold]destroy[/], [bold]load[/], [bold]platform[/] and [bold]pulumi[/] work on the data folder of
this machine, whether the API runs or not.
"""

EXITS: Final = {
    0: "done",
    1: "it failed; the standard error says why and what to do",
    2: "an option, an argument or a setting is not valid",
    3: "the API cannot be reached (start it with `asgard serve`)",
    4: "there is no such model",
    5: "busy: the model is being changed, or too many deploys run",
    130: "interrupted with Ctrl-C",
}
"""Exit codes of all commands."""

_VARIABLES: Final = {
    "ASGARD_URL": "where the API is (http://127.0.0.1:8000)",
    "ASGARD_API_TOKEN": "the API's bearer token (none: for this machine only)",
    "ASGARD_DATA_DIR": "folder of everything that lasts (the XDG data folder)",
    "ASGARD_STACKS_DIR": "Pulumi project of the stacks (in the data folder)",
    "ASGARD_BACKEND_URL": "Pulumi backend of the stacks (in the data folder)",
    "MLFLOW_TRACKING_URI": "MLflow to use (an embedded one)",
    "ASGARD_REGISTRY": "where images go: `ecr`, or `host[:port]/prefix` (none)",
    "ASGARD_BASE_IMAGE": "what images are built on (the official Python)",
    "ASGARD_IMAGE_PLATFORM": "of the images (linux/amd64)",
    "DOCKER_HOST": "the Docker daemon (the one of this machine)",
    "ASGARD_NAMESPACE": "Kubernetes namespace of the models (asgard)",
    "ASGARD_KUBE_CONTEXT": "context of the kubeconfig (its current one)",
    "ASGARD_PULL_USERNAME": "with which the cluster pulls; ECR: access key id (none)",
    "ASGARD_PULL_PASSWORD": "its password; ECR: secret access key (none)",
    "ASGARD_FEAST_REPO_PATH": "Feast repository (in the data folder)",
    "ASGARD_SHUTDOWN_TIMEOUT_SECONDS": "wait for deploys at the end (300)",
}


def epilog(*exits: int, variables: Sequence[str]) -> str:
    """The end of a command's help: its exit codes and the environment variables it reads."""
    codes = [f"  {code:3} {EXITS[code]}" for code in exits]
    names = [f"  {name}: {_VARIABLES[name]}" for name in variables]
    return "\n".join(
        ["[bold]Exit codes[/]", *codes, "", "[bold]Environment variables[/] (and what holds without)", *names]
    )
