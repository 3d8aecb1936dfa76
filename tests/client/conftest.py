import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgard.client import AsyncClient, Client

from ..api.conftest import _logging, _shared, platform, server  # noqa: F401
from ..api.fake_platform import Running
from ..serving.conftest import bundle, saved  # noqa: F401
from ..serving.http_server import serving

Call = Callable[..., Any]
"""Calls a method of a client: `call("model", "iris")`, `call("models", url="http://…", token="…")`."""


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, server: Running) -> Call:  # noqa: F811
    """Both clients, asked the same."""

    def sync(method: str, *arguments: Any, url: str | None = None, token: str | None = None, **options: Any) -> Any:
        with Client(url or server.url, token) as api:
            return getattr(api, method)(*arguments, **options)

    def asynchronous(
        method: str, *arguments: Any, url: str | None = None, token: str | None = None, **options: Any
    ) -> Any:
        async def run() -> Any:
            async with AsyncClient(url or server.url, token) as api:
                return await getattr(api, method)(*arguments, **options)

        return asyncio.run(run())

    return sync if request.param == "sync" else asynchronous


@pytest.fixture(scope="module")
def model_url(bundle: Callable[[str], Path]) -> Iterator[str]:  # noqa: F811
    """Where a model of the columns a to e answers."""
    with serving(bundle("columns")) as url:
        yield url
