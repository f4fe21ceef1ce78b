"""vLLM inside this process: its engine (v1) and its own chat layer, which knows the models' templates and tool calls.

The engine computes in processes of its own; what runs here is tokenising and parsing. What is used of vLLM are the
parts that its own server is made of: `AsyncLLM`, `init_app_state` and `OpenAIServingChat` (0.30 and later).
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import importlib
import json
import os
import secrets
import time
from argparse import Namespace
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

from pydantic import Field, ValidationError

from serve.config import Strict
from serve.contracts import Capabilities, ChatChunk, ChatRequest, Usage
from serve.errors import BadRequest, ConfigError, ContextExceeded, EngineFailed, EngineMissing, Overloaded, ParleyError
from serve.hub import local_path
from serve.llm.toolcalls import ToolCalls

_ENVIRONMENT = {
    # It would tell its makers what machine and model this is.
    "VLLM_NO_USAGE_STATS": "1",
    # A fork would take the threads of Ray and gRPC along, half alive.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
_ABORT_SECONDS = 1.0
_REFUSED = "vLLM or the model's chat template does not take this"
_FINISHES = ("stop", "length", "tool_calls")
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM has kernels for."""


class Options(Strict):
    """Options of vLLM.

    Attributes:
        model: A folder, a reference to the hub (hf://owner/repo), or a name that vLLM fetches itself.
        dtype: Of weights and activations; auto: as the model says.
        max_model_len: Tokens of one conversation, prompt and answer; None: as the model says.
        gpu_memory_utilization: Share of the GPU's memory that weights and cache may take; None: vLLM's own (0.92).
            Models that share a GPU share this too.
        quantization: How the weights are packed, where the model does not say.
        enforce_eager: No CUDA graphs: starts sooner, answers more slowly.
        max_num_seqs: Conversations answered in one batch; None: vLLM's own.
        tensor_parallel: GPUs that one replica spreads each layer over.
        executor: How it starts what runs on the GPUs: processes here (mp), or actors in the replica's placement group
            (ray) where they are on several machines; None: vLLM chooses.
        adapters: LoRA adapters by the name that a request asks for; folders or references to the hub.
        tool_parser: How this model writes tool calls (hermes, llama3_json, ...); None: it calls no tools.
        reasoning_parser: How this model marks what it thinks; that is left out of the answer.
        thinking: Let models that can think before they answer do so; a voice would be silent meanwhile.
        chat_template: A Jinja file; None: the model's own.
        temperature: Randomness, where the request does not say; None: the model's own.
        top_p: Likelier words that are considered, by their summed probability; None: the model's own.
        max_tokens: Of an answer, where the request does not say.
        extra: Other arguments of vLLM's engine (AsyncEngineArgs), by their names.
    """

    model: str
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"
    max_model_len: int | None = Field(default=None, ge=16)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    quantization: str | None = None
    enforce_eager: bool = False
    max_num_seqs: int | None = Field(default=None, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    executor: Literal["mp", "ray"] | None = None
    adapters: dict[str, str] = Field(default_factory=dict)
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    thinking: bool = False
    chat_template: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)


class VLLM:
    """Answers with any model that vLLM knows; conversations share what they have in common (prefix cache)."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._engine: Any = None
        self._chat: Any = None
        self._request: Any = None

    @property
    def capabilities(self) -> Capabilities:
        """Reads ahead by its prefix cache; calls tools where a parser is named; sees pictures where the model does."""
        return Capabilities(
            streaming=True,
            prefill=True,
            tools=self._options.tool_parser is not None,
            structured=True,
            images=self._engine is not None and self._engine.model_config.is_multimodal_model,
            continues=True,
        )

    async def load(self) -> None:
        """Start the engine's processes, which read the weights, and the chat layer before them.

        Raises:
            ConfigError: vLLM does not take an option.
            EngineMissing: vLLM or the model is not there.
            EngineFailed: The engine's processes did not start, for lack of memory for instance.
        """
        self._engine, arguments = await asyncio.to_thread(self._load)
        try:
            state = SimpleNamespace()
            tasks = await self._engine.get_supported_tasks()
            await _part("entrypoints.launchers.api_server.app_state").init_app_state(
                self._engine, state, arguments, tasks
            )
        except Exception as error:  # vLLM raises whatever its parts do
            await self.close()
            raise ConfigError(f"vLLM does not serve {self._options.model} so: {_first_line(error)}") from None
        self._chat = state.openai_serving_chat
        self._request = _part("entrypoints.openai.chat_completion.protocol").ChatCompletionRequest
        if self._chat is None:
            await self.close()
            raise ConfigError(f"{self._options.model} writes no text")

    async def close(self) -> None:
        """End the engine's processes."""
        engine, self._engine, self._chat = self._engine, None, None
        if engine is None:
            return
        if engine.output_handler is not None:
            # It would take the end for a breakdown, and say so at length.
            engine.output_handler.cancel()
        await asyncio.to_thread(engine.shutdown)

    async def check(self) -> None:
        """Raise once the engine's processes are gone: no request will succeed here again."""
        if self._engine is None or self._engine.errored:
            raise EngineFailed("vLLM's engine has died")

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message."""
        began = time.perf_counter()
        calls = ToolCalls()
        finish, usage = "stop", Usage()
        answers = self._answers(request, request.max_tokens or self._options.max_tokens)
        try:
            async for answer in answers:
                if answer.get("usage"):
                    usage = _usage(answer["usage"])
                for choice in answer["choices"]:
                    finish = choice.get("finish_reason") or finish
                    delta = choice["delta"]
                    calls.add(delta.get("tool_calls") or [])
                    if delta.get("content"):
                        yield ChatChunk(text=delta["content"])
        finally:
            await answers.aclose()
        if calls:
            yield ChatChunk(tool_calls=calls.whole())
        usage = dataclasses.replace(usage, busy_seconds=time.perf_counter() - began)
        yield ChatChunk(finish_reason=cast("Any", finish if finish in _FINISHES else "stop"), usage=usage)

    async def prefill(self, request: ChatRequest) -> None:
        """Read the prompt into the prefix cache; vLLM has no reading without writing, so it writes one token."""
        answers = self._answers(request, 1)
        try:
            async for _ in answers:
                pass
        finally:
            await answers.aclose()

    async def _answers(self, request: ChatRequest, max_tokens: int) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chat layer's chunks, in OpenAI's form; errors become ours. Ends the work when it is closed."""
        engine, chat = self._engine, self._chat
        if chat is None:
            raise EngineFailed("vLLM is not loaded")
        identity = secrets.token_hex(8)
        lines: Any = None
        # Whatever names no field: at first the template's, later what only the engine looks at.
        field, done = "messages", False
        try:
            lines = await chat.create_chat_completion(self._request(**self._body(request, max_tokens, identity)))
            if not hasattr(lines, "aclose"):
                raise _error(lines.error, field)
            field = "messages" if request.response_format is None else "response_format"
            async for line in lines:
                # Lines of server-sent events: the chat layer knows no other form of streaming.
                data = cast("str", line).removeprefix("data: ")
                if data.startswith("[DONE]"):
                    break
                answer = json.loads(data)
                if "error" in answer:
                    raise _error(SimpleNamespace(**answer["error"]), field)
                yield answer
            done = True
        except ParleyError:
            raise
        except ValidationError as error:
            raise _invalid(error) from None
        except Exception as error:  # vLLM itself translates these
            raise _error(chat.create_error_response(error).error, field) from None
        finally:
            if not (done or engine.errored):
                # Closing the layers between takes turns of the loop; the engine is told first.
                async with asyncio.timeout(_ABORT_SECONDS):
                    await engine.abort(f"chatcmpl-{identity}")
            if lines is not None and hasattr(lines, "aclose"):
                await lines.aclose()

    def _body(self, request: ChatRequest, max_tokens: int, identity: str) -> dict[str, Any]:
        if not request.messages:
            raise BadRequest("messages", "must not be empty")
        options, adapters = self._options, sorted(self._options.adapters)
        if request.adapter is not None and request.adapter not in adapters:
            raise BadRequest("adapter", f"no adapter of this name; there are {', '.join(adapters) or 'none'}")
        _refuse_addresses(request.messages)
        begun = [{"role": "assistant", "content": request.so_far}] if request.so_far else []
        body = {
            "request_id": identity,
            "messages": [*request.messages, *begun],
            "continue_final_message": bool(begun),
            "add_generation_prompt": not begun,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": max_tokens,
            "model": request.adapter,
            "temperature": options.temperature if request.temperature is None else request.temperature,
            "top_p": options.top_p if request.top_p is None else request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
            "response_format": request.response_format,
        }
        if request.tools and options.tool_parser is not None:
            body |= {"tools": list(request.tools), "tool_choice": request.tool_choice or "auto"}
        return {name: value for name, value in body.items() if value is not None}

    def _load(self) -> tuple[Any, Namespace]:
        """Return the engine, and the arguments that vLLM's server would have been given."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            arguments = _part("engine.arg_utils").AsyncEngineArgs
        except ImportError as error:
            if error.name != "vllm":
                raise EngineMissing(f"vllm is installed, but cannot be imported: {_first_line(error)}") from None
            raise EngineMissing("vllm is not installed: `uv pip install 'parley[vllm]'`") from None
        options = self._options
        adapters = {name: local_path(path) for name, path in options.adapters.items()}
        parsers = _part("tool_parsers").ToolParserManager.list_registered()
        if options.tool_parser not in (None, *parsers):
            raise ConfigError(f"option 'tool_parser': choose one of {', '.join(parsers)}")
        try:
            engine_arguments = arguments(**self._arguments(arguments, adapters))
            config = engine_arguments.create_engine_config()
        except (ValueError, TypeError) as error:
            raise ConfigError(f"vLLM does not take the options of {options.model}: {_first_line(error)}") from None
        except OSError as error:
            raise EngineMissing(f"vLLM finds no model at {options.model}: {_first_line(error)}") from None
        module = _part("entrypoints.openai.models.protocol").LoRAModulePath
        frontend = _part("entrypoints.launchers.cli_args").FrontendArgs(
            lora_modules=[module(name=name, path=str(path)) for name, path in adapters.items()] or None,
            chat_template=options.chat_template,
            enable_auto_tool_choice=options.tool_parser is not None,
            tool_call_parser=options.tool_parser,
            enable_prompt_tokens_details=True,
            default_chat_template_kwargs={"enable_thinking": options.thinking},
        )
        try:
            engine = _part("v1.engine.async_llm").AsyncLLM.from_vllm_config(config, disable_log_stats=True)
        except Exception as error:  # the same: no common class
            raise EngineFailed(f"vLLM does not start with {options.model}: {_first_line(error)}") from None
        return engine, Namespace(**(vars(frontend) | vars(engine_arguments)))

    def _arguments(self, arguments: Any, adapters: dict[str, Path]) -> dict[str, Any]:
        """Return what the engine is told: our options under its names, then the extra ones."""
        options = self._options
        ours: dict[str, Any] = {
            "model": str(local_path(options.model)),
            "dtype": options.dtype,
            "max_model_len": options.max_model_len,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "quantization": options.quantization,
            "enforce_eager": options.enforce_eager,
            "max_num_seqs": options.max_num_seqs,
            "tensor_parallel_size": options.tensor_parallel,
            "distributed_executor_backend": options.executor,
            "reasoning_parser": options.reasoning_parser,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if adapters:
            rank = max(_rank(name, path) for name, path in adapters.items())
            lora = {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": rank}
            ours |= {name: value for name, value in lora.items() if name not in options.extra}
        names = {field.name for field in dataclasses.fields(arguments)} - {*ours} | {"max_loras", "max_lora_rank"}
        for name in options.extra:
            if name in ours:
                raise ConfigError(f"option 'extra': {name!r} has an option of its own")
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                guess = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"option 'extra': vLLM's engine has no argument {name!r}{guess}")
        return {name: value for name, value in ours.items() if value is not None} | options.extra


def _part(name: str) -> Any:
    """Import a module of vLLM, which need not be installed where this file is checked."""
    return cast("Any", importlib.import_module(f"vllm.{name}"))


def _refuse_addresses(messages: list[dict[str, Any]]) -> None:
    """Refuse pictures that are elsewhere: vLLM would fetch any address, also of this network."""
    for message in messages:
        content: Any = message.get("content")
        for part in cast("list[Any]", content) if isinstance(content, list) else ():
            # vLLM goes by the keys where a part names no type.
            for key, value in cast("dict[str, Any]", part).items() if isinstance(part, dict) else ():
                url: Any = cast("dict[str, Any]", value).get("url") if isinstance(value, dict) else value
                if key.endswith("_url") and not str(url).startswith("data:"):
                    raise BadRequest("messages", "pictures come inside the message (data:image/...;base64,...)")


def _rank(name: str, path: Path) -> int:
    try:
        rank = int(json.loads((path / "adapter_config.json").read_text())["r"])
        return min(each for each in _RANKS if each >= rank)
    except (OSError, ValueError, KeyError, TypeError):
        raise EngineMissing(f"adapter {name!r}: no LoRA adapter of a rank up to {_RANKS[-1]} at {path}") from None


def _first_line(error: Exception) -> str:
    """Return what an error of loading says; it quotes options, never a conversation."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A pydantic error's first line only counts the problems.
    text = lines[-1] if lines and "validation error" in lines[0] and len(lines) < 3 else " ".join(lines[:3])
    return f"{type(error).__name__}: {text[:400]}"


def _usage(counts: dict[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=counts.get("prompt_tokens", 0),
        cached_tokens=(counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        completion_tokens=counts.get("completion_tokens") or 0,
    )


def _invalid(error: ValidationError) -> BadRequest:
    """Say what the chat layer does not take; of messages only that, for its words may quote them."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(problem["loc"][0]) if problem["loc"] else "messages"
    return BadRequest(field, _REFUSED if field == "messages" else problem["msg"][:200])


def _error(error: Any, otherwise: str) -> ParleyError:
    """Translate by the chat layer's own status and field; its message may quote the request."""
    field, code = str(error.param or otherwise), int(error.code)
    field = "max_tokens" if field == "max_completion_tokens" else field
    if field in ("input_tokens", "input_text"):
        return ContextExceeded("messages", "longer than the model can read (option max_model_len)")
    if code in (429, 503):
        return Overloaded("vLLM takes no more requests for now")
    if 400 <= code < 500 or code == 501:
        return BadRequest(field, _REFUSED)
    return EngineFailed(f"vLLM answered {code} ({error.type})")
