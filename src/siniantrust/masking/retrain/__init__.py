"""Re-training: accuracy that a mask or a smaller trusted part cost is won back, in the ONNX graph itself."""

from siniantrust.masking.retrain._penalty import Penalty, TrainedPenalty
from siniantrust.masking.retrain._recipe import Mode, Recipe, RetrainError
from siniantrust.masking.retrain._record import Epoch, Training, write_training
from siniantrust.masking.retrain._retrain import Retrained, retrain

__all__ = [
    "Epoch",
    "Mode",
    "Penalty",
    "Recipe",
    "RetrainError",
    "Retrained",
    "TrainedPenalty",
    "Training",
    "retrain",
    "write_training",
]
