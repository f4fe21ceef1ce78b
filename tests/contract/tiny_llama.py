"""A Llama of half a megabyte for vLLM: random, but it says only ASCII, and calls the tool `weather` when it has tools.

Its tokens are bytes. One dimension of every embedding makes printable ASCII likely. The words of a tool call are tokens
of their own, and each has a dimension that makes the next one certain; what starts them is the last token that the chat
template writes where there are tools. Everything else is as random weights have it.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'
_ADDED = ["<|im_start|>", "<|im_end|>", "<|call|>", "<tool_call>", f"\n{CALL}\n", "</tool_call>"]
_SPECIAL = 3
"""So many of the added tokens are not part of a text."""
_CHAIN = ["<|call|>", "<tool_call>", f"\n{CALL}\n", "</tool_call>", "<|im_end|>"]
_VOCABULARY, _HIDDEN, _MIDDLE, _LAYERS, _HEADS, _KEYS, _HEAD = 288, 128, 256, 2, 4, 2, 32
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if tools %}<|call|>{% endif %}{% endif %}"
)


@functools.cache
def folder() -> Path:
    """Return a folder that goes with this process."""
    path = Path(tempfile.mkdtemp(prefix="tiny-llama-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def options() -> dict[str, Any]:
    """Return options of the engine vllm; where it is not installed, no model is made."""
    if importlib.util.find_spec("vllm") is None:
        return {"model": "none"}
    return {
        "model": str(model()),
        "dtype": "float32",
        "max_model_len": 2048,
        "max_num_seqs": 4,
        "enforce_eager": True,
        "tool_parser": "hermes",
        "adapters": {"other": str(adapter())},
        "temperature": 0.0,
        "max_tokens": 12,
        "extra": {"block_size": 32, "kv_cache_memory_bytes": 64 * 2**20},
    }


@functools.cache
def model() -> Path:
    """Return the model's folder: configuration, weights, tokenizer with its chat template."""
    path = folder() / "model"
    path.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _VOCABULARY,
        "hidden_size": _HIDDEN,
        "intermediate_size": _MIDDLE,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KEYS,
        "head_dim": _HEAD,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": _id("<|im_start|>"),
        "eos_token_id": _id("<|im_end|>"),
        "dtype": "float32",
    }
    _json(path / "config.json", config)
    _json(path / "generation_config.json", {"eos_token_id": _id("<|im_end|>")})
    _json(path / "tokenizer.json", _tokenizer())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": _TEMPLATE}
    _json(path / "tokenizer_config.json", settings)
    _tensors(path / "model.safetensors", _weights())
    return path


@functools.cache
def adapter() -> Path:
    """Return the folder of a LoRA adapter that changes what the model says."""
    path = folder() / "adapter"
    path.mkdir()
    rank, modules = 8, {"q_proj": _HEADS * _HEAD, "v_proj": _KEYS * _HEAD}
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 16, "bias": "none"}
    _json(path / "adapter_config.json", config | {"target_modules": [*modules]})
    random, tensors = np.random.default_rng(2), dict[str, Any]()
    for layer in range(_LAYERS):
        for name, size in modules.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(0, 0.5, (rank, _HIDDEN))
            tensors[f"{prefix}.lora_B.weight"] = random.normal(0, 0.5, (size, rank))
    _tensors(path / "adapter_model.safetensors", tensors)
    return path


def _id(token: str) -> int:
    return 256 + _ADDED.index(token)


def _weights() -> dict[str, Any]:
    random = np.random.default_rng(1)
    embedding = random.normal(0, 1, (_VOCABULARY, _HIDDEN))
    head = random.normal(0, 0.3, (_VOCABULARY, _HIDDEN))
    embedding[:, 0], head[:, 0] = 4, -4
    # What the layers write must not look like one of these dimensions.
    embedding[:, 1 : len(_CHAIN)] = 0
    head[[byte for byte, _ in enumerate(_bytes()) if 32 <= byte < 127], 0] = 4
    for dimension, (token, following) in enumerate(itertools.pairwise(_CHAIN), start=1):
        embedding[_id(token)] = 0
        embedding[_id(token), dimension] = 60
        head[_id(following), dimension] = 20
    tensors: dict[str, Any] = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    tensors["model.norm.weight"] = np.ones(_HIDDEN)
    shapes = {
        "self_attn.q_proj": (_HEADS * _HEAD, _HIDDEN),
        "self_attn.k_proj": (_KEYS * _HEAD, _HIDDEN),
        "self_attn.v_proj": (_KEYS * _HEAD, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HEADS * _HEAD),
        "mlp.gate_proj": (_MIDDLE, _HIDDEN),
        "mlp.up_proj": (_MIDDLE, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _MIDDLE),
    }
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{name}.weight"] = np.ones(_HIDDEN)
        for name, shape in shapes.items():
            tensors[f"{prefix}.{name}.weight"] = random.normal(0, 0.1, shape)
            if shape[0] == _HIDDEN:
                tensors[f"{prefix}.{name}.weight"][: len(_CHAIN)] = 0
    return tensors


def _bytes() -> list[str]:
    """Return the character that stands for each byte in tokenizers that work on bytes (GPT-2's table)."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in range(256)]


def _tokenizer() -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": 256 + number, "content": content, "special": number < _SPECIAL, **flags}
        for number, content in enumerate(_ADDED)
    ]
    vocabulary = {character: byte for byte, character in enumerate(_bytes())}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": list[str]()},
    }


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value))


def _tensors(path: Path, tensors: dict[str, Any]) -> None:
    """Write safetensors: the length of a header, the header as JSON, and the numbers behind it."""
    header, blobs, offset = dict[str, Any](), list[bytes](), 0
    for name, values in tensors.items():
        blob = np.asarray(values, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
