"""Where webhooks never go, however the address is written and whatever a name says a moment later."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import httpx
import pytest

from api.webhooks.addresses import CheckedTransport, Refused, check_address, check_url

pytestmark = pytest.mark.unit

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "fc00::1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:db8::1",
]
NEVER = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "168.63.129.16",
    "fd00:ec2::254",
    "fe80::1",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
]


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
def test_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Refused):
        check_address(ipaddress.ip_address(address), allow_private=False)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_is_refused_whatever_is_allowed(address: str) -> None:
    with pytest.raises(Refused):
        check_address(ipaddress.ip_address(address), allow_private=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_what_is_public_is_fine(address: str) -> None:
    check_address(ipaddress.ip_address(address), allow_private=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1"])
def test_private_addresses_where_they_are_allowed(address: str) -> None:
    check_address(ipaddress.ip_address(address), allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "https://name:word@example.com/",
        "https://name@example.com/",
        "https://example.com/#part",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "nothing",
        "",
        "https://exa mple.com",
        "https://example.com:99999/",
    ],
)
def test_urls_that_are_refused_before_anyone_is_asked(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, allow_private=False)


class Recorded(httpx.AsyncBaseTransport):
    """Keeps what would be connected to."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.fails: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.host in self.fails:
            raise httpx.ConnectError("no")
        return httpx.Response(204)


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names have these addresses, one list after another; returns what was asked."""
    asked: list[str] = []

    async def getaddrinfo(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[len(asked) - 1]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


async def post(transport: httpx.AsyncBaseTransport, url: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        return await http.post(url, content=b"{}")


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, ["93.184.216.34"])
    inner = Recorded()
    await post(CheckedTransport(False, inner), "https://hooks.example.com:8443/in?x=1")
    request = inner.asked[0]
    assert asked == ["hooks.example.com"]
    assert str(request.url) == "https://93.184.216.34:8443/in?x=1"
    assert request.headers["host"] == "hooks.example.com:8443"
    assert request.extensions["sni_hostname"] == "hooks.example.com"


async def test_a_name_that_leads_inside_is_refused_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ["93.184.216.34"], ["10.0.0.7"], ["93.184.216.34", "127.0.0.1"])
    inner = Recorded()
    transport = CheckedTransport(False, inner)
    await post(transport, "https://rebinds.example.com/")
    for _ in range(2):
        with pytest.raises(Refused):
            await post(transport, "https://rebinds.example.com/")
    assert len(inner.asked) == 1


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "localhost"])
async def test_other_ways_to_write_loopback_are_seen_through(host: str) -> None:
    inner = Recorded()
    with pytest.raises((Refused, httpx.ConnectError, httpx.InvalidURL)):
        await post(CheckedTransport(False, inner), f"https://{host}/")
    assert inner.asked == []


async def test_the_next_address_is_tried_where_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ["93.184.216.34", "93.184.216.35"])
    inner = Recorded()
    inner.fails = {"93.184.216.34"}
    answer = await post(CheckedTransport(False, inner), "https://hooks.example.com/")
    assert answer.status_code == 204
    assert [request.url.host for request in inner.asked] == ["93.184.216.34", "93.184.216.35"]


async def test_a_name_without_an_address_is_an_error_of_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror("nobody")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with pytest.raises(httpx.ConnectError):
        await post(CheckedTransport(False, Recorded()), "https://nobody.example.com/")
