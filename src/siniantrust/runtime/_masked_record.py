"""What a masked part did, for the record of a run."""

from __future__ import annotations

from siniantrust.runtime._masked_stage import MaskedStage
from siniantrust.runtime._record import MaskedRecord


def measure_masked(stage: MaskedStage) -> MaskedRecord:
    """Return what the masked part did so far, for one item."""
    status = stage.status()
    meter, items, prepared = status.meter, max(status.meter.queries, 1), max(status.meter.prepared, 1)
    return MaskedRecord(
        part=stage.name,
        devices=stage.masking.devices,
        layers=len(stage.masking.layers),
        items=meter.queries,
        sent_bytes=meter.sent_bytes / items,
        received_bytes=meter.received_bytes / items,
        mask_s=meter.mask_s / items,
        unmask_s=meter.unmask_s / items,
        verify_s=meter.verify_s / items,
        inside_s=meter.segment_s / items,
        device_s=stage.device_s / items,
        prepare_s=meter.prepare_s / prepared,
        refill_per_s=prepared / meter.prepare_s if meter.prepare_s else 0.0,
        stock_level=status.stock_level,
        stock_bytes=stage.stock_bytes,
        ran_dry=meter.ran_dry,
        refused=meter.refused,
        quarantined=dict(stage.quarantined),
        quantised=stage.quantised,
    )
