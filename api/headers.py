"""The headers that every answer carries: what a browser may do with it, and how many requests are left."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EVERY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "permissions-policy": "microphone=(self), camera=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_YEAR = 365 * 24 * 3600

_ANSWER = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Nothing that the API answers is a page, whatever its bytes look like."""

_DOCS = "/api/docs"
"""The one page among them, of the OpenAPI description."""

_API = ("/api/", "/v1/", "/health/")


def page_policy(*livekit: str) -> str:
    """Return the Content-Security-Policy of the page.

    Args:
        livekit: Addresses at which the page reaches LiveKit: a socket, and over HTTP where the socket does not open.
    """
    places = dict.fromkeys(place for address in livekit for place in _places(address))
    return "; ".join(
        (
            "default-src 'self'",
            "script-src 'self'",
            # Widths of stages and levels are set on elements.
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "media-src 'self' blob: data:",
            "worker-src 'self' blob:",
            " ".join(("connect-src 'self'", *places)),
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


class Headers:
    """Adds them.

    Args:
        app: The application behind it.
        local: The server answers to loopback alone, without TLS.
        livekit: Addresses at which the page reaches LiveKit.
    """

    def __init__(self, app: ASGIApp, local: bool, livekit: tuple[str, ...] = ()) -> None:
        self._app = app
        self._page = page_policy(*livekit)
        self._every = dict(_EVERY)
        if not local:
            self._every["strict-transport-security"] = f"max-age={_YEAR}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, adding headers to the answer's start."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # One for all that stand behind: who asks, and their rate, are known further in.
        state = scope.setdefault("state", {})
        path: str = scope["path"]
        api = path.startswith(_API)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._every)
                policy = _ANSWER if api and path != _DOCS else self._page
                headers.setdefault("content-security-policy", policy)
                if api:
                    # Answers are for who asked, and some hold what is shown once.
                    headers.setdefault("cache-control", "no-store")
                if (rate := state.get("rate")) is not None:
                    headers.update(rate.headers())
            await send(message)

        await self._app(scope, receive, with_headers)


def _places(address: str) -> list[str]:
    parts = urlsplit(address)
    secure = parts.scheme in ("wss", "https")
    return [f"{scheme}://{parts.netloc}" for scheme in (("wss", "https") if secure else ("ws", "http"))]
