"""What synthesisers on ONNX Runtime share in their child process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from importlib import import_module
from pathlib import Path
from typing import Any

from serve.contracts import SAMPLE_WIDTH
from serve.errors import EngineMissing

_ASK_SECONDS = 0.03
_CHUNK_SECONDS = 0.1
_FATAL = 4


class Stopped(Exception):
    """Nobody listens any more."""


class Session:
    """An `onnxruntime.InferenceSession` whose runs are given up when nobody listens any more.

    Args:
        path: The ONNX file.
        threads: That one run uses; no more than the machine has.
        cuda: On a GPU.

    Attributes:
        emit: Asked in a run whether somebody listens.
    """

    def __init__(self, path: str, threads: int, cuda: bool) -> None:
        runtime: Any = import_module("onnxruntime")
        providers = ["CUDAExecutionProvider"] if cuda else []
        if cuda and providers[0] not in runtime.get_available_providers():
            # It would take the CPU without a word.
            raise EngineMissing("this ONNX Runtime has no CUDA: `uv pip install onnxruntime-gpu`, without onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
        # Threads that wait for work at full speed take it from the calls beside.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(path, options, [*providers, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            raise EngineMissing(f"{Path(path).name} is no model that loads ({type(error).__name__})") from None
        self._new_run: Callable[[], Any] = runtime.RunOptions
        self._thread = ThreadPoolExecutor(1)
        self.emit: Callable[[Any], bool] = lambda _: False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, inputs: Any) -> Any:
        """Run the model.

        Raises:
            Stopped: Nobody listens any more; the run has ended.
        """
        how = self._new_run()
        how.log_severity_level = _FATAL
        running = self._thread.submit(self._session.run, names, inputs, how)
        while not wait([running], _ASK_SECONDS).done:
            if self.emit(None):
                how.terminate = True
                wait([running])
                raise Stopped
        return running.result()


def quiet() -> None:
    """Let no library log what is said: their warnings name phonemes."""
    logging.disable(logging.WARNING)


def give(emit: Callable[[bytes], bool], audio: bytes, rate: int) -> bool:
    """Emit pcm16 mono in pieces of 100 ms; True: nobody listens any more."""
    step = SAMPLE_WIDTH * round(rate * _CHUNK_SECONDS)
    return any(emit(audio[start : start + step]) for start in range(0, len(audio), step))
