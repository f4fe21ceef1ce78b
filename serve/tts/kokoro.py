"""Kokoro: 82 million parameters and the most natural of the small voices; needs some processors, or a GPU."""

from __future__ import annotations

import asyncio
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field

from serve.tts.hosted import HostedOptions, HostedSpeech, local

_WHAT = "kokoro needs kokoro-v1.0.onnx and voices-v1.0.bin (https://huggingface.co/fastrtc/kokoro-onnx)"


class Options(HostedOptions):
    """Options of kokoro.

    Attributes:
        model: Path of the .onnx file, or an hf:// reference to it.
        voices: Path of the voices' file, or an hf:// reference to it.
        voice: The default; the first letter of a name is its language, the second f or m.
        language: As espeak-ng names it, for all voices; None: each voice's own.
        threads: Of one process.
        cuda: On a GPU, by onnxruntime-gpu.
    """

    model: str = "hf://fastrtc/kokoro-onnx/kokoro-v1.0.onnx"
    voices: str = "hf://fastrtc/kokoro-onnx/voices-v1.0.bin"
    voice: str = "af_heart"
    language: str | None = None
    threads: int = Field(default=4, ge=1)
    cuda: bool = False


class Kokoro(HostedSpeech):
    """Speaks; a clause or sentence at a time, in a child process."""

    Options = Options
    child = "serve.tts.kokoro_child:Speaking"
    piece = 200

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = options
        self._scratch: TemporaryDirectory[str] | None = None

    def arguments(self) -> dict[str, Any]:
        """Find the files."""
        self._scratch = TemporaryDirectory(prefix="parley-kokoro-", ignore_cleanup_errors=True)
        return {
            "scratch": self._scratch.name,
            "model": str(local(self._options.model, _WHAT)),
            "voices": str(local(self._options.voices, _WHAT)),
            **self._options.model_dump(include={"voice", "language", "threads", "cuda"}),
        }

    async def close(self) -> None:
        """End the processes, and remove what they leave behind because they are ended."""
        await super().close()
        if self._scratch is not None:
            await asyncio.to_thread(self._scratch.cleanup)
