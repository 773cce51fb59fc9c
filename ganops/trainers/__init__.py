"""The one loop. It runs any method and owns no mathematics."""

from __future__ import annotations

from ganops.trainers.config import TrainConfig
from ganops.trainers.guard import NonFiniteError
from ganops.trainers.trainer import Trainer

__all__ = ["NonFiniteError", "TrainConfig", "Trainer"]
