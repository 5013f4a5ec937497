"""What EDM logs to Weights & Biases: kept beside the run always, sent there if wandb is installed and wanted.

Upstream imports wandb even under ``--no_wandb``. The object here stands where the module stood.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor


class Tracker:
    """The part of wandb's interface that EDM uses; wandb itself is imported only when a run is to be logged.

    Attributes:
        listeners: called with every dictionary that is logged.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self._wandb: ModuleType | None = None

    def init(self, mode: str | None = None, settings: Any = None, **kwargs: Any) -> None:
        """Start logging to wandb unless ``mode`` is ``disabled``; says so once where wandb is missing.

        ``settings`` is dropped: EDM's only one, not to log the machine's load, was renamed by wandb.
        """
        if mode == "disabled":
            return
        if importlib.util.find_spec("wandb") is None:
            print(
                "wandb is not installed: this run is logged to its own folder alone (`pip install wandb`, "
                "or --no_wandb to silence this line)",
                file=sys.stderr,
            )
            return
        import wandb

        wandb.init(mode=mode, **kwargs)
        self._wandb = wandb

    def log(self, record: dict[str, Any], **kwargs: Any) -> None:
        """Log one dictionary; for wandb, tensors become floats."""
        if self._wandb is not None:
            record = {key: value.item() if isinstance(value, Tensor) else value for key, value in record.items()}
        for listener in self.listeners:
            listener(record)
        if self._wandb is not None:
            self._wandb.log(record, **kwargs)

    def save(self, pattern: str) -> None:
        """Upload the files that match ``pattern``."""
        if self._wandb is not None:
            self._wandb.save(pattern)

    def Settings(self, **settings: Any) -> dict[str, Any]:
        """Settings as a dictionary, see :meth:`init`."""
        return settings

    def Image(self, data: Any, caption: str | None = None) -> Any:
        """An image for :meth:`log`."""
        return None if self._wandb is None else self._wandb.Image(data, caption=caption)

    def Video(self, data: str, caption: str | None = None) -> Any:
        """A GIF for :meth:`log`."""
        return None if self._wandb is None else self._wandb.Video(data, caption=caption, format="gif")


tracker = Tracker()
