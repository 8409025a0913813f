"""Results the Processing framework loads: their names and styles."""

from __future__ import annotations

from qgis.core import (
    QgsMapLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
)

from rest_qgis.layers.names import unused_name


class ResultStyler(QgsProcessingLayerPostProcessorInterface):
    """Gives a loaded result its name and the style that lies beside it."""

    _kept: dict[str, ResultStyler] = {}  # QGIS holds no reference of its own

    def __init__(self, output: str, title: str) -> None:
        super().__init__()
        self._output = output
        self._title = title

    @classmethod
    def keep(cls, output: str, title: str) -> ResultStyler:
        """Make a styler that lives until the result is loaded."""
        cls._kept[output] = cls(output, title)
        return cls._kept[output]

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Style and name the layer; on the main thread."""
        layer.loadDefaultStyle()
        layer.setName(unused_name(context.project() or QgsProject.instance(), self._title, layer))
        self._kept.pop(self._output, None)
