"""Deploy by Serve's declarative REST API, and follow it until everything runs or something failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serve.errors import ParleyError

PATH = "/api/serve/applications/"


@dataclass(frozen=True, slots=True)
class Application:
    """One application as Serve reports it.

    Attributes:
        name: Of the application.
        status: Serve's word: DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED.
        message: What Serve says about it.
        replicas: How many replicas run.
        logs: Log files of its replicas, inside the session's log folder.
    """

    name: str
    status: str
    message: str
    replicas: int
    logs: tuple[str, ...] = ()


class Serve:
    """Serve's REST API at the Ray dashboard.

    Args:
        dashboard: Address of the dashboard.
    """

    def __init__(self, dashboard: str) -> None:
        self._http = httpx.Client(base_url=dashboard, timeout=60, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def put(self, schema: dict[str, Any]) -> None:
        """Deploy a configuration; returns when Serve has taken it up.

        Raises:
            ParleyError: Serve refused it.
        """
        response = self._http.put(PATH, json=schema)
        if response.is_error:
            lines = [line for line in response.text.strip().splitlines() if line.strip()]
            raise ParleyError(f"Serve refused the deployment: {lines[-1] if lines else response.status_code}")

    def applications(self) -> dict[str, Application]:
        """Return all applications by name.

        Raises:
            ParleyError: The dashboard does not answer.
        """
        return {name: _application(name, details) for name, details in self._get().items()}

    def details(self) -> dict[str, Any]:
        """Return all that Serve says of each application.

        Raises:
            ParleyError: The dashboard does not answer.
        """
        return self._get()

    def configs(self) -> dict[str, dict[str, Any]]:
        """Return what was deployed, by application.

        Raises:
            ParleyError: The dashboard does not answer.
        """
        return {name: details.get("deployed_app_config") or {} for name, details in self._get().items()}

    def _get(self) -> dict[str, Any]:
        try:
            response = self._http.get(PATH)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise ParleyError(f"the Ray dashboard does not answer ({type(error).__name__})") from None
        return response.json()["applications"]


def _application(name: str, details: dict[str, Any]) -> Application:
    replicas = [
        replica for deployment in details["deployments"].values() for replica in deployment.get("replicas") or ()
    ]
    messages = [details.get("message") or ""]
    messages += [deployment.get("message") or "" for deployment in details["deployments"].values()]
    return Application(
        name=name,
        status=details["status"],
        message=next((message for message in messages if message), ""),
        replicas=sum(replica["state"] == "RUNNING" for replica in replicas),
        logs=tuple(replica["log_file_path"] for replica in replicas if replica.get("log_file_path")),
    )


def follow(
    serve: Serve,
    expected: list[str],
    logs: Path,
    say: Callable[[dict[str, Application]], None],
    check: Callable[[], None] = lambda: None,
    timeout: float = 180.0,
) -> dict[str, Application]:
    """Wait until every application runs.

    Args:
        serve: The API.
        expected: Names of the applications that were deployed.
        logs: Ray's log folder, for the lines that say why something failed.
        say: Told the state whenever it changes.
        check: Raises to give up waiting.
        timeout: Seconds for everything.

    Raises:
        ParleyError: One failed, or time is up; with its message and the last lines of its log.
    """
    deadline, before = time.monotonic() + timeout, dict[str, Application]()
    while True:
        check()
        now = {name: app for name, app in serve.applications().items() if name in expected}
        if now != before:
            say(now)
            before = now
        failed = [app for app in now.values() if app.status in {"DEPLOY_FAILED", "UNHEALTHY"}]
        if failed:
            raise ParleyError("\n".join(explain(app, logs) for app in failed))
        if len(now) == len(expected) and all(app.status == "RUNNING" for app in now.values()):
            return now
        if time.monotonic() > deadline:
            late = [name for name in expected if name not in now or now[name].status != "RUNNING"]
            details = "\n".join(explain(now[name], logs) for name in late if name in now)
            raise ParleyError(f"not running after {timeout:.0f} s: {', '.join(late)}\n{details}")
        time.sleep(0.15)  # Serve has no event for this


def explain(application: Application, logs: Path) -> str:
    """Say what happened to an application, with the last lines of the log that matters."""
    lines = [f"{application.name}: {application.status}: {_essence(application.message)}"]
    found = [logs / name.lstrip("/") for name in application.logs]
    found += sorted(
        (*logs.glob(f"serve/replica_{application.name}_*.log"), *logs.glob(f"serve/*build_{application.name}_*.log")),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    log = next((path for path in found if path.is_file() and path.stat().st_size), None)
    if log:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        lines += [f"  last lines of {log}:", *(f"    {line[:300]}" for line in tail)]
    lines.append("  `parley doctor` says what is missing on this machine")
    return "\n".join(lines)


def _essence(message: str) -> str:
    """Take the error out of a message that may be a traceback."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    errors = [line for line in lines if not line.startswith(("File ", "Traceback", "^", "~"))]
    return lines[0] if len(lines) == 1 else f"{lines[0]} … {errors[-1] if errors else lines[-1]}"
