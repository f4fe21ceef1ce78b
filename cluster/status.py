"""What runs now, as facts: the object that `parley status --json` prints."""

from __future__ import annotations

from typing import Any, cast

import httpx

from cluster import state
from cluster.deploy import Serve
from cluster.profile import Profile
from cluster.state import State
from serve.config import Routes
from serve.errors import ParleyError
from serve.settings import settings


def current() -> State:
    """Return the run that is up.

    Raises:
        ParleyError: None is.
    """
    found = state.load()
    if found is None:
        raise ParleyError("nothing is up here; start it with `parley up`")
    if not found.alive:
        raise ParleyError("the last `parley up` ended badly; `parley down` cleans up, `parley up` starts again")
    return found


def record(run: State, name: str, profile: Profile) -> None:
    """Note that the run has another profile now."""
    with state.lock():
        now = state.load()
        if now and now.run_id == run.run_id:
            now.profile, now.settings = name, profile.model_dump(mode="json")
            state.save(now)


def gather(run: State) -> dict[str, Any]:
    """Return addresses, models, routes and the number of calls.

    Args:
        run: The run that is up.

    Raises:
        ParleyError: The Ray dashboard does not answer.
    """
    serve = Serve(run.addresses.get("dashboard") or "")
    try:
        applications, configs = serve.applications(), serve.configs()
    finally:
        serve.close()
    models: list[dict[str, Any]] = []
    routes: dict[str, Any] = {}
    for name, config in configs.items():
        args = cast("dict[str, Any]", config.get("args") or {})
        if "model" in args:
            application = applications.get(name)
            models.append(
                {
                    "name": name,
                    "role": _role(args["model"]["engine"]),
                    "engine": args["model"]["engine"],
                    "status": application.status if application else "NOT_STARTED",
                    "replicas": application.replicas if application else 0,
                }
            )
        routes = _live_routes(config) or routes
    routes = {role: route["default"] for role, route in routes.items()}
    return {"addresses": run.addresses, "models": models, "routes": routes, "calls": _calls(run)}


def routes(run: State) -> Routes | None:
    """Return the routes that were deployed; None where nothing has any.

    Args:
        run: The run that is up.

    Raises:
        ParleyError: The Ray dashboard does not answer.
    """
    serve = Serve(run.addresses.get("dashboard") or "")
    try:
        found = [live for config in serve.configs().values() if (live := _live_routes(config))]
    finally:
        serve.close()
    return Routes.model_validate(found[0]) if found else None


def _role(engine: str) -> str:
    from serve import registry

    return registry.entry(engine).role


def _live_routes(config: dict[str, Any]) -> dict[str, Any]:
    for deployment in config.get("deployments") or ():
        settings = cast("dict[str, Any]", deployment.get("user_config") or {})
        if settings.get("routes"):
            return settings["routes"]
    return {}


def _calls(run: State) -> int | None:
    try:
        # Where `api.local` is off, it is asked with a key of the environment.
        key = settings().parley_api_keys.get_secret_value().split(",")[0].strip()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        response = httpx.get(f"{run.addresses['api']}/api/v1/status", headers=headers, timeout=5, trust_env=False)
        response.raise_for_status()
        return int(response.json()["calls"])
    except (httpx.HTTPError, KeyError, ValueError):
        return None
