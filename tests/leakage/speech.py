"""Real speech for tests: espeak-ng says pairs of digits with many voices, and a small network listens."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SPEAKER = shutil.which("espeak-ng")
RATE = 8000
SAMPLES = 6400
WORDS = ("one", "two", "three", "four", "five", "six")


@cache
def spoken(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``count`` sounds, float32 (count, 1, SAMPLES) at 8 kHz, and the two words that each of them says."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 2)) for _ in range(count)]
    sounds = np.zeros((count, 1, SAMPLES), np.float32)
    for sound, text in zip(sounds, texts, strict=True):
        said = _said(
            text, f"en+{rng.choice(['m1', 'm3', 'f2', 'f4'])}", int(rng.integers(30, 70)), int(rng.integers(190, 230))
        )
        start = int(rng.integers(0, 400))
        heard = said[: SAMPLES - start]
        sound[0, start : start + len(heard)] = heard
    return sounds, np.array(texts)


def _said(text: str, voice: str, pitch: int, words_a_minute: int) -> np.ndarray:
    """Return one utterance at 8 kHz, its loudest sample at 1."""
    from scipy.signal import resample_poly

    command = [str(SPEAKER), "-v", voice, "-p", str(pitch), "-s", str(words_a_minute), "--stdout", text]
    spoken_wave = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    with wave.open(io.BytesIO(spoken_wave)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(-1), np.int16)
    slow: np.ndarray = resample_poly(samples.astype(np.float64), RATE, rate)
    loud = np.flatnonzero(np.abs(slow) > 0.02 * np.abs(slow).max())
    heard: np.ndarray = slow[loud[0] : loud[-1] + 1] / np.abs(slow).max()
    return heard


def listening_network() -> onnx.ModelProto:
    """Return an untrained network on sounds: two strided convolutions over the wave, a mean over time, and classes."""
    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.normal(0, float(np.prod(shape[1:])) ** -0.5, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["wave", "w1"], ["c1"], name="conv1", strides=[8], pads=[12, 12]),
        helper.make_node("Relu", ["c1"], ["early"], name="relu1"),
        helper.make_node("Conv", ["early", "w2"], ["c2"], name="conv2", strides=[8], pads=[4, 4]),
        helper.make_node("Relu", ["c2"], ["late"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["late"], ["mean"], name="pool"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3"], ["y"], name="dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "listening",
        [helper.make_tensor_value_info("wave", TensorProto.FLOAT, ["n", 1, SAMPLES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weight("w1", 8, 1, 32), weight("w2", 24, 8, 16), weight("w3", 4, 24)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
