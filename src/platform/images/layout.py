"""Where things are in a model's image, and as whom it runs.

/app/env            a virtual environment on the base image's Python, with the lock's packages and the model server
/app/bundle         bundle.json and the MLflow model folder, as the server takes them
"""

from typing import Final

from ...serving.options import PORT

ENVIRONMENT: Final = "app/env"
BUNDLE: Final = "app/bundle"
USER: Final = "65532:65532"
"""Of nobody in the base image, and of nobody on the node."""

SCRATCH: Final = "/tmp"  # noqa: S108 - the one place in a container where there may be something to write to

RUN: Final = {
    "User": USER,
    "Env": [
        f"HOME={SCRATCH}",
        f"TMPDIR={SCRATCH}",
        "USER=asgard",  # who asks for it would look for the user id in /etc/passwd
        "PYTHONUNBUFFERED=1",
        "PYTHONDONTWRITEBYTECODE=1",
        "MLFLOW_DISABLE_TELEMETRY=true",
    ],
    "Entrypoint": [f"/{ENVIRONMENT}/bin/python", "-m", "asgard_server.container", f"/{BUNDLE}"],
    "WorkingDir": SCRATCH,
    "ExposedPorts": {f"{PORT}/tcp": {}},
    "StopSignal": "SIGTERM",
}
"""What a container of the image runs, as in an OCI configuration."""


def site_packages(python: str) -> str:
    """`python`: as in `3.11`."""
    return f"{ENVIRONMENT}/lib/python{python}/site-packages"
