"""What is thrown away later is not computed: pooling and strides move towards the input."""

from __future__ import annotations

import onnx

from siniantrust.graph import Model
from siniantrust.masking.restructure._editor import Editor, attribute, set_attribute
from siniantrust.masking.restructure._pass import Pass, RestructureError, Rewritten, Subject

_POOLS = ("AveragePool", "MaxPool")
_BETWEEN = ("BatchNormalization", "Clip", "HardSwish", "Identity", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_SPATIAL = 2
_MOST = 64


def run(subject: Subject) -> Rewritten:
    """Move up to ``amount`` poolings or strides, those nearest to the cut first.

    A pooling, before or behind the cut, that follows a convolution before it through activations alone becomes the
    convolution's stride. Where all that reads what crosses skips positions, an average pooling before the cut skips
    them instead.
    """
    editor = Editor(subject.model, subject.cut)
    changes: list[str] = []
    tensor = subject.tensor
    for pool in [node for node in reversed(editor.nodes) if node.op_type in _POOLS]:
        convolution = _source(editor, subject.model, pool)
        if convolution is not None and len(changes) < round(subject.amount):
            strides = attribute(convolution, "strides", [1] * len(_steps(pool)))
            set_attribute(convolution, "strides", [a * b for a, b in zip(strides, _steps(pool), strict=True)])
            (gone,), (kept, *_) = pool.output, pool.input
            tensor = kept if tensor == gone else tensor
            editor.redirect(gone, kept)
            editor.replace(pool)
            changes.append(f"node '{pool.name}' is a stride of node '{convolution.name}'")
    if not changes:
        tensor, changes = _pool_before(editor, subject)
    return Rewritten(editor.finish(), tensor, tuple(changes))


def _steps(node: onnx.NodeProto) -> list[int]:
    return list(attribute(node, "strides", []))


def _source(editor: Editor, model: Model, pool: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the trusted convolution whose stride ``pool`` can become; None if there is none."""
    steps = _steps(pool)
    if editor.is_output(pool.output[0]) or len(pool.output) > 1:
        return None
    if not steps or list(attribute(pool, "kernel_shape", [])) != steps or any(attribute(pool, "pads", [])):
        return None
    value = pool.input[0]
    while True:
        maker = editor.maker(value)
        if maker is None or len(editor.readers(value)) != 1:
            return None
        if maker.op_type == "Conv":
            break
        if maker.op_type not in _BETWEEN:
            return None
        value = maker.input[0]
    # The strided convolution must end where the pooling did.
    pooled, full = model.tensors[pool.output[0]].shape, model.tensors[pool.input[0]].shape
    ends = [-(-size // step) for size, step in zip(full[_SPATIAL:], steps, strict=True)]
    fits = list(pooled[_SPATIAL:]) == ends and any(maker is node for node in editor.trusted)
    return maker if fits else None


def _pool_before(editor: Editor, subject: Subject) -> tuple[str, list[str]]:
    """Pool what crosses, and let its readers, which all skip positions, read every one."""
    readers = editor.readers(subject.tensor)
    steps = _steps(readers[0]) if readers else []
    alike = all(node.op_type == "Conv" and _steps(node) == steps for node in readers)
    maker = editor.maker(subject.tensor)
    shape = subject.model.tensors[subject.tensor].shape
    even = len(shape) == _SPATIAL + len(steps) and not any(
        size % step for size, step in zip(shape[_SPATIAL:], steps, strict=True)
    )
    if not steps or max(steps) == 1 or not alike or not even or maker is None:
        raise RestructureError(
            f"cut '{subject.cut.id}': no pooling follows a convolution before it, and what reads it does not skip "
            "positions, so that there is no stride to move"
        )
    pooled = editor.fresh(f"{subject.tensor}_pooled")
    pool = editor.make("AveragePool", [subject.tensor], pooled, kernel_shape=steps, strides=steps)
    editor.redirect(subject.tensor, pooled)
    editor.put_behind(maker, pool)
    for node in readers:
        set_attribute(node, "strides", [1] * len(steps))
    return pooled, [f"the stride of {', '.join(repr(node.name) for node in readers)} is a pooling before the cut"]


PASS = Pass(
    title="Earlier strides",
    source="Springenberg et al. 2015, Striving for simplicity: the all convolutional net",
    amount="most poolings to move, from the cut backwards",
    default=_MOST,
    lowest=1,
    highest=_MOST,
    run=run,
)
