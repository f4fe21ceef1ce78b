"""Where webhooks may go: no endpoint makes this server ask something that only this server can reach.

A name is resolved once for each request, all its addresses are checked, and the connection goes to an address that
was checked: a name that points elsewhere a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from functools import cache
from typing import Any

import httpx

RESOLVE_SECONDS = 5.0

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Public by its number, but the platform of the machine itself on Azure.
_METADATA = {ipaddress.ip_address("168.63.129.16"), ipaddress.ip_address("fd00:ec2::254")}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """An address that webhooks do not go to; says why, for the one who set the endpoint up."""


def check_url(url: str, allow_private: bool) -> None:
    """Refuse an endpoint's address where it can be told without asking anyone.

    Raises:
        Refused: It is no address of a web server, has credentials in it, or names what is never sent to.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise Refused("is no URL") from None
    schemes = ("https", "http") if allow_private else ("https",)
    if parsed.scheme not in schemes:
        raise Refused(f"must begin with {' or '.join(f'{each}://' for each in schemes)}")
    if not parsed.host:
        raise Refused("names no host")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise Refused("names a port that is none")
    if parsed.userinfo:
        raise Refused("may hold no name and password; receivers check the signature")
    if any(not 0x20 < ord(each) < 0x7F for each in url):
        raise Refused("may hold ASCII characters only, without spaces; write others as %XX or xn--")
    if parsed.fragment:
        raise Refused("may hold no fragment")
    try:
        literal = ipaddress.ip_address(parsed.host)
    except ValueError:
        return
    check_address(literal, allow_private)


def check_address(address: _Address, allow_private: bool) -> None:
    """Refuse an address by its number.

    Raises:
        Refused: It is of this machine, a private network, or a cloud's metadata service.
    """
    meant = _meant(address)
    if meant in _METADATA or meant.is_link_local or meant.is_multicast or meant.is_unspecified:
        raise Refused("leads to an address that webhooks never go to")
    if not allow_private and not meant.is_global:
        raise Refused("leads to a private address; api.webhooks.allow_private lets them")


async def resolve(host: str, port: int, allow_private: bool) -> list[str]:
    """Return a host's addresses, all checked.

    Raises:
        Refused: One of them is not for webhooks.
        OSError: The name has no address, or nobody says so in time.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(RESOLVE_SECONDS):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    addresses = [ipaddress.ip_address(each[4][0]) for each in found]
    for address in addresses:
        check_address(address, allow_private)
    return list(dict.fromkeys(str(address) for address in addresses))


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to checked addresses only; TLS and the Host header are of the name.

    Args:
        allow_private: This machine and private networks are fine.
        inner: Connects; httpx's own unless a test says otherwise.
    """

    def __init__(self, allow_private: bool, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._allow_private = allow_private
        # No connection is kept: kept ones are told apart by address, and one address serves many names.
        kept = httpx.Limits(max_keepalive_connections=0)
        self._inner = inner or httpx.AsyncHTTPTransport(verify=_tls(), limits=kept)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it to one of the host's addresses, the next where one does not answer.

        Raises:
            Refused: The address is not for webhooks.
            httpx.TransportError: As httpx's own transport; ConnectError where the name has no address.
        """
        check_url(str(request.url), self._allow_private)
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        host = request.url.raw_host.decode("ascii")
        try:
            addresses = await resolve(host, port, self._allow_private)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            raise httpx.ConnectError("the name has no address", request=request) from None
        extensions: dict[str, Any] = {**request.extensions, "sni_hostname": host}
        for last, address in ((each == addresses[-1], each) for each in addresses):
            there = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,  # Host is among them already, from the name
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return await self._inner.handle_async_request(there)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if last:
                    raise
        raise httpx.ConnectError("the name has no address", request=request)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


@cache
def _tls() -> ssl.SSLContext:
    """Made once: it reads every certificate authority. SSL_CERT_FILE names those of one's own."""
    return httpx.create_ssl_context()


def _meant(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
