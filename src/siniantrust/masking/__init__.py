"""Masks over what crosses a cut, as rewrites of the ONNX graph: what audits a mask is what runs it.

A mask is one file in ``masks``. Some are defences, some are negative examples that a strong attacker must see through,
and some are references that hide everything and leave the model no answer; a mask says which it is.

Fresh noise is drawn by the runtime that runs the model, with a generator that is not meant for cryptography. ONNX
Runtime's has one seed for all sessions of a process: two sessions that start there draw the same numbers. That serves
to measure a mask in one session; a deployment that relies on noise must draw it from the operating system.
"""

from siniantrust.masking._find_cut import find_cut
from siniantrust.masking._registry import Mask, MaskError, list_masks
from siniantrust.masking._rewrite import apply_mask
from siniantrust.masking._site import Site

__all__ = ["Mask", "MaskError", "Site", "apply_mask", "find_cut", "list_masks"]
