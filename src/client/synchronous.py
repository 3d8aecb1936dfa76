"""The client for programs that wait."""

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx
from httpx_sse import connect_sse
from pydantic import TypeAdapter

from ..answers import DeployAnswer, ModelAnswer, ModelWithVersions, StatusAnswer
from ..progress import OnProgress
from . import deploys, rows, transport
from .sources import Source

if TYPE_CHECKING:
    from .rows import Rows

_Answer = TypeVar("_Answer")


class Client:
    """The API at `url` (default: ASGARD_URL, else this machine), with `token` (default: ASGARD_API_TOKEN).

    `timeout`: seconds for an answer; a deploy takes what it takes. Close it, or use it in a `with`. Threads may share
    it. Every call raises Unreachable, NotAsgard, and ProblemAnswered as the class of the problem's code.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout: float = transport.ANSWER_SECONDS
    ) -> None:
        self.url = transport.address(url)
        self._timeout = timeout
        self._api = httpx.Client(**transport.options(self.url, transport.bearer(token), timeout))
        self._models: dict[str, httpx.Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for client in (self._api, *self._models.values()):
            client.close()

    def deploy(
        self,
        source: Source,
        *,
        name: str,
        on_progress: OnProgress | None = None,
        **options: Unpack[deploys.DeployOptions],
    ) -> DeployAnswer:
        """Train the model `name` with a script, register it, bring it up; the answer once it serves.

        `source`: the script's path, or a function without parameters that imports and defines what it needs inside
        itself and logs a model with MLflow. `on_progress` is called for each stage and line of output as they come;
        what it raises ends the waiting, and the deploy goes on at the server.

        Raises OutOfSight where the connection ends before the deploy does; OSError, ValueError for a source that
        cannot be sent; TypeError for what is no option.
        """
        request = deploys.body(source, name, options)
        with ExitStack() as connection:
            with transport.reaching(self.url):
                events = connection.enter_context(
                    connect_sse(self._api, "POST", transport.mlops("deploy"), json=request, timeout=deploys.TIMEOUT)
                )
                if not transport.is_stream(events.response):
                    events.response.read()
                    transport.refuse(events.response)
            for told in deploys.told(events, name, self.url):
                if isinstance(told, DeployAnswer):
                    return told
                if on_progress is not None:
                    on_progress(told)
        raise deploys.ended(name)

    def models(self) -> list[ModelAnswer]:
        """All registered models."""
        return self._get(transport.MODELS, "models")

    def model(self, name: str) -> ModelWithVersions:
        """A registered model and its versions, newest first. Raises ModelNotFound."""
        return self._get(transport.MODEL, "models", name)

    def status(self) -> StatusAnswer:
        """How Asgard and what it stands on are."""
        return self._get(transport.STATUS, "status")

    def predict(self, model: str, data: "Rows") -> Any:
        """The predictions for rows: one for each, or what else the model returns for them.

        `model`: its inference URL, or its name, for which the API is asked for the URL at each call. `data`: rows as
        lists or records, an array, or a DataFrame; missing values become null. The token is not sent to models.

        Raises InvalidData, ModelFailed, NotServing, ModelNotFound; ValueError, TypeError for what JSON does not have.
        """
        body = rows.body(data)
        url = transport.server_of(model) or transport.server_of_registered(self.model(model))
        client = self._models.get(url)
        if client is None:
            client = self._models[url] = httpx.Client(**transport.options(url, {}, self._timeout))
        with transport.reaching(url):
            response = client.post("/predict", content=body, headers=transport.JSON)
        return transport.parsed(response, transport.PREDICTIONS).predictions

    def _get(self, answer: TypeAdapter[_Answer], *path: str) -> _Answer:
        with transport.reaching(self.url):
            response = self._api.get(transport.mlops(*path))
        return transport.parsed(response, answer)
