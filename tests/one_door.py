"""Finds picture bytes in whatever leaves the program, and says which of them carry no mark."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
# PNG, JPEG and WebP in base64, as JSON and event streams carry them.
_BASE64 = re.compile(rb"(?:iVBORw0KGgo|/9j/|UklGR)[A-Za-z0-9+/=_-]{200,}")
_MARK = re.compile(rb"digitalsourcetype/(?:trainedA|compositeWithTrainedA)lgorithmicMedia")
# What the person gave is theirs and comes back as it is: their photos, in their own export.
OWN_PHOTOS = re.compile(r"/photos?/|/private/photos")


def pictures_in(body: bytes, name: str = "") -> Iterator[tuple[str, bytes]]:
    """Every picture in a body, by a name: itself, in base64, or in an archive."""
    if body.startswith(_BEGINNINGS) and (body[:4] != b"RIFF" or body[8:12] == b"WEBP"):
        yield name, body
    elif body.startswith(b"PK\3\4"):
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for member in archive.namelist():
                yield from pictures_in(archive.read(member), f"{name}/{member}")
    else:
        for found in _BASE64.findall(body):
            text = found.replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
            yield name, base64.b64decode(text + b"=" * (-len(text) % 4))


def unmarked_in(body: bytes, name: str = "") -> list[str]:
    """Names of the pictures in a body that do not say that a model made them."""
    return [
        place
        for place, picture in pictures_in(body, name)
        if not _MARK.search(picture) and not OWN_PHOTOS.search(place)
    ]


class Watched:
    """Around an application: remembers every answer that held an unmarked picture."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.unmarked: list[str] = []
        self.pictures_seen: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and look at its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()

        async def look(message: Message) -> None:
            if message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, look)
        place = f"{scope['method']} {scope['path']}"
        route = getattr(scope.get("route"), "path", scope["path"])
        if any(True for _ in pictures_in(bytes(body))):
            self.pictures_seen.add(f"{scope['method']} {route}")
        self.unmarked += unmarked_in(bytes(body), place)
