"""The algorithm ``rest:segment``: one seamless class map of a whole scene."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtCore import QCoreApplication, QThread
from qgis.PyQt.QtGui import QIcon

from rest_qgis.processing.desk import JobDesk, Order
from rest_qgis.processing.errors import OrderError, SceneError
from rest_qgis.processing.models import DEFAULT_MODEL, choose_model
from rest_qgis.processing.run import JobRun
from rest_qgis.processing.scene import scene_path, scene_window
from rest_qgis.resources import icon_path

HELP_URL = "https://github.com/rest-for-qgis/rest-for-qgis#readme"
_DEVICES = ["auto", "cpu", *(f"cuda:{number}" for number in range(8))]


class SegmentAlgorithm(QgsProcessingAlgorithm):
    """Has the backend segment a raster; makes no layer itself and keeps default threading."""

    INPUT = "INPUT"
    MODEL = "MODEL"
    EXTENT = "EXTENT"
    MEMORY = "MEMORY"
    DEVICE = "DEVICE"
    OUTPUT = "OUTPUT"
    JOB_ID = "JOB_ID"
    SECONDS = "SECONDS"
    VALID_PIXELS = "VALID_PIXELS"

    def __init__(self, desk: JobDesk) -> None:
        super().__init__()
        self._desk = desk
        self._scene = ""
        self._layer_name = ""
        self._window: Any = None
        self._order: Order | None = None
        self._output = ""  # as given, which is how the context knows it
        self._job_id = ""

    # --- description --------------------------------------------------------------

    def createInstance(self) -> SegmentAlgorithm:
        """Return a fresh copy."""
        return SegmentAlgorithm(self._desk)

    def name(self) -> str:
        """Return the fixed name."""
        return "segment"

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return self.tr("Segment a whole scene")

    def shortDescription(self) -> str:
        """Return one sentence."""
        return self.tr("Makes one seamless class map of a whole scene with a deep network.")

    def tags(self) -> list[str]:
        """Return words to find the algorithm by."""
        words = "classify,classification,land cover,buildings,deep learning,neural network,gpu,semantic"
        return self.tr(words).split(",")

    def icon(self) -> QIcon:
        """Return the algorithm's icon."""
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        """Return the path of the algorithm's icon."""
        return icon_path("segment.svg")

    def helpUrl(self) -> str:
        """Return the page that explains the algorithm."""
        return HELP_URL

    def shortHelpString(self) -> str:
        """Return the help beside the dialog: what it does, then every parameter and output."""
        lines = [f"<p>{self.tr(_ABOUT)}</p>", f"<h3>{self.tr('Parameters')}</h3>"]
        lines += [f"<p><b>{self.tr(title)}</b>: {self.tr(text)}</p>" for title, text in _PARAMETERS.values()]
        lines.append(f"<h3>{self.tr('Outputs')}</h3>")
        lines += [f"<p><b>{self.tr(title)}</b>: {self.tr(text)}</p>" for title, text in _OUTPUTS.values()]
        return "".join(lines)

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        model = QgsProcessingParameterString(self.MODEL, self._title(self.MODEL), defaultValue=DEFAULT_MODEL)
        # Named, not imported: qgis_process has no widgets.
        model.setMetadata(
            {"widget_wrapper": {"class": "rest_qgis.processing.model_widget.ModelWidgetWrapper"}}
        )
        memory = QgsProcessingParameterNumber(
            self.MEMORY,
            self._title(self.MEMORY),
            QgsProcessingParameterNumber.Type.Double,
            optional=True,
            minValue=0.25,
        )
        device = QgsProcessingParameterEnum(
            self.DEVICE, self._title(self.DEVICE), _DEVICES, defaultValue="auto", usesStaticStrings=True
        )
        for parameter in (memory, device):
            parameter.setFlags(parameter.flags() | _advanced_flag())
        for parameter in (
            QgsProcessingParameterRasterLayer(self.INPUT, self._title(self.INPUT)),
            model,
            QgsProcessingParameterExtent(self.EXTENT, self._title(self.EXTENT), optional=True),
            memory,
            device,
            QgsProcessingParameterRasterDestination(self.OUTPUT, self._title(self.OUTPUT)),
        ):
            if parameter.name() in _PARAMETERS:
                parameter.setHelp(self.tr(_PARAMETERS[parameter.name()][1]))
            declared = self.addParameter(parameter)
            if not declared:
                raise RuntimeError(f"QGIS refused the parameter {parameter.name()}")
        for name, (title, _) in _OUTPUTS.items():
            text = name in (self.JOB_ID, self.DEVICE)
            kind = QgsProcessingOutputString if text else QgsProcessingOutputNumber
            declared = self.addOutput(kind(name, self.tr(title)))
            if not declared:
                raise RuntimeError(f"QGIS refused the output {name}")

    def canExecute(self) -> tuple[bool, str]:
        """Say whether the link to the engine can work in this QGIS at all."""
        if find_spec("zmq") is None:
            return False, self.tr(
                "QGIS's Python has no pyzmq. Install it (Debian and Ubuntu: python3-zmq) and start QGIS "
                "again."
            )
        return True, ""

    def checkParameterValues(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[bool, str]:
        """Refuse early what cannot work."""
        fine, message = super().checkParameterValues(parameters, context)
        if not fine:
            return fine, message
        if not self.parameterAsString(parameters, self.MODEL, context).strip():
            return False, self.tr("Choose a model, or give the path of a model card.")
        return True, ""

    # --- running --------------------------------------------------------------------

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Resolve the layer while on the thread it lives on."""
        layer = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, self.INPUT))
        try:
            self._scene = scene_path(layer)
            self._layer_name = layer.name()
            extent = self.parameterAsExtent(parameters, self.EXTENT, context)
            if not extent.isNull() and not extent.isEmpty():
                extent_crs = self.parameterAsExtentCrs(parameters, self.EXTENT, context)
                self._window = scene_window(
                    self._scene, layer.crs(), extent, extent_crs, context.transformContext()
                )
        except SceneError as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the job and wait for it; a cancel is looked for every 100 ms."""
        self._output = output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        model_name = self.parameterAsString(parameters, self.MODEL, context).strip()
        memory = 0.0
        if parameters.get(self.MEMORY) is not None:
            memory = self.parameterAsDouble(parameters, self.MEMORY, context)
        # On the main thread (a script that waits) nothing could be drawn before the end.
        watchable = QThread.currentThread() is not QCoreApplication.instance().thread()
        try:
            with self._desk.session():
                run = JobRun(self._desk, feedback)
                model = choose_model(model_name, run.models())
                self._order = Order(
                    scene=self._scene,
                    model=model.id,
                    output=str(Path(output).absolute()),
                    classes=model.classes,
                    title=f"{self._layer_name} – {model.name}",
                    window=self._window,
                    device=self.parameterAsEnumString(parameters, self.DEVICE, context) or "auto",
                    memory_bytes=round(memory * 1e9),
                    keep_layer=context.willLoadLayerOnCompletion(output),
                    watchable=watchable,
                )
                feedback.pushInfo(self.tr("Scene: {0}").format(self._scene))
                feedback.pushInfo(self.tr("Model: {0} ({1})").format(model.name, model.id))
                result = run.segment(self._order)
        except OrderError as error:
            raise QgsProcessingException(str(error)) from error
        self._job_id = result.job_id
        self._style(output, context)
        return {
            self.OUTPUT: output,
            self.JOB_ID: result.job_id,
            self.DEVICE: str(result.summary.get("device", "")),
            self.SECONDS: float(result.summary.get("seconds", 0.0)),
            self.VALID_PIXELS: int(result.summary.get("valid_pixels", 0)),
        }

    def postProcessAlgorithm(
        self, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Where the live layer of this job shows the result already, load no second one."""
        project = context.project()
        if project is not None and self._order is not None:
            shown = any(
                layer.customProperty("rest/job") == self._job_id  # set by the job observer
                for layer in project.mapLayers().values()
            )
            if shown:
                waiting = context.layersToLoadOnCompletion()
                waiting.pop(self._output, None)
                context.setLayersToLoadOnCompletion(waiting)
        return {}

    def tr(self, text: str) -> str:
        """Translate a text of this algorithm."""
        return QCoreApplication.translate("SegmentAlgorithm", text)

    def _title(self, parameter: str) -> str:
        return self.tr(_PARAMETERS[parameter][0])

    def _style(self, output: str, context: QgsProcessingContext) -> None:
        if self._order is None or not context.willLoadLayerOnCompletion(output):
            return
        details = context.layerToLoadOnCompletionDetails(output)
        details.name = self._order.title
        if hasattr(details, "groupName"):  # since QGIS 3.32
            details.groupName = "REST"
        details.setPostProcessor(ResultStyler.keep(output, self._order.title))


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
        layer.setName(self._title)
        self._kept.pop(self._output, None)


def _advanced_flag() -> Any:
    """The flag "advanced", which moved to :class:`Qgis` in QGIS 3.36."""
    try:
        return Qgis.ProcessingParameterFlag.Advanced
    except AttributeError:
        return QgsProcessingParameterDefinition.Flag.FlagAdvanced


_ABOUT = (
    "Segments a whole raster scene with a deep network as if the scene went through the network in one "
    "piece: no tiles and no seams. The work is done by the REST backend on this computer, which is started "
    "when it is not running; memory does not grow with the length of the scene. The result is a "
    "cloud-optimised GeoTIFF with one class id (0 to 254) per pixel and 255 where the scene has no data, on "
    "the scene's own grid."
)
# name: (title, help)
_PARAMETERS = {
    "INPUT": (
        "Scene",
        "A raster that is a file on this computer. It needs at least the bands the model reads.",
    ),
    "MODEL": (
        "Model",
        "The id of an installed model, such as kitsap-buildings, or the path of a model card (.json) with "
        "its weights beside it.",
    ),
    "EXTENT": ("Area", "Segment only the part of the scene inside this extent. Empty: the whole scene."),
    "MEMORY": (
        "Memory in GB",
        "Upper bound of the computing process's whole memory in gigabytes (10⁹ bytes). Empty: the backend "
        "decides.",
    ),
    "DEVICE": (
        "Device",
        "Where to compute: auto takes the first graphics card, and the processor where there is none.",
    ),
    "OUTPUT": (
        "Class map",
        "The GeoTIFF to write. Its style (.qml) and class names (.aux.xml) are written beside it.",
    ),
}
_OUTPUTS = {
    "JOB_ID": ("Job", "The backend's id of the job."),
    "DEVICE": ("Device used", "The device that computed."),
    "SECONDS": ("Seconds", "Time the job took."),
    "VALID_PIXELS": ("Pixels with data", "Number of pixels that got a class."),
}
