"""The API as an ASGI application, and as a server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from ..settings import Settings
from . import errors, routes
from .access import AccessLog
from .auth import Gate, check_listen, token
from .metrics import Metrics
from .openapi import describe

if TYPE_CHECKING:
    from ..platform.service import Platform


def create_app(settings: Settings, platform: "Platform | None" = None) -> FastAPI:
    """The API over `platform`, which starts and stops with it; without one, over one of its own."""
    if platform is None:
        # Imported here: it brings MLflow's client and the engine, which an API over another platform does not need.
        from ..platform.service import Platform

        platform = Platform(settings)
    driven = platform

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        driven.start()
        try:
            yield
        finally:
            await asyncio.to_thread(driven.stop)

    app = FastAPI(
        title="Asgard",
        version=version("asgard"),
        description="One REST call with a training script in, a live inference URL out.",
        lifespan=lifespan,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    metrics = Metrics()
    app.include_router(routes.about(metrics))
    app.include_router(routes.mlops(driven, settings, metrics))
    errors.install(app)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(AccessLog)
    describe(app, needs_token=token(settings) is not None)
    return app


def create_server(settings: Settings, host: str, port: int, platform: "Platform | None" = None) -> uvicorn.Server:
    """A server for `host` and `port` (0: a free one); `run()` it. Raises ListenRefused beyond loopback without a token.

    Told to end (SIGTERM, SIGINT), it takes no more requests and waits for those it is answering, which a deploy is
    until it has finished, even when its client is gone; after `shutdown_timeout_seconds` it ends regardless.
    """
    check_listen(host, settings)
    return uvicorn.Server(
        uvicorn.Config(
            create_app(settings, platform),
            host=host,
            port=port,
            lifespan="on",
            ws="none",
            log_config=None,  # `logs.configure` has said how
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
        )
    )
