"""The algorithm ``rest:segment``: one seamless class map of a scene, or of a part of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingMultiStepFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBand,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsReferencedRectangle,
)
from qgis.PyQt.QtCore import QCoreApplication, QThread
from qgis.PyQt.QtGui import QIcon

from rest_qgis.layers.names import JOB_PROPERTY, PRODUCT_PROPERTY, product_title
from rest_qgis.processing.area import Area
from rest_qgis.processing.desk import JobDesk, Order
from rest_qgis.processing.errors import OrderError
from rest_qgis.processing.handover import Handover
from rest_qgis.processing.models import DEFAULT_MODEL, choose_model
from rest_qgis.processing.run import JobRun, Result
from rest_qgis.processing.segment_help import ABOUT, OUTPUTS, PARAMETERS
from rest_qgis.processing.styler import ResultStyler
from rest_qgis.resources import icon_path

HELP_URL = "https://github.com/rest-for-qgis/rest-for-qgis#readme"
ABANDON_SECONDS = 60  # after the death of a qgis_process its job is cancelled
_DEVICES = ["auto", "cpu", *(f"cuda:{number}" for number in range(8))]


class SegmentAlgorithm(QgsProcessingAlgorithm):
    """Has the backend segment a raster; makes no layer itself and keeps default threading."""

    INPUT = "INPUT"
    MODEL = "MODEL"
    BANDS = "BANDS"
    AOI = "AOI"
    EXTENT = "EXTENT"
    MEMORY = "MEMORY"
    DEVICE = "DEVICE"
    RESOLUTION = "RESOLUTION"
    OUTPUT = "OUTPUT"
    CONFIDENCE = "CONFIDENCE"
    PROBABILITIES = "PROBABILITIES"
    JOB_ID = "JOB_ID"
    SECONDS = "SECONDS"
    VALID_PIXELS = "VALID_PIXELS"

    def __init__(self, desk: JobDesk) -> None:
        super().__init__()
        self._desk = desk
        self._layer_name = ""
        self._handover: Handover | None = None
        self._refusal: OrderError | None = None
        self._outputs: dict[str, str] = {}  # by product; as given, which is how the context knows them
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
        lines = [f"<p>{self.tr(ABOUT)}</p>", f"<h3>{self.tr('Parameters')}</h3>"]
        lines += [f"<p><b>{self.tr(title)}</b>: {self.tr(text)}</p>" for title, text in PARAMETERS.values()]
        lines.append(f"<h3>{self.tr('Outputs')}</h3>")
        lines += [f"<p><b>{self.tr(title)}</b>: {self.tr(text)}</p>" for title, text in OUTPUTS.values()]
        return "".join(lines)

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        model = QgsProcessingParameterString(self.MODEL, self._title(self.MODEL), defaultValue=DEFAULT_MODEL)
        # Named, not imported: qgis_process has no widgets.
        model.setMetadata(
            {"widget_wrapper": {"class": "rest_qgis.processing.model_widget.ModelWidgetWrapper"}}
        )
        device = QgsProcessingParameterEnum(
            self.DEVICE, self._title(self.DEVICE), _DEVICES, defaultValue="auto", usesStaticStrings=True
        )
        memory = self._number(self.MEMORY, minimum=0.25)
        resolution = self._number(self.RESOLUTION, minimum=0.001)
        for parameter in (memory, device, resolution):
            parameter.setFlags(parameter.flags() | _advanced_flag())
        for parameter in (
            QgsProcessingParameterRasterLayer(self.INPUT, self._title(self.INPUT)),
            model,
            QgsProcessingParameterBand(
                self.BANDS,
                self._title(self.BANDS),
                parentLayerParameterName=self.INPUT,
                optional=True,
                allowMultiple=True,
            ),
            QgsProcessingParameterFeatureSource(
                self.AOI, self._title(self.AOI), [_polygon_source()], optional=True
            ),
            QgsProcessingParameterExtent(self.EXTENT, self._title(self.EXTENT), optional=True),
            memory,
            device,
            resolution,
            QgsProcessingParameterRasterDestination(self.OUTPUT, self._title(self.OUTPUT)),
            *(
                QgsProcessingParameterRasterDestination(
                    name, self._title(name), optional=True, createByDefault=False
                )
                for name in (self.CONFIDENCE, self.PROBABILITIES)
            ),
        ):
            parameter.setHelp(self.tr(PARAMETERS[parameter.name()][1]))
            declared = self.addParameter(parameter)
            if not declared:
                raise RuntimeError(f"QGIS refused the parameter {parameter.name()}")
        for name, (title, _) in OUTPUTS.items():
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
        """Take what is needed of the layers while on the thread they live on."""
        layer = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, self.INPUT))
        self._layer_name = layer.name()
        extent = None
        box = self.parameterAsExtent(parameters, self.EXTENT, context)
        if not box.isNull() and not box.isEmpty():
            crs = self.parameterAsExtentCrs(parameters, self.EXTENT, context)
            extent = QgsReferencedRectangle(box, crs)
        area = None
        try:
            if parameters.get(self.AOI) is not None:
                source = self.parameterAsSource(parameters, self.AOI, context)
                if source is None:
                    raise QgsProcessingException(self.invalidSourceError(parameters, self.AOI))
                area = Area.of_source(source)
            resolution = self._value(parameters, self.RESOLUTION, context)
            self._handover = Handover(layer, extent, area, resolution)
        except OrderError as error:
            self._refusal = error  # raised here, a script would hear that there were errors and no more
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the job and wait for it; a cancel is looked for every 100 ms."""
        destinations = {
            "classes": self.OUTPUT,
            "confidence": self.CONFIDENCE,
            "probabilities": self.PROBABILITIES,
        }
        for product, name in destinations.items():
            self._outputs[product] = self.parameterAsOutputLayer(parameters, name, context)
        paths = {
            product: str(Path(output).absolute()) if output else ""
            for product, output in self._outputs.items()
        }
        order = Order(
            scene="",
            model=self.parameterAsString(parameters, self.MODEL, context).strip(),
            output=paths["classes"],
            classes=(),
            title=self._layer_name,
            device=self.parameterAsEnumString(parameters, self.DEVICE, context) or "auto",
            memory_bytes=round(self._value(parameters, self.MEMORY, context) * 1e9),
            keep_layer=context.willLoadLayerOnCompletion(self._outputs["classes"]),
            # On the main thread (a script that waits) nothing could be drawn before the end.
            watchable=QThread.currentThread() is not QCoreApplication.instance().thread(),
            bands=tuple(self.parameterAsInts(parameters, self.BANDS, context))
            if parameters.get(self.BANDS) is not None
            else (),
            confidence=paths["confidence"],
            probabilities=paths["probabilities"],
            abandon_seconds=0 if self._desk.keep_engine else ABANDON_SECONDS,
        )
        try:
            with self._desk.session():
                order, result = self._run(order, feedback)
        except OrderError as error:
            raise QgsProcessingException(str(error)) from error
        self._job_id = result.job_id
        for product, output in self._outputs.items():
            self._style(output, product_title(order.title, product), context)
        return {
            **{name: self._outputs[product] for product, name in destinations.items() if paths[product]},
            self.JOB_ID: result.job_id,
            self.DEVICE: str(result.summary.get("device", "")),
            self.SECONDS: float(result.summary.get("seconds", 0.0)),
            self.VALID_PIXELS: int(result.summary.get("valid_pixels", 0)),
        }

    def postProcessAlgorithm(
        self, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Where live layers of this job show its results already, load no second ones."""
        project = context.project()
        if project is None or not self._job_id:
            return {}
        waiting = context.layersToLoadOnCompletion()
        for layer in list(project.mapLayers().values()):
            if layer.customProperty(JOB_PROPERTY) != self._job_id:  # set by the job observer
                continue
            output = self._outputs.get(layer.customProperty(PRODUCT_PROPERTY), "")
            if waiting.pop(output, None) is None:
                project.removeMapLayer(layer.id())  # watched while it grew, not wanted afterwards
        context.setLayersToLoadOnCompletion(waiting)
        return {}

    def tr(self, text: str) -> str:
        """Translate a text of this algorithm."""
        return QCoreApplication.translate("SegmentAlgorithm", text)

    def _run(self, order: Order, feedback: QgsProcessingFeedback) -> tuple[Order, Result]:
        if self._refusal is not None:
            raise self._refusal
        handover = self._handover
        steps = QgsProcessingMultiStepFeedback(2 if handover.copies else 1, feedback)
        run = JobRun(self._desk, steps)
        model = choose_model(order.model, run.models())
        steps.pushInfo(self.tr("Model: {0} ({1})").format(model.name, model.id))
        folders: list[Path] = []

        def own_folder() -> Path:
            if not folders:
                folders.append(run.inbox(order.key))
            return folders[0]

        try:
            handover.expected_resolution = model.resolution[0] if model.resolution else 0.0
            if handover.copies:
                steps.pushInfo(self.tr("Copying “{0}”, which is no file").format(self._layer_name))
            handed = handover.write(own_folder, steps)
            for note in handed.notes:
                steps.pushWarning(note)
            if handover.copies:
                steps.setCurrentStep(1)
            steps.pushInfo(self.tr("Scene: {0}").format(handed.scene))
            order = replace(
                order,
                scene=handed.scene,
                model=model.id,
                classes=model.classes,
                title=f"{self._layer_name} – {model.short_name}",
                window=handed.window,
                aoi=handed.aoi,
                resolution_m=handed.resolution_m,
            )
            return order, run.segment(order)
        finally:
            if not run.job_id:  # the daemon deletes only what belongs to a job
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)

    def _title(self, parameter: str) -> str:
        return self.tr(PARAMETERS[parameter][0])

    def _number(self, name: str, minimum: float) -> QgsProcessingParameterNumber:
        kind = QgsProcessingParameterNumber.Type.Double
        return QgsProcessingParameterNumber(name, self._title(name), kind, optional=True, minValue=minimum)

    def _value(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> float:
        """A number, 0 where none was given."""
        given = parameters.get(name) is not None
        return self.parameterAsDouble(parameters, name, context) if given else 0.0

    def _style(self, output: str, title: str, context: QgsProcessingContext) -> None:
        if not output or not context.willLoadLayerOnCompletion(output):
            return
        details = context.layerToLoadOnCompletionDetails(output)
        details.name = title
        if hasattr(details, "groupName"):  # since QGIS 3.32
            details.groupName = "REST"
        details.setPostProcessor(ResultStyler.keep(output, title))


def _polygon_source() -> Any:
    """The kind "polygons", which moved to :class:`Qgis` in QGIS 3.36."""
    try:
        return Qgis.ProcessingSourceType.VectorPolygon
    except AttributeError:
        return QgsProcessing.SourceType.TypeVectorPolygon


def _advanced_flag() -> Any:
    """The flag "advanced", which moved to :class:`Qgis` in QGIS 3.36."""
    try:
        return Qgis.ProcessingParameterFlag.Advanced
    except AttributeError:
        return QgsProcessingParameterDefinition.Flag.FlagAdvanced
