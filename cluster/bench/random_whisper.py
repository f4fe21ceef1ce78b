"""Whisper models of random weights, in CTranslate2's format: as fast as trained ones of their size, and made here.

For benchmarks, since time depends on a model's size and on how many words it writes, not on what it has learned; and
for tests where no hub of models is in reach. The weights are random except for what makes it write in order: its words
fall into stages, a word of one stage is followed by one of the next, and the audio decides which. So different audio
gives different texts, the same audio always the same one, and the number of words is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MELS, FRAMES, POSITIONS = 80, 1500, 448
"""Whisper's: mel bands, frames that the encoder makes of 30 s, places of the decoder."""

_FIRST_WORD, _STAGES, _WORDS = 257, 3, 64
"""Id of the first word, stages of words, and words of each."""
_PULL, _HEARING = 60.0, 8.0
"""Logit that a stage gives to the next one's words, and the spread of those that the audio gives to each."""
_AUDIO = 0.3
"""Share of the audio in what the decoder's last layer sees, against the token before."""


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of a Whisper model; heads are 64 wide. Whisper's own vocabulary has 51865 tokens."""

    layers: int
    width: int
    vocabulary: int = 51_865


SIZES = {"tiny": Size(4, 384), "base": Size(6, 512), "small": Size(12, 768), "medium": Size(24, 1024)}
"""OpenAI's sizes (https://github.com/openai/whisper, model-card.md)."""


def make(folder: Path, size: Size, *, words: int | None = None, seed: int = 0) -> Path:
    """Write a multilingual model of random weights.

    Args:
        folder: Where to; made where it is not there.
        size: Its dimensions.
        words: Words of an utterance, up to three; None: it never ends by itself.
        seed: The same seed makes the same model.

    Returns:
        The folder, with all that faster-whisper reads.

    Raises:
        ModuleNotFoundError: faster-whisper's extra is not installed.
    """
    specs: Any = import_module("ctranslate2.specs")
    random = np.random.default_rng(seed)
    heads = size.width // 64
    spec: Any = specs.WhisperSpec(size.layers, heads, size.layers, heads)
    tokens = _tokens(size.vocabulary)
    _encoder(spec.encoder, size, random)
    _decoder(spec.decoder, size, tokens, words, random)
    spec.register_vocabulary(tokens)
    ids = {token: number for number, token in enumerate(tokens)}
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.lang_ids = [ids[token] for token in _languages()]
    spec.config.alignment_heads = [(size.layers - 1, head) for head in range(heads)]
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    _tokenizer(folder / "tokenizer.json", tokens)
    features = {"feature_size": MELS, "sampling_rate": 16_000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(features))
    return folder


def _languages() -> list[str]:
    codes: tuple[str, ...] = import_module("faster_whisper.tokenizer")._LANGUAGE_CODES
    return [f"<|{code}|>" for code in codes if code != "yue"]  # the hundredth came with large-v3


def _word(number: int) -> str:
    """Return a word that can be said, another one for each number."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    return "Ġ" + "".join(syllables[number // 70**place % 70] for place in range(3))


def _tokens(count: int) -> list[str]:
    """Return tokens: letters, words of our own, and Whisper's special ones, the last 1611."""
    letters: list[str] = sorted(import_module("tokenizers").pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", *_languages()]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>", *(f"<|{0.02 * step:.2f}|>" for step in range(FRAMES + 1))]
    # The empty token is CTranslate2's sign of a multilingual model.
    return [*letters, "", *(_word(number) for number in range(count - _FIRST_WORD - len(special))), *special]


def _tokenizer(path: Path, tokens: list[str]) -> None:
    library: Any = import_module("tokenizers")
    end = tokens.index("<|endoftext|>")
    vocabulary = {token: number for number, token in enumerate(tokens[:end])}
    made = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    made.add_special_tokens(tokens[end:])
    made.save(str(path))


def _normal(random: np.random.Generator, *shape: int, scale: float | None = None) -> Floats:
    return random.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5 if scale is None else scale)


def _norm(spec: Any, width: int) -> None:
    spec.gamma, spec.beta = np.ones(width, np.float32), np.zeros(width, np.float32)


def _linear(spec: Any, random: np.random.Generator, out: int, width: int, scale: float | None = None) -> None:
    spec.weight, spec.bias = _normal(random, out, width, scale=scale), np.zeros(out, np.float32)


def _layer(layer: Any, width: int, random: np.random.Generator) -> None:
    """Fill what encoder and decoder layers share: their outputs are small, so that what goes in comes through."""
    _norm(layer.self_attention.layer_norm, width)
    _linear(layer.self_attention.linear[0], random, 3 * width, width)
    _linear(layer.self_attention.linear[1], random, width, width, scale=0.1 * width**-0.5)
    _norm(layer.ffn.layer_norm, width)
    _linear(layer.ffn.linear_0, random, 4 * width, width)
    _linear(layer.ffn.linear_1, random, width, 4 * width, scale=0.1 * width**-0.5)


def _encoder(spec: Any, size: Size, random: np.random.Generator) -> None:
    for convolution, inputs in ((spec.conv1, MELS), (spec.conv2, size.width)):
        convolution.weight = _normal(random, size.width, inputs, 3, scale=(3 * inputs) ** -0.5)
        convolution.bias = np.zeros(size.width, np.float32)
    spec.position_encodings.encodings = _normal(random, FRAMES, size.width, scale=0.01)
    for layer in spec.layer:
        _layer(layer, size.width, random)
    _norm(spec.layer_norm, size.width)


def _decoder(spec: Any, size: Size, tokens: list[str], words: int | None, random: np.random.Generator) -> None:
    width = size.width
    spec.position_encodings.encodings = _normal(random, POSITIONS, width, scale=0.001)
    for layer in spec.layer:
        _layer(layer, width, random)
        _norm(layer.attention.layer_norm, width)
        # Keys that stand far apart: attention falls on few frames, so that they decide, and not the silence after.
        _linear(layer.attention.linear[0], random, width, width, scale=16.0 * width**-0.5)
        _linear(layer.attention.linear[1], random, 2 * width, width)
        _linear(layer.attention.linear[2], random, width, width, scale=_AUDIO * (size.layers * width) ** -0.5)
    _norm(spec.layer_norm, width)
    spec.embeddings.weight, spec.projection.weight = _order(tokens, words, width, random)


def _order(tokens: list[str], words: int | None, width: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Return embeddings and output weights by which each stage calls for the next, and the audio for a word of it."""
    ids = {token: number for number, token in enumerate(tokens)}
    end, times = ids["<|endoftext|>"], ids["<|0.00|>"]
    after = _FIRST_WORD + _STAGES * _WORDS
    starts = np.array([ids["<|transcribe|>"], ids["<|notimestamps|>"], *range(times, len(tokens))])
    stages = [starts, *(np.arange(_FIRST_WORD + stage, after, _STAGES) for stage in range(_STAGES))]
    directions = np.linalg.qr(_normal(random, width, len(stages)))[0].T.astype(np.float32)
    embeddings = _normal(random, len(tokens), width, scale=1.0)
    output = _normal(random, len(tokens), width, scale=0.02 * width**-0.5)
    for stage, members in enumerate(stages):
        embeddings[members] = directions[stage] * width**0.5 + _normal(random, len(members), width, scale=0.05)

    heard = np.array([*range(_FIRST_WORD, after), *(ids[token] for token in _languages())])
    weights = _normal(random, len(heard), width, scale=_HEARING / _AUDIO * width**-0.5)
    output[heard] += weights - weights @ directions.T @ directions  # the token before has no say in it
    last = _STAGES if words is None else words
    pull = directions * np.float32(_PULL * width**-0.5)
    for stage in range(last):
        output[stages[stage + 1]] += pull[stage]
    if words is None:
        output[stages[1]] += pull[last]
    else:
        output[end] += pull[last]
    output[times] += pull[0] / 2
    return embeddings, output
