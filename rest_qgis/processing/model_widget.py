"""The toolbox's field for a model: a list of those seen before, and any path typed in."""

from __future__ import annotations

from typing import Any

from processing.gui.wrappers import WidgetWrapper
from qgis.PyQt.QtWidgets import QComboBox

from rest_qgis.processing.models import remembered_models


class ModelWidgetWrapper(WidgetWrapper):
    """An editable list. It asks nobody: the algorithm checks the choice when it runs."""

    def createWidget(self) -> QComboBox:
        """Make the field."""
        combo = QComboBox()
        combo.setObjectName("RestModelParameter")
        combo.setEditable(True)
        combo.addItems(remembered_models())
        combo.currentTextChanged.connect(lambda _text: self.widgetValueHasChanged.emit(self))
        return combo

    def setValue(self, value: Any) -> None:
        """Show a model id or a card's path."""
        self.widget.setCurrentText("" if value is None else str(value))

    def value(self) -> str:
        """Return what is chosen or typed."""
        return self.widget.currentText().strip()
