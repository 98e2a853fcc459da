"""What attacks are judged by and never see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from siniantrust.errors import AuditError
from siniantrust.leakage._estimates import estimates, mean_leakage
from siniantrust.leakage._metrics import Metric, Scores, identified, measure
from siniantrust.leakage._products import products
from siniantrust.leakage._registry import Answer, Guess, Identification, Transcription
from siniantrust.leakage._schema import Estimate
from siniantrust.leakage._targets import Kind
from siniantrust.leakage._transcripts import text_scores


@dataclass(frozen=True, slots=True)
class Judge:
    """The held-out inputs, their private labels and text if there are some, and the prior attacker's scores on them."""

    originals: np.ndarray = field(repr=False)
    prior: Mapping[Metric, Scores] = field(repr=False)
    kind: Kind
    seed: int
    attribute: np.ndarray | None = field(default=None, repr=False)
    transcript: np.ndarray | None = field(default=None, repr=False)

    def scores(self, answer: Answer) -> dict[Metric, Scores]:
        """Score an answer, item by item.

        Raises:
            AuditError: if the answer has another shape than asked for, or is not finite.
        """
        if isinstance(answer, Guess):
            if self.attribute is None or answer.attribute.shape != self.attribute.shape:
                raise AuditError(f"an attack guessed labels of shape {answer.attribute.shape}, which nobody asked for")
            return {"attribute": Scores((answer.attribute == self.attribute).astype(np.float64), perfect=1.0)}
        if isinstance(answer, Transcription):
            if self.transcript is None or len(answer.texts) != len(self.transcript):
                raise AuditError(f"an attack guessed {len(answer.texts)} texts, which nobody asked for")
            return text_scores(answer.texts, self.transcript.tolist())
        if isinstance(answer, Identification):
            if len(answer.answers) != len(self.originals) or not np.isfinite(answer.answers).all():
                raise AuditError(
                    f"an attack placed {len(answer.answers)} items, expected {len(self.originals)} finite ones"
                )
            flat = self.originals.reshape(len(self.originals), -1)
            places = products(flat - answer.centre, answer.matrix)
            return {"reidentification": Scores(identified(answer.answers, places, cosine=answer.cosine), perfect=1.0)}
        found, items = answer.heldout, len(answer.heldout)
        if not 0 < items <= len(self.originals) or found.shape[1:] != self.originals.shape[1:]:
            raise AuditError(f"an attack answered in shape {found.shape}, expected {self.originals.shape}")
        if not np.isfinite(found).all():
            raise AuditError("an attack answered with NaN or infinity")
        return measure(found, self.originals, self.kind)

    def means(self, scores: Mapping[Metric, Scores]) -> dict[str, float]:
        """Return the mean leakage by metric."""
        return {str(metric): mean_leakage(values, self.prior[metric]) for metric, values in scores.items()}

    def leakage(self, scores: Mapping[Metric, Scores]) -> dict[str, Estimate]:
        """Return the leakage by metric, with bounds."""
        return estimates(scores, self.prior, seed=self.seed)
