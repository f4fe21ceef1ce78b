"""People sign in with an issuer of OpenID Connect: authorization code with PKCE, checked by authlib."""

from __future__ import annotations

from typing import Any, cast

import httpx2  # what authlib speaks
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.starlette_client import OAuth
from fastapi import Request
from joserfc.errors import JoseError
from pydantic import Field, model_validator
from sqlalchemy import select
from starlette.responses import Response

from api.access.audit import SYSTEM
from api.access.scopes import Role
from api.auth import is_loopback
from api.db import Database
from api.db.tables import AuditEntry, Person, Tenant
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.problems import Problem
from serve.config import Strict
from serve.settings import settings

ANSWER_SECONDS = 10.0
"""Of the issuer, for each of its answers."""

LEEWAY_SECONDS = 60
"""That clocks may differ by."""

Claims = dict[str, Any]


class OidcConfig(Strict):
    """An issuer that people sign in with; its secret for this application is OIDC_CLIENT_SECRET in the environment."""

    issuer: str = Field(
        pattern=r"^https?://[^\s?#]+$",
        description="As it names itself; Entra ID: https://login.microsoftonline.com/<directory id>/v2.0",
    )
    client_id: str = Field(min_length=1, description="Of this application, at the issuer")
    scope: str = Field(default="openid profile email", pattern=r"\bopenid\b")
    role_claim: str = Field(default="roles", description="Claim that says what somebody may do: a word or a list")
    roles: dict[str, Role] = Field(
        default_factory=dict[str, Role], description="Value of that claim -> role; the most powerful one counts"
    )
    default_role: Role | None = Field(default=None, description="Without such a value; null: not let in")
    tenant_claim: str | None = Field(default=None, description="Claim that says whose people they are, as tid")
    tenants: dict[str, str] = Field(
        default_factory=dict[str, str], description="Value of that claim -> id of the tenant; others are not let in"
    )

    @model_validator(mode="after")
    def _safe(self) -> OidcConfig:
        address = httpx2.URL(self.issuer)
        if address.scheme != "https" and not is_loopback(address.host):
            raise ValueError("issuer must begin with https://")
        if not self.roles and self.default_role is None:
            raise ValueError("nobody would be let in: set roles or default_role")
        return self


class Issuer:
    """What the application asks of the issuer, and what it makes of the answers.

    Args:
        config: Of the profile.
    """

    def __init__(self, config: OidcConfig) -> None:
        self._config = config
        secret = settings().oidc_client_secret
        oauth: Any = OAuth()
        self._app: Any = oauth.register(
            "issuer",
            server_metadata_url=config.issuer.rstrip("/") + "/.well-known/openid-configuration",
            client_id=config.client_id,
            client_secret=secret.get_secret_value() if secret else None,
            client_kwargs={
                "scope": config.scope,
                "code_challenge_method": "S256",
                "timeout": ANSWER_SECONDS,
                "trust_env": False,
            },
        )

    async def ask(self, request: Request, back: str) -> Response:
        """Return the redirect to the issuer; what must fit its answer is kept in the request's session.

        Raises:
            Problem: 503: the issuer does not answer, or not as one.
        """
        try:
            await self._check()
            return cast(Response, await self._app.authorize_redirect(request, back))
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            raise _away(error) from None

    async def claims(self, request: Request) -> Claims:
        """Return who came back: the checked claims of the ID token.

        Signature (the issuer's keys are fetched anew when a token names one that is not known), issuer, audience,
        expiry and nonce are checked by authlib.

        Raises:
            Problem: 401: what came back is not right; 503: the issuer does not answer.
        """
        try:
            await self._check()
            token: Claims = await self._app.authorize_access_token(
                request,
                leeway=LEEWAY_SECONDS,
                claims_options={"iss": {"essential": True, "value": self._config.issuer}},
            )
        except (OAuthError, JoseError) as error:
            raise Problem(
                401, "Not signed in", f"The issuer's answer is not right ({_named(error)}); try again"
            ) from None
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            raise _away(error) from None
        claims = cast("Claims | None", token.get("userinfo"))
        if not claims:
            raise Problem(401, "Not signed in", "The issuer sent no ID token; allow the scope openid there")
        return dict(claims)

    async def welcome(self, claims: Claims, database: Database) -> Person:
        """Return the person that claims are of, as the database has them from now on.

        Raises:
            Problem: 403: they have no role here, belong to no tenant here, or were disabled.
        """
        role, tenant = self._role(claims), self._tenant(claims)
        async with database.system() as session:
            known = select(Person).where(Person.issuer == self._config.issuer, Person.subject == str(claims["sub"]))
            person = (await session.scalars(known)).one_or_none()
            before = person.role if person else None
            if person is None:
                if await session.get(Tenant, tenant) is None:
                    raise Problem(
                        403, "Not allowed", f"The tenant {tenant} is not here; `parley tenants add` makes one"
                    )
                person = Person(issuer=self._config.issuer, subject=str(claims["sub"]), tenant_id=tenant)
                session.add(person)
            if person.disabled_at is not None:
                raise Problem(403, "Not allowed", "You were disabled here; ask an owner")
            if person.tenant_id != tenant:
                raise Problem(403, "Not allowed", "You belong to another tenant now; ask an owner to remove you there")
            person.name = str(claims.get("name") or "")[:200]
            person.email = str(claims.get("email") or claims.get("preferred_username") or "")[:320]
            person.role, person.seen_at = role, now()
            if role != before:
                await session.flush()
                told = {"role": role} | ({"role_before": before} if before else {})
                action = "person.change" if before else "person.create"
                entry = AuditEntry(tenant_id=tenant, actor=SYSTEM, action=action, target=person.id, detail=told)
                session.add(entry)
            await session.commit()
            return person

    def _role(self, claims: Claims) -> Role:
        given = claims.get(self._config.role_claim)
        values = cast("list[Any]", given) if isinstance(given, list) else [given]
        found = {self._config.roles[each] for each in values if isinstance(each, str) and each in self._config.roles}
        for role in ("owner", "engineer", "operator", "viewer"):
            if role in found:
                return role
        if self._config.default_role is None:
            raise Problem(403, "Not allowed", "You have no role here; ask whoever gives roles at your issuer")
        return self._config.default_role

    def _tenant(self, claims: Claims) -> str:
        if self._config.tenant_claim is None:
            return DEFAULT_TENANT
        tenant = self._config.tenants.get(str(claims.get(self._config.tenant_claim)))
        if tenant is None:
            raise Problem(403, "Not allowed", "Your organisation has no tenant here")
        return tenant

    async def _check(self) -> None:
        """Discovery must tell of the issuer that the profile names (OpenID Connect Discovery 1.0, 4.3)."""
        metadata: Claims = await self._app.load_server_metadata()
        if metadata.get("issuer") != self._config.issuer:
            raise ValueError("another issuer's document")


def _away(error: Exception) -> Problem:
    return Problem(
        503,
        "No sign-in",
        f"The issuer does not answer as one ({_named(error)}); try again",
        headers={"retry-after": "5"},
    )


def _named(error: Exception) -> str:
    """Name an error without its words, which may hold what somebody sent."""
    return getattr(error, "error", None) or type(error).__name__
