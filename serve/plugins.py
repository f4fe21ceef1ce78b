"""Hosts a livekit-agents plugin as an engine: what the three roles share.

A plugin is a class of `livekit.agents.{stt,llm,tts}` that speaks to one provider. It is built from `arguments`; what a
request may ask for and the plugin only takes when it is built (`takes`: a voice, a pace) makes another instance, kept
for the next request of the kind. Tries, time-outs and the circuit are `serve.providers`' own: the plugin's are off.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from pydantic import Field, SecretStr, field_validator

from serve.errors import BadRequest, ConfigError, EngineFailed, EngineMissing, ParleyError, ProviderDown
from serve.providers import Caller, ProviderOptions, Refusal, Retries, key, retry_after

if TYPE_CHECKING:
    from livekit.agents import APIConnectOptions

P = TypeVar("P")
T = TypeVar("T")

_CLOSE_SECONDS = (0.25, 0.25, 1.0)
"""Until a plugin that does not let go of its stream is told again, and in the end left to itself."""
_ERROR_BYTES = 16_384
_SECRETS = {"api_key", "api_secret", "credentials", "credentials_info"}
_NAME = re.compile(r"[\w.+-]{1,128}")
_importing = threading.Lock()


class Closable(Protocol):
    """What a plugin opens: a stream, or the plugin itself."""

    async def aclose(self) -> None:
        """Let go at once."""
        ...


class PluginOptions(ProviderOptions):
    """Options of every plugin; an engine that is named after a provider brings most of them (`serve.catalog`).

    Attributes:
        plugin: `module:Class` of the plugin.
        extra: The extra of Parley that brings its package; for the message that says so.
        arguments: Of the class. Keys and other secrets are not among them: they come from the environment.
        variables: Environment variables that it needs; `key_env` stands for the first.
        key_argument: The argument that takes the value of the first; None: the plugin reads the variables by itself.
        ambient: The machine has credentials of its own (a role, a workload identity): no variable is asked for.
        takes: Fields of a request, and the arguments that take them; each value makes an instance of the plugin.
        environment: Variables for the provider's SDK, where they are not set.
        address: Of the provider, for the connection that is opened ahead of the first request; the argument `base_url`
            counts before it.
        instances: Most instances that are kept.
    """

    plugin: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    extra: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    variables: tuple[str, ...] = ()
    key_argument: str | None = "api_key"
    ambient: bool = False
    takes: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    address: str | None = None
    instances: int = Field(default=16, ge=1, le=256)

    def key_names(self) -> tuple[str, ...]:
        """Return the variables that must be set."""
        if self.ambient:
            return ()
        return (self.key_env, *self.variables[1:]) if self.key_env else self.variables

    @field_validator("arguments")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        if found := sorted(_SECRETS & set(value)):
            raise ValueError(f"{', '.join(found)}: secrets come from the environment; set key_env to a variable's name")
        return value


@dataclass(slots=True)
class _Instance(Generic[P]):
    """A plugin, and how many requests use it now."""

    plugin: P
    users: int = 0


class Hosted(Generic[P]):
    """A plugin class, loaded; `P` is its base in livekit-agents.

    Args:
        options: Of the engine.
        field: What the role sends, as our caller knows it: at fault where a provider finds fault with a request.
    """

    def __init__(self, options: PluginOptions, field: str) -> None:
        module, self.name = options.plugin.split(":")
        if module.startswith("livekit.plugins."):
            self.name = module.split(".")[2]
        self._options, self._field = options, field
        self.caller = Caller(self.name, options, self._meaning)
        # Of an utterance that is being spoken nothing can be sent again from here; the caller has its audio.
        once = options.model_copy(update={"retries": Retries(attempts=1)})
        self.single = Caller(self.name, once, self._meaning, circuit=self.caller.circuit)
        self._fixed: dict[str, Any] = {}
        self._instances: OrderedDict[tuple[tuple[str, Any], ...], _Instance[P]] = OrderedDict()
        self._context = contextvars.copy_context()
        self._closing = AsyncExitStack()
        self._class: Callable[..., P] | None = None
        self._http: Any = None

    async def load(self) -> P:
        """Import the class, check what it needs, and build the instance that most requests use.

        Raises:
            EngineMissing: A package or a variable is not there; the message names it.
            ConfigError: The class does not take its arguments.
        """
        found = self._key()
        for name, value in self._options.environment.items():
            os.environ.setdefault(name, value)
        self._class = await asyncio.to_thread(self._import)
        self._fixed = dict(self._options.arguments)
        if found is not None and self._options.key_argument:
            self._fixed[self._options.key_argument] = found.get_secret_value()
        session = await self._session()
        if "http_session" in inspect.signature(self._class).parameters:
            self._http = self._fixed["http_session"] = session
        try:
            plugin = self._build(self._class, {})
        except ImportError as error:
            await self.close()
            raise EngineMissing(f"{self._options.plugin} cannot be used here: {error}") from None
        except (TypeError, ValueError) as error:
            await self.close()
            raise ConfigError(f"{self._options.plugin} does not take its arguments: {error}") from None
        self._instances[()] = _Instance(plugin)
        return plugin

    async def warm(self) -> None:
        """Open the provider's connection, by the plugin's own way or by a request that is free of charge."""
        if self._http is not None:
            address, http = self._options.arguments.get("base_url") or self._options.address, self._http
            if address is not None:
                await self.caller.warm(lambda: http.head(address, raise_for_status=False))
        elif () in self._instances and (prewarm := getattr(self._instances[()].plugin, "prewarm", None)):
            # In the background, and no harm where it fails.
            self._context.run(prewarm)

    async def close(self) -> None:
        """Close all instances and their connections."""
        instances, self._instances = self._instances, OrderedDict()
        for instance in instances.values():
            await release(cast("Closable", instance.plugin))
        await asyncio.create_task(self._closing.aclose(), context=self._context)

    @asynccontextmanager
    async def instance(self, **asked: Any) -> AsyncGenerator[P]:
        """Lend the plugin that a request asks for.

        Args:
            asked: Fields of the request; those that no argument takes, and those that are None, do not count.

        Raises:
            BadRequest: The plugin does not take a value.
        """
        if self._class is None:
            raise EngineFailed(f"{self.name} is not loaded")
        taken = {field: value for field, value in asked.items() if value is not None and field in self._options.takes}
        wanted = {self._options.takes[field]: value for field, value in taken.items()}
        identity = tuple(sorted(wanted.items()))
        if identity not in self._instances:
            await self._make_room()
            try:
                self._instances[identity] = _Instance(self._build(self._class, wanted))
            except (TypeError, ValueError):
                raise BadRequest(" or ".join(taken), f"not accepted by {self.name}") from None
        self._instances.move_to_end(identity)
        instance = self._instances[identity]
        instance.users += 1
        try:
            yield instance.plugin
        finally:
            instance.users -= 1

    def within(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a plugin's method where it finds its HTTP session."""
        return self._context.run(function, *arguments, **named)

    def connect_options(self) -> APIConnectOptions:
        """Return the plugin's own bounds: none of its tries, and no time-out shorter than ours."""
        from livekit.agents import APIConnectOptions

        return APIConnectOptions(max_retry=0, timeout=self._options.timeouts.whole)

    def _key(self) -> SecretStr | None:
        """Return the key; every variable must be set."""
        variables, found = self._options.variables, None
        if self._options.ambient:
            return None
        if not variables and self._options.key_env:
            variables = (self._options.key_env,)
        for number, variable in enumerate(variables):
            own = self._options.key_env if number == 0 else None
            value = key(variable, own or variable)
            found = found or value
        return found

    def _build(self, kind: Callable[..., P], wanted: dict[str, Any]) -> P:
        plugin = kind(**{**self._fixed, **wanted})
        cast("Any", plugin).on("error", _keep_cause)
        return plugin

    def _import(self) -> Callable[..., P]:
        module, name = self._options.plugin.split(":")
        extra = self._options.extra
        from livekit.agents import Plugin

        with _importing:
            # Plugins enter themselves in a list when they are imported, and may do so in the main thread alone, where
            # a replica's loop is not. Nobody here reads the list.
            register = Plugin.register_plugin
            Plugin.register_plugin = lambda plugin: None
            try:
                return getattr(import_module(module), name)
            except (ImportError, AttributeError) as error:
                missing = error.name if isinstance(error, ModuleNotFoundError) else self._options.plugin
                how = f"`uv pip install 'parley[{extra}]'`" if extra else "install its package"
                raise EngineMissing(f"no {missing}: {how}") from None
            finally:
                Plugin.register_plugin = register

    async def _session(self) -> Any:
        """Return one HTTP session for all instances: its connections stay open from request to request.

        Plugins that take none find LiveKit's, on the same connections, in the context that they are called in.
        """
        import aiohttp
        from livekit.agents.utils import http_context

        opened = self._closing.enter_async_context(http_context.open())
        theirs = await asyncio.create_task(opened, context=self._context)
        # On LiveKit's connections, but refusals say what they are: some plugins do not look at the status.
        ours = aiohttp.ClientSession(
            connector=theirs.connector, connector_owner=False, raise_for_status=_raise_refusal, trust_env=True
        )
        return await self._closing.enter_async_context(ours)

    async def _make_room(self) -> None:
        idle = [identity for identity, instance in self._instances.items() if identity and not instance.users]
        for identity in idle[: max(0, len(self._instances) + 1 - self._options.instances)]:
            await release(cast("Closable", self._instances.pop(identity).plugin))

    def _meaning(self, error: Exception) -> Refusal | ParleyError | None:
        """Say what a plugin's exception means: by the status that the provider gave, wherever it is in the chain."""
        from livekit.agents import APIError

        chain = list(_chain(error))
        status = next((found for each in chain if (found := _status(each)) is not None), None)
        if status is not None:
            code = next((name for each in chain if (name := _code(each))), "")
            if status == 404:
                # A request names no address of the provider: what is not there is the profile's model or voice.
                code = "model_not_found"
            asked = next((wait for each in chain if (wait := retry_after(_headers(each))) is not None), None)
            return Refusal(status, code, self._field, asked)
        if isinstance(error, APIError | OSError | TimeoutError):
            return ProviderDown(f"{self.name} is away or broke off ({type(error).__name__})")
        return None


async def release(opened: Closable) -> None:
    """Close what a plugin opened, within a bound; that it fails at that is its own matter.

    `asyncio.wait_for` of Python 3.11 can lose a cancellation, and with it a plugin that is about to connect.
    """
    for seconds in _CLOSE_SECONDS:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with suppress(Exception):
                    await opened.aclose()
            return


def name(field: str, value: str | None) -> str | None:
    """Return a voice or language that may go into an address or a query.

    Raises:
        BadRequest: It is no name.
    """
    if value is not None and not _NAME.fullmatch(value):
        raise BadRequest(field, "only letters, digits, ., _, + and -")
    return value


def _keep_cause(event: Any) -> None:
    """Tie an error to what it was raised from, before LiveKit raises it again from somewhere else."""
    event.error.__cause__ = event.error.__cause__ or event.error.__context__


async def _raise_refusal(response: Any) -> None:
    """Raise for a refused request, with what the provider says of it in `body`."""
    import aiohttp

    if response.status < 400:
        return
    error = aiohttp.ClientResponseError(
        response.request_info, (), status=response.status, message="refused", headers=response.headers
    )
    with suppress(Exception):
        async with asyncio.timeout(1.0):
            cast("Any", error).body = json.loads(await response.content.read(_ERROR_BYTES))
    raise error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an SDK's exception has, under whichever name."""
    from aiohttp.http import HttpProcessingError

    of: Any = error
    if isinstance(error, HttpProcessingError):
        return None  # an answer that is no HTTP: aiohttp gives it a status of its own
    response = getattr(of, "response", None)
    places = [getattr(of, "status_code", None), getattr(of, "status", None), getattr(of, "code", None)]
    if isinstance(response, Mapping):
        places.append(_metadata(response).get("HTTPStatusCode"))
    return next((int(each) for each in places if isinstance(each, int) and 400 <= each < 600), None)


def _code(error: BaseException) -> str:
    """Return the provider's own name for a refusal, "" where there is none."""
    response = getattr(error, "response", None)
    bodies: list[Any] = [getattr(error, "body", None), getattr(error, "details", None), response]
    for body in bodies:
        if not isinstance(body, Mapping):
            continue
        of = cast("Mapping[str, Any]", body)
        places: list[Any] = [of]
        places += [of[part] for part in ("error", "Error", "detail") if isinstance(of.get(part), Mapping)]
        for place in reversed(places):
            for name in ("code", "Code", "err_code", "error_code", "status", "type"):
                if isinstance(place.get(name), str):
                    return str(place[name])
    return ""


def _headers(error: BaseException) -> Mapping[str, str]:
    """Return the answer's headers, with names in lower case."""
    response = getattr(error, "response", None)
    headers = getattr(error, "headers", None) or getattr(response, "headers", None)
    if isinstance(response, Mapping):
        headers = _metadata(response).get("HTTPHeaders")
    found: dict[Any, Any] = dict(headers or {})
    return {str(name).lower(): str(value) for name, value in found.items()}


def _metadata(response: Any) -> dict[str, Any]:
    """Return what botocore keeps beside an error."""
    return cast("dict[str, Any]", response.get("ResponseMetadata") or {})
