"""`asgard` with a platform that says by files what it does; a deploy lasts until one named `finish` is there."""

import os
import time
from pathlib import Path
from typing import Any

from asgard import cli
from asgard.platform import service
from asgard.platform.requests import DeployRequest
from asgard.progress import OnProgress

from ..api.fake_platform import FakeDeployed, FakePlatform


class WaitingPlatform(FakePlatform):
    def __init__(self, _: Any) -> None:
        super().__init__()
        self._folder = Path(os.environ["ASGARD_DATA_DIR"]).parent

    def stop(self) -> None:
        (self._folder / "stopped").touch()

    def deploy(self, request: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        (self._folder / "deploying").touch()
        while not (self._folder / "finish").exists():
            time.sleep(0.01)
        return FakeDeployed()


service.Platform = WaitingPlatform  # type: ignore[assignment, misc]
cli.main()
