"""What test_worker.py puts into a child process."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from serve.errors import BadRequest, EngineMissing


class Hosted:
    def __init__(self, missing: bool = False) -> None:
        if missing:
            raise EngineMissing("install it")

    def echo(self, value: Any) -> Any:
        print("a C library prints what it likes")
        os.write(1, b"and past Python's buffers too\n")
        return value

    def modules(self) -> list[str]:
        return sorted({name.split(".")[0] for name in sys.modules})

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def refuse(self) -> None:
        raise BadRequest("audio", "too loud")

    def break_down(self) -> None:
        raise RuntimeError("the content of a conversation")

    def die(self) -> None:
        os._exit(3)

    def count(self, emit: Any, to: int, pause: float) -> None:
        for number in range(to):
            time.sleep(pause)
            if emit(number):
                return
