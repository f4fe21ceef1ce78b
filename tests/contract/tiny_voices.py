"""Voices of a few hundred bytes that drive the real piper and kokoro: a tone as long as the phonemes are many.

The tone is between two stretches of silence, as speech is. Its pitch follows the phonemes.
"""

from __future__ import annotations

import atexit
import functools
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PIPER_RATE, KOKORO_RATE = 22050, 24000
SLOW_PHONEMES = 400
"""A slow voice takes minutes for a sentence of more phonemes than this."""

_SILENCE_SECONDS = 0.2
_PIPER_SECONDS, _KOKORO_SECONDS = 0.03, 0.055
"""Length of a phoneme; piper's are counted with the padding between them."""
_SPEAKER_HZ = 100
_STYLES, _STYLE = 510, 256

_PHONEMES = (
    " !'(),-.:;?abcdefhijklmnopqrstuvwxyzæçðøħŋœǀǁǂǃɐɑɒɓɔɕɖɗɘəɚɛɜɞɟɠɡɢɣɤɥɦɧɨɪɫɬɭɮɯɰɱɲɳɴɵɶɸɹɺɻɽɾʀʁʂʃʄʈʉʊʋʌʍʎʏʐʑʒʔʕʘʙʛʜ"
    'ʝʟʡʢʲˈˌːˑ˞βθχᵻⱱ0123456789̧̪̯̩̃ʰˤε↓#"↑̺̻gʦX̝̊ɝʷ'
)
"""What espeak-ng writes, a code point each."""


@functools.cache
def folder() -> Path:
    """Return a folder that goes with this process."""
    path = Path(tempfile.mkdtemp(prefix="tiny-voices-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def piper(name: str = "en_US-tiny-low", *, language: str = "en-us", speakers: int = 1, slow: bool = False) -> Path:
    """Return the .onnx of a voice of piper; its .onnx.json is beside it."""
    graph = _Graph()
    graph.input("input", TensorProto.INT64, [1, "phonemes"])
    graph.input("input_lengths", TensorProto.INT64, [1])
    graph.input("scales", TensorProto.FLOAT, [3])
    pitch = graph.add("ReduceMean", graph.cast("input"), keepdims=0)
    if speakers > 1:
        graph.input("sid", TensorProto.INT64, [1])
        pitch = graph.add("Add", pitch, graph.add("Mul", graph.cast("sid"), graph.floats(_SPEAKER_HZ)))
    scale = graph.add("Gather", "scales", graph.ints(1))
    seconds = graph.add("Mul", graph.cast("input_lengths"), graph.add("Mul", scale, graph.floats(_PIPER_SECONDS)))
    if slow:
        seconds = graph.add("Add", seconds, graph.burn("input_lengths"))
    graph.tone(seconds, pitch, PIPER_RATE, [1, 1, 1, -1])
    path = graph.save(folder() / f"{name}.onnx")
    ids = {phoneme: [number] for number, phoneme in enumerate(["_", "^", "$", *_PHONEMES])}
    config: dict[str, Any] = {
        "audio": {"sample_rate": PIPER_RATE, "quality": "low"},
        "espeak": {"voice": language},
        "language": {"code": name.split("-")[0]},
        "phoneme_type": "espeak",
        "num_symbols": 256,
        "num_speakers": speakers,
        "speaker_id_map": {str(number): number for number in range(speakers)} if speakers > 1 else {},
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "phoneme_id_map": ids,
    }
    Path(f"{path}.json").write_text(json.dumps(config))
    return path


@functools.cache
def kokoro() -> tuple[Path, Path]:
    """Return the model of kokoro and the file of its voices."""
    graph = _Graph()
    graph.input("tokens", TensorProto.INT64, [1, "phonemes"])
    graph.input("style", TensorProto.FLOAT, [1, _STYLE])
    graph.input("speed", TensorProto.FLOAT, [1])
    tokens, style = (
        graph.add("ReduceMean", graph.cast("tokens"), keepdims=0),
        graph.add("ReduceMean", "style", keepdims=0),
    )
    pitch = graph.add("Add", tokens, style)
    count = graph.cast(graph.add("Size", "tokens"))
    seconds = graph.add("Div", graph.add("Mul", count, graph.floats(_KOKORO_SECONDS)), "speed")
    graph.tone(seconds, pitch, KOKORO_RATE, [-1])
    model, voices = graph.save(folder() / "kokoro-tiny.onnx"), folder() / "voices-tiny.bin"
    names = ("af_heart", "bm_lewis", "ff_siwis")
    styles: dict[str, Any] = {
        name: np.full((_STYLES, 1, _STYLE), 50 * number, np.float32) for number, name in enumerate(names)
    }
    with voices.open("wb") as file:
        np.savez(file, **styles)
    return model, voices


def piper_options() -> dict[str, Any]:
    """Return options of the engine piper."""
    return {"voice": str(piper()), "voices": {"de": str(piper("de_DE-tiny-low", language="de"))}}


def kokoro_options() -> dict[str, Any]:
    """Return options of the engine kokoro."""
    model, voices = kokoro()
    return {"model": str(model), "voices": str(voices)}


class _Graph:
    """An ONNX graph that grows node by node; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._constants: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, kind: int, shape: list[Any]) -> None:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def floats(self, *values: float) -> str:
        return self._constant(np.array(values, np.float32))

    def ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def cast(self, name: str, to: int = TensorProto.FLOAT) -> str:
        return self.add("Cast", name, to=to)

    def tone(self, seconds: str, hertz: str, rate: int, shape: list[int]) -> None:
        """The output: silence, a tone of so many seconds, silence."""
        count = self.cast(self.add("Mul", seconds, self.floats(rate)), TensorProto.INT64)
        scalar = self.add("Squeeze", count)
        numbers = self.add("Range", self._constant(np.array(0)), scalar, self._constant(np.array(1)))
        base = self.add("Add", self.add("Squeeze", hertz), self.floats(150.0))
        angle = self.add("Mul", base, self.floats(2 * math.pi / rate))
        wave = self.add("Sin", self.add("Mul", self.cast(numbers), angle))
        quiet = self._constant(np.zeros(round(_SILENCE_SECONDS * rate), np.float32))
        whole = self.add("Concat", quiet, self.add("Mul", wave, self.floats(0.5)), quiet, axis=0)
        self.nodes.append(helper.make_node("Reshape", [whole, self.ints(*shape)], ["output"]))
        sizes = ["samples" if size < 0 else size for size in shape]
        self._outputs.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, sizes))

    def burn(self, lengths: str) -> str:
        """Zero, after minutes of work where there are many phonemes."""
        many = self.cast(self.add("Greater", lengths, self.ints(SLOW_PHONEMES)), TensorProto.INT64)
        trips = self.add("Squeeze", self.add("Mul", many, self.ints(1_000_000)))
        matrix = helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [400, 400])
        product = helper.make_tensor_value_info("product", TensorProto.FLOAT, [400, 400])
        step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
        going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
        goes = helper.make_tensor_value_info("goes", TensorProto.BOOL, [])
        nodes = [
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ]
        body = helper.make_graph(nodes, "burn", [step, going, matrix], [goes, product])
        zeros = self._constant(np.zeros((400, 400), np.float32))
        burnt = self.add("Loop", trips, self._constant(np.array(True)), zeros, body=body)
        return self.add("ReduceMax", burnt, keepdims=0)

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(self.nodes, path.stem, self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
