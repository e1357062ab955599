"""What is served: the page, and of each mosaic its description, its files by ranges and the tiles of the 10 m side.

No address holds a path of this machine. Requests are read and never obeyed: GET and HEAD alone, and only where they
name this machine as their host, so that no page of somebody else's reads a mosaic through the browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from threading import Lock

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsup.models.base.errors import RsupError
from rsup.pipeline.look import look
from rsup.pipeline.public import printable, public_text
from rsup.pipeline.scenes.scene import Scene

from .find import Found
from .mosaic import Mosaic

HOSTS = ["127.0.0.1", "localhost"]
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Of every answer. The page runs its own script, asks its own server, and is shown in no other page."""


def view_app(found: Sequence[Found], scene: Scene | None = None) -> Starlette:
    """The pages of mosaics; `scene` is that of the only one, where the user names it.

    Mosaics are opened when they are first asked for: an archive has thousands.
    """
    opened, lock = dict[int, Mosaic](), Lock()

    def mosaic_of(request: Request) -> Mosaic:
        number = request.path_params["number"]
        if number >= len(found):
            raise HTTPException(404, "no such mosaic")
        with lock:
            if number not in opened:
                opened[number] = Mosaic.open(found[number], scene)
            return opened[number]

    def names(_: Request) -> Response:
        shared = len({each.item.id for each in found}) < len(found)
        return JSONResponse(
            [{"name": f"{each.folder.parent.name}/{each.item.id}" if shared else each.item.id} for each in found]
        )

    def described(request: Request) -> Response:
        return JSONResponse(mosaic_of(request).describe(f"mosaics/{request.path_params['number']}"))

    def pixels(request: Request) -> Response:
        return FileResponse(mosaic_of(request).found.cog, media_type="image/tiff")

    def uncertainty(request: Request) -> Response:
        if (file := mosaic_of(request).found.uncertainty) is None:
            raise HTTPException(404, "this mosaic has no uncertainty")
        return FileResponse(file, media_type="image/tiff")

    def coarse(request: Request) -> Response:
        place = (request.path_params[name] for name in ("factor", "row", "col"))
        try:
            tile = mosaic_of(request).tile(*place)
        except LookupError as error:
            raise HTTPException(404, str(error)) from None
        return Response(tile.astype("<u2").tobytes(), media_type="application/octet-stream")

    routes = [
        Route("/", partial(_own, "page.html", "text/html")),
        Route("/view.js", partial(_own, "view.js", "text/javascript")),
        Route("/view.LICENSES.txt", partial(_own, "view.LICENSES.txt", "text/plain")),
        Route("/view.css", _style),
        Route("/mosaics", names),
        Route("/mosaics/{number:int}", described),
        Route("/mosaics/{number:int}/mosaic.tif", pixels),
        Route("/mosaics/{number:int}/uncertainty.tif", uncertainty),
        Route("/mosaics/{number:int}/coarse/{factor:int}/{row:int}/{col:int}", coarse),
    ]
    guards = [Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)]
    return Starlette(routes=routes, middleware=guards, exception_handlers={RsupError: _said})


def _own(name: str, kind: str, _: Request) -> Response:
    return Response(files(__package__).joinpath(name).read_bytes(), media_type=kind)


def _style(_: Request) -> Response:
    own = files(__package__).joinpath("view.css").read_text(encoding="utf-8")
    return Response(f"{look()}\n{own}", media_type="text/css")


def _said(_: Request, error: Exception) -> Response:
    """A mosaic that cannot be shown, in the sentence that the terminal would have."""
    return PlainTextResponse(printable(public_text(str(error))), 500)


class _Headers:
    """Adds HEADERS to whatever is answered, refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, guarded)
