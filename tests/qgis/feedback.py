"""A Processing feedback that remembers."""

from __future__ import annotations

import time

from qgis.core import QgsProcessingFeedback


class Feedback(QgsProcessingFeedback):
    """Keeps what it is told; cancels itself when a word comes."""

    def __init__(self, cancel_on: str = "") -> None:
        super().__init__(False)
        self.infos: list[str] = []
        self.warnings: list[str] = []
        self.percents: list[float] = []
        self.cancelled_at = 0.0
        self._cancel_on = cancel_on
        self.progressChanged.connect(self.percents.append)

    def pushInfo(self, text: str) -> None:
        self.infos.append(text)
        if self._cancel_on and self._cancel_on in text:
            self.cancelled_at = time.monotonic()
            self.cancel()

    def pushWarning(self, text: str) -> None:
        self.warnings.append(text)
