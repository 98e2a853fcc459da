"""Masks over what crosses a cut, as rewrites of the ONNX graph: what audits a mask is what runs it.

A mask is one file in ``masks``. Some are defences, some are negative examples that a strong attacker must see through,
and some are references that hide everything and leave the model no answer; a mask says which it is.

Fresh noise is a random operator of the graph. Where the trusted part runs in an enclave, the enclave fills it from
AES-256 in counter mode under a key that it draws itself (``graph.feed_noise``, ``trust.seal_part``); a model that runs
anywhere else gets its runtime's noise, which serves to measure a mask and not to hide anything.
"""

from siniantrust.masking._compose import MaskSpec, apply_masks, calibrate, parse_mask
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking._record import MaskRecord, fixed_constants, read_records
from siniantrust.masking._registry import Mask, Parameter, list_masks
from siniantrust.masking._rewrite import apply_mask
from siniantrust.masking._site import MaskError, Site

__all__ = [
    "Mask",
    "MaskError",
    "MaskRecord",
    "MaskSpec",
    "Parameter",
    "Site",
    "apply_mask",
    "apply_masks",
    "calibrate",
    "find_cut",
    "fixed_constants",
    "list_masks",
    "parse_mask",
    "read_records",
]
