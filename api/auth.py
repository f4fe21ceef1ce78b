"""Who may use the API. Without keys it is this machine alone: loopback addresses, and pages served from them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import refusal


class LoopbackOnly:
    """Refuses requests whose Host or Origin is not loopback.

    A server that listens on loopback can still be reached by any web page that the same browser has open, by its own
    name (DNS rebinding) or across origins; the two headers tell.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 403 with the header at fault."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            for name, value in (("Host", f"//{headers.get('host', '')}"), ("Origin", headers.get("origin"))):
                if value is not None and not is_loopback(urlsplit(value).hostname):
                    problem = f"{name} must be loopback (localhost or 127.0.0.1)"
                    response = refusal(scope["path"], 403, "Not from here", problem, "not_loopback")
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    if not host:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
