"""The client for asyncio."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx
from httpx_sse import aconnect_sse
from pydantic import TypeAdapter

from ..answers import DeployAnswer, ModelAnswer, ModelWithVersions, StatusAnswer
from ..progress import OnProgress
from . import deploys, rows, transport
from .sources import Source

if TYPE_CHECKING:
    from .rows import Rows

_Answer = TypeVar("_Answer")


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited. A deploy that is cancelled goes on at the server."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout: float = transport.ANSWER_SECONDS
    ) -> None:
        self.url = transport.address(url)
        self._timeout = timeout
        self._api = httpx.AsyncClient(**transport.options(self.url, transport.bearer(token), timeout))
        self._models: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for client in (self._api, *self._models.values()):
            await client.aclose()

    async def deploy(
        self,
        source: Source,
        *,
        name: str,
        on_progress: OnProgress | None = None,
        **options: Unpack[deploys.DeployOptions],
    ) -> DeployAnswer:
        """`Client.deploy`; `on_progress` is a plain function, called in the event loop."""
        request = deploys.body(source, name, options)
        async with AsyncExitStack() as connection:
            with transport.reaching(self.url):
                events = await connection.enter_async_context(
                    aconnect_sse(self._api, "POST", transport.mlops("deploy"), json=request, timeout=deploys.TIMEOUT)
                )
                if not transport.is_stream(events.response):
                    await events.response.aread()
                    transport.refuse(events.response)
            async for told in deploys.told_async(events, name, self.url):
                if isinstance(told, DeployAnswer):
                    return told
                if on_progress is not None:
                    on_progress(told)
        raise deploys.ended(name)

    async def models(self) -> list[ModelAnswer]:
        """All registered models."""
        return await self._get(transport.MODELS, "models")

    async def model(self, name: str) -> ModelWithVersions:
        """A registered model and its versions, newest first. Raises ModelNotFound."""
        return await self._get(transport.MODEL, "models", name)

    async def status(self) -> StatusAnswer:
        """How Asgard and what it stands on are."""
        return await self._get(transport.STATUS, "status")

    async def predict(self, model: str, data: "Rows") -> Any:
        """`Client.predict`."""
        body = rows.body(data)
        url = transport.server_of(model) or transport.server_of_registered(await self.model(model))
        client = self._models.get(url)
        if client is None:
            client = self._models[url] = httpx.AsyncClient(**transport.options(url, {}, self._timeout))
        with transport.reaching(url):
            response = await client.post("/predict", content=body, headers=transport.JSON)
        return transport.parsed(response, transport.PREDICTIONS).predictions

    async def _get(self, answer: TypeAdapter[_Answer], *path: str) -> _Answer:
        with transport.reaching(self.url):
            response = await self._api.get(transport.mlops(*path))
        return transport.parsed(response, answer)
