"""The files of the status page, as answers.

They hold nothing of this daemon and are anybody's to read: what the page shows it asks for by itself, with
the token where there is one. They are read as this module is loaded, like the code beside them: behind the
jail there are no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from culvert.admin.request import Request, Response

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


def _load() -> Mapping[str, Response]:
    folder = Path(__file__).parent / "page"
    return {
        path: Response(HTTPStatus.OK, (folder / name).read_bytes(), content_type, _HEADERS)
        for path, (name, content_type) in _FILES.items()
    }


PAGE = _load()
"""What is answered at each path of the page."""


async def page(request: Request) -> Response:
    """The file at a path of `PAGE`."""
    return PAGE[request.path]
