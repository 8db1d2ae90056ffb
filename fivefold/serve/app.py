"""The ASGI application: the table of routes, the gate around them, and the life of the model behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fivefold.serve import openapi, wire
from fivefold.serve.endpoint import Endpoint, parsed
from fivefold.serve.failures import RouteError
from fivefold.serve.gate import Gate, Keys, Note, State, unless_left
from fivefold.serve.intake import SLICE_CHARS
from fivefold.serve.metrics import Metrics
from fivefold.serve.routes import embeddings, operations, tei, uses
from fivefold.serve.service import Service

Responder = Callable[[Request], Awaitable[Response]]

ENDPOINTS: tuple[Endpoint, ...] = (*embeddings.ENDPOINTS, *tei.ENDPOINTS, *uses.ENDPOINTS)
PUBLIC = frozenset({"/openapi.json", *(path for path, _, public, _ in operations.GETS if public)})

log = logging.getLogger("fivefold.serve")


def create_app(
    load: Callable[[Metrics], Service],
    *,
    keys: Iterable[str] = (),
    cors_origins: Iterable[str] = (),
) -> Starlette:
    """The application. `app.state.serve` is its `State`.

    Args:
        load: makes the service; it runs on a thread while the server already answers /live, and /ready with 503.
        keys: API keys; none lets everybody in.
        cors_origins: web pages that may call the server from a browser; "*" is all.
    """
    state = State(Metrics(), Keys(keys))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(state, load))
        yield
        state.draining = True
        await loading
        if state.service is not None:
            await state.service.close()

    origins = list(cors_origins)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after"],
    )
    app = Starlette(
        routes=_routes(state),
        middleware=[*([cors] if origins else []), Middleware(Gate, state=state, public=PUBLIC)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.serve = state
    return app


async def _load(state: State, load: Callable[[Metrics], Service]) -> None:
    try:
        state.service = await asyncio.to_thread(load, state.metrics)
        log.info("ready")
    except Exception as error:
        state.failure = error
        state.on_failure()


def _routes(state: State) -> list[Route]:
    routes = [Route(path, _get(path, function, state), methods=["GET"]) for path, function, *_ in operations.GETS]
    for point in ENDPOINTS:
        routes += [Route(path, _post(path, point, state), methods=["POST"]) for path in point.paths]
    page = wire.dumps(openapi.document(ENDPOINTS, tuple((p, text, public) for p, _, public, text in operations.GETS)))

    async def schema(request: Request, state: State) -> Response:
        return Response(page, media_type="application/json")

    routes.append(Route("/openapi.json", _get("/openapi.json", schema, state), methods=["GET"]))
    state.metrics.name_routes([route.path for route in routes])
    return routes


def _get(path: str, function: Callable[[Request, State], Awaitable[Response]], state: State) -> Responder:
    async def respond(request: Request) -> Response:
        request.scope["fivefold.route"] = path
        return await function(request, state)

    return respond


def _post(path: str, point: Endpoint, state: State) -> Responder:
    async def respond(request: Request) -> Response:
        request.scope["fivefold.route"] = path
        assert state.service is not None, "the gate lets no request in before there is a service"
        work = _worked(point, state.service, await request.body(), request.scope["fivefold.note"])
        return Response(await unless_left(request, work), media_type="application/json")

    return respond


async def _worked(point: Endpoint, service: Service, body: bytes, note: Note) -> bytes:
    """From body to body. A large one is parsed away from the event loop, and one at a time: it may be lists only, which
    need thirty times its memory."""
    if len(body) <= SLICE_CHARS:
        request = parsed(point.request, body)
    else:
        request = await service.intake.offload(len(body), parsed, point.request, body)
    return await point.handler(service, request, note)


async def _no_route(request: Request, error: Exception) -> Response:
    """Unknown paths and methods: raised again as ours, for the gate to answer."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    what = "has no route" if status == 404 else "does not take this method for"
    raise RouteError(f"this server {what} {request.url.path}", status, dict(error.headers or {})) from None
