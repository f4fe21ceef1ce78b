"""A fake issuer of OpenID Connect on loopback: it vouches for whomever the test says, with keys that can be changed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "parley-console"


class FakeIssuer:
    """Signs what it is told.

    Attributes:
        url: Of the issuer.
        claims: What the next token says, over what is right.
        codes: Authorization requests, by the code that answers them.
        signs: With this key; it publishes those in `keys`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.signs = self.new_key("first")
        self.keys = [self.signs]
        self.asked: list[dict[str, str]] = []

    @staticmethod
    def new_key(name: str) -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"}, private=True)

    def agree(self, location: str) -> dict[str, str]:
        """Do what a person does at the issuer; return the parameters that the browser comes back with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        def discovery() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }

        @app.get("/keys")
        def keys() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            return {"keys": [key.as_dict(private=False) for key in self.keys]}

        @app.post("/token")
        async def token(request: Request) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
            form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            self.asked.append(form)
            asked = self.codes.pop(form["code"], None)
            if asked is None:
                return JSONResponse({"error": "invalid_grant"}, 400)
            now = int(time.time())
            claims = {
                "iss": self.url,
                "aud": CLIENT,
                "sub": "ada",
                "name": "Ada",
                "email": "ada@example.org",
                "iat": now,
                "exp": now + 300,
                "nonce": asked["nonce"],
                "roles": ["parley-owner"],
                **self.claims,
            }
            header = {"alg": "RS256", "kid": self.signs.kid}
            signed = jwt.encode(header, claims, self.signs)
            return JSONResponse({"access_token": "at", "token_type": "Bearer", "id_token": signed})

        return app


@asynccontextmanager
async def fake_issuer() -> AsyncGenerator[FakeIssuer]:
    """Yield an issuer that listens."""
    import asyncio

    issuer = FakeIssuer()
    server = uvicorn.Server(uvicorn.Config(issuer.app(), host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # uvicorn tells no event of it
        port = server.servers[0].sockets[0].getsockname()[1]
        issuer.url = f"http://127.0.0.1:{port}"
        yield issuer
    finally:
        server.should_exit = True
        await serving
