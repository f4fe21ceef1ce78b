"""`make scan`: known faults of dependencies, where the services that know them answer, and ruff's security rules.

What could not be asked is said, and is no failure: a machine without a way out can still do the rest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.setup import WEB, npm_command

ROOT = Path(__file__).parents[1]
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one scan.

    Attributes:
        what: Was scanned.
        faults: That were found, a line each; None: nobody could be asked.
        why: Nobody could.
    """

    what: str
    faults: list[str] | None
    why: str = ""

    def __str__(self) -> str:
        if self.faults is None:
            return f"{self.what}: not scanned ({self.why})"
        return "\n  ".join([f"{self.what}: {len(self.faults) or 'nothing'} found", *self.faults])


def python() -> Result:
    """Ask OSV of every package that requirements.lock pins; nothing is installed or resolved for it."""
    asked = [
        "--vulnerability-service",
        "osv",
        "--disable-pip",
        "--require-hashes",
        "--requirement",
        "requirements.lock",
    ]
    quiet = ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    return python_faults(*_run([str(Path(sys.executable).parent / "pip-audit"), *asked, *quiet]))


def python_faults(out: str, errors: str) -> Result:
    """Return what pip-audit says."""
    answer = _json(out)
    if "dependencies" not in answer:
        return Result("Python packages", None, _last(errors))
    return Result(
        f"Python packages ({len(answer['dependencies'])})",
        [
            f"{each['name']} {each['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none'}"
            for each in answer["dependencies"]
            for fault in each.get("vulns", ())
        ],
    )


def page() -> Result:
    """Ask npm's registry of every package of the page."""
    command, environment = npm_command()
    return page_faults(*_run([*command, "audit", "--json", "--package-lock-only"], WEB, environment))


def page_faults(out: str, errors: str) -> Result:
    """Return what npm says."""
    answer = _json(out)
    if "vulnerabilities" not in answer:
        return Result("npm packages", None, _last(str(answer.get("message") or errors)))
    faults = [f"{name}: {each['severity']} ({each['range']})" for name, each in answer["vulnerabilities"].items()]
    return Result(f"npm packages ({answer['metadata']['dependencies']['total']})", faults)


def code() -> Result:
    """Check our own code by bandit's rules, as ruff has them; asserts are for those who read, and stay."""
    rules = ["--select", "S", "--ignore", "S101", "--output-format", "json"]
    ruff = [sys.executable, "-m", "ruff", "check", *rules, "serve", "agent", "api", "cluster"]
    out, errors = _run(ruff)
    try:
        found: list[Any] = json.loads(out)
    except ValueError:
        return Result("our code (bandit's rules)", None, _last(errors))
    faults = [f"{each['filename']}:{each['location']['row']}: {each['code']} {each['message']}" for each in found]
    return Result("our code (bandit's rules)", faults)


def main() -> int:
    """Scan all; return 1 where something was found."""
    results: list[Result] = []
    for scan in (code, python, page):
        results.append(scan())
        print(results[-1])
    return int(any(result.faults for result in results))


def _run(command: list[str], folder: Path = ROOT, environment: dict[str, str] | None = None) -> tuple[str, str]:
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{Path(command[0]).name} failed: {type(error).__name__}"
    return done.stdout, done.stderr


def _json(text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _last(errors: str) -> str:
    lines = errors.strip().splitlines()
    return lines[-1][:300] if lines else "no answer"


if __name__ == "__main__":
    sys.exit(main())
