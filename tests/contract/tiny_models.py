"""Recognisers of a few hundred kilobytes that drive the real libraries: what they hear is decided by the audio.

Nobody could say what the words mean, but the same audio always gives the same ones, and other audio others.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cluster.bench import random_whisper

_MELS, _WIDTH, _SUBSAMPLING = 80, 32, 8
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


@functools.cache
def folder() -> Path:
    """Return a folder that goes with this process."""
    path = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def whisper(words: int | None = 3) -> Path:
    """Return a Whisper of one narrow layer; None: it never ends by itself."""
    size = random_whisper.Size(layers=1, width=64, vocabulary=2200)
    return random_whisper.make(folder() / f"whisper-{words}", size, words=words)


@functools.cache
def parakeet() -> Path:
    """Return a CTC recogniser of one convolution, in the shape of NeMo's exports: a syllable or none every 80 ms."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random, count = np.random.default_rng(0), len(_SYLLABLES) + 1
    weights = {
        "filters": random.standard_normal((_WIDTH, _MELS, _SUBSAMPLING)) * (_MELS * _SUBSAMPLING) ** -0.5,
        "output": random.standard_normal((_WIDTH, count)) * 4.0,
        "nothing": np.eye(count)[-1] * 4.0,
    }
    nodes = [
        helper.make_node(
            "Conv", ["audio_signal", "filters"], ["frames"], strides=[_SUBSAMPLING], pads=[0, _SUBSAMPLING - 1]
        ),
        helper.make_node("Transpose", ["frames"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "output"], ["matched"]),
        helper.make_node("Add", ["matched", "nothing"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["logprobs"], axis=-1),
    ]
    inputs = [
        helper.make_tensor_value_info("audio_signal", TensorProto.FLOAT, ["batch", _MELS, "length"]),
        helper.make_tensor_value_info("length", TensorProto.INT64, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info("logprobs", TensorProto.FLOAT, ["batch", "frames", count])]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "parakeet", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path = folder() / "parakeet"
    path.mkdir()
    onnx.save(model, str(path / "model.onnx"))
    (path / "vocab.txt").write_text(
        "".join(f"▁{text} {n}\n" for n, text in enumerate(_SYLLABLES)) + f"<blk> {count - 1}\n"
    )
    config = {"model_type": "nemo-conformer-ctc", "features_size": _MELS, "subsampling_factor": _SUBSAMPLING}
    (path / "config.json").write_text(json.dumps(config))
    return path


def whisper_options() -> dict[str, Any]:
    """Return options of the engine faster-whisper."""
    return {"model": str(whisper()), "device": "cpu"}


def parakeet_options() -> dict[str, Any]:
    """Return options of the engine onnx-asr."""
    return {"model": str(parakeet())}
