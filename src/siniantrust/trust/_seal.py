"""Sealing a part: a skeleton that anyone may see, and its weights under AES-256-GCM.

Everything that is a number learned or chosen leaves the skeleton: initialisers (dense and sparse), the outputs of
``Constant`` nodes, and both inside the bodies of control-flow operators. What stays is the structure: operators, their
small attributes (strides, axes, epsilon) and the declared types and shapes of inputs, outputs and of what was taken out
(an enclave without an ONNX library needs them to prepare itself for the part).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import onnx

from siniantrust.graph import Part, feed_noise, take_prelude
from siniantrust.trust import _sealed
from siniantrust.trust._take_out import take_out


@dataclass(frozen=True, slots=True)
class SealedPart:
    """A part at rest. Both halves may lie on an untrusted disk; neither is of use without the key."""

    skeleton: bytes
    sealed: bytes


def seal_part(part: Part, *, key: bytes, context: bytes, prelude: bool = True) -> SealedPart:
    """Seal ``part`` under ``key`` (32 bytes), bound to ``context`` (what it is sealed for, for example a bundle's id).

    Its random operators become reserved inputs, which the enclave fills itself: the runtime inside it draws nothing.
    With ``prelude``, what the part makes of noise and constants alone is sealed beside its weights as a model of its
    own, which the enclave runs when it draws (``graph.take_prelude``, ``runs_prelude``).

    Raises:
        TrustError: if the key has another length, or the part holds numbers that cannot be taken out of it.
        ModelError: if a random operator cannot become an input.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(part.proto)
    feed_noise(skeleton, origin=f"part '{part.name}'")
    before = take_prelude(skeleton) if prelude else None
    weights = take_out(skeleton)
    if before is not None:
        weights.metadata_props.add(
            key=_sealed.PRELUDE_KEY, value=base64.b64encode(before.SerializeToString()).decode("ascii")
        )
    raw = skeleton.SerializeToString()
    sealed = _sealed.seal_bytes(weights.SerializeToString(), skeleton=raw, key=key, context=context)
    return SealedPart(raw, sealed)


def seal_program(head: bytes, body: bytes, *, key: bytes, context: bytes) -> SealedPart:
    """Seal the body of a program for an enclave (see ``masking.exact``) as ``seal_part`` seals weights.

    Raises:
        TrustError: if the key has another length.
    """
    return SealedPart(head, _sealed.seal_bytes(body, skeleton=head, key=key, context=context))


def unseal_part(skeleton: bytes, sealed: bytes, *, key: bytes, context: bytes) -> onnx.ModelProto:
    """Return the whole model again.

    Raises:
        TrustError: if key or context is another one, or a byte was changed.
    """
    weights = _sealed.open_in_place(memoryview(bytearray(sealed)), skeleton=skeleton, key=key, context=context)
    model = onnx.ModelProto()
    model.ParseFromString(skeleton)
    model.MergeFromString(bytes(weights))
    return model


def seal_file(plain: bytes, *, key: bytes, key_id: str) -> bytes:
    """Seal any bytes under ``key`` (32 bytes), in the form of sealed weights, bound to the key's name.

    Raises:
        TrustError: if the key has another length.
    """
    return _sealed.seal_bytes(plain, skeleton=b"", key=key, context=_file_context(key_id))


def unseal_file(sealed: bytes, *, key: bytes, key_id: str) -> bytes:
    """Return what ``seal_file`` sealed.

    Raises:
        TrustError: if key or name is another one, or a byte was changed.
    """
    opened = _sealed.open_in_place(memoryview(bytearray(sealed)), skeleton=b"", key=key, context=_file_context(key_id))
    return bytes(opened)


def _file_context(key_id: str) -> bytes:
    return f"siniantrust file {key_id}".encode()
