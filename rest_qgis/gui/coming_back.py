"""Coming back: jobs that did not end while QGIS looked are found again.

Every job is noted, in the project and in the profile, before the engine hears of it.
When its project is read, when QGIS starts, and when a stopped engine runs again, the
jobs noted for the open project are taken up by their keys: those that still run get
their live layers, filled with all rows from the first; of those that are done the
result is loaded; of the others a message tells what became of them.
"""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

from qgis.core import QgsMapLayer, QgsProject
from qgis.PyQt.QtCore import QObject
from qgis.PyQt.QtXml import QDomDocument, QDomElement

from rest_qgis.client import JobListener
from rest_qgis.gui import records
from rest_qgis.gui.link import EngineLink
from rest_qgis.gui.messages import Messages
from rest_qgis.layers.group import file_of
from rest_qgis.layers.live_layers import LiveLayers
from rest_qgis.layers.main_thread import MainThread
from rest_qgis.layers.names import JOB_PROPERTY, PREVIEW_PROPERTY
from rest_qgis.processing.desk import JobDesk, Order

# The client gave up, not the daemon: the job may go on and has an end to come back to.
_ROW_FAULTS = ("E_SEQUENCE", "E_CHECKSUM", "E_SIZE")
_PLACEHOLDER = "<VRTDataset"  # what the source of a saved live layer or preview starts with
_EMPTY_PREVIEW = (
    f'{_PLACEHOLDER} rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
)


class ComingBack(QObject):
    """Notes jobs, and takes up those of the open project.

    Its :meth:`listen` is an observer of the desk.
    """

    def __init__(
        self, interface: Any, desk: JobDesk, link: EngineLink, live_layers: LiveLayers, messages: Messages
    ) -> None:
        super().__init__()
        self._desk = desk
        self._link = link
        self._live_layers = live_layers
        self._messages = messages
        self._main = MainThread(self)
        self._file = QgsProject.instance().fileName()  # for threads, which must not ask the project
        self._followed: set[str] = set()  # keys of the jobs this session hears of
        self._lost: list[str] = []  # sentences about those found last that have no result
        project = QgsProject.instance()
        self._slots = (
            (project.readProject, self._project_read),
            (project.cleared, self._project_cleared),
            (project.projectSaved, self._project_saved),
            (project.writeMapLayer, self._write_layer),
            (link.state_changed, self._engine_changed),
            (interface.initializationCompleted, self._qgis_started),
        )
        for signal, slot in self._slots:
            signal.connect(slot)
        desk.observe(self.listen)
        self._main.post(self.come_back)  # the plugin was loaded into a QGIS with an open project

    def listen(self, order: Order) -> JobListener | None:
        """Note a job; return what takes it off again. For any thread.

        Previews are not noted, nor what the daemon cancels when nobody watches it.
        """
        if order.preview or order.abandon_seconds:
            return None
        self._followed.add(order.key)
        records.keep_in_profile(order, self._file)
        if threading.current_thread() is threading.main_thread():
            records.keep_in_project(order)
        else:
            self._main.post(lambda: records.keep_in_project(order))
        return _Listener(self, self._main, order)

    def come_back(self, unsaved: bool = False) -> None:
        """Take up the open project's unfinished jobs; those this session hears of anyway are shown again.

        Args:
            unsaved: Whether jobs of a project that was never saved belong to the open one.
        """
        noted = records.orders_of_project(unsaved)
        self._live_layers.show_again({order.key for order in noted} & self._followed)
        orders = [order for order in noted if order.key not in self._followed]
        if not orders:
            return
        self._lost.clear()
        self._link.start()
        shown = {file_of(layer) for layer in QgsProject.instance().mapLayers().values() if layer.isValid()}
        for order in orders:
            # Where a layer shows the output already, the job's live layer makes room for it at the end.
            keep = order.keep_layer and order.output not in shown
            self._link.resume(dataclasses.replace(order, keep_layer=keep))

    def close(self) -> None:
        """Stop noting and looking. May be called twice."""
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self._slots = ()
        self._desk.forget(self.listen)
        self._main.close()

    # --- the project and QGIS ------------------------------------------------------------

    def _project_read(self) -> None:
        self._file = QgsProject.instance().fileName()
        self._main.post(self._look_into_project)  # once QGIS has finished reading

    def _look_into_project(self) -> None:
        project = QgsProject.instance()
        with QgsProject.blockDirtying(project):
            for layer in list(project.mapLayers().values()):
                if layer.customProperty(JOB_PROPERTY) and layer.source().startswith(_PLACEHOLDER):
                    project.removeMapLayer(layer.id())
        self.come_back()

    def _project_cleared(self) -> None:
        self._file = ""

    def _project_saved(self) -> None:
        self._file = QgsProject.instance().fileName()
        records.follow_project()

    def _write_layer(self, layer: QgsMapLayer, element: QDomElement, _document: QDomDocument) -> None:
        """The file of a live layer or a preview is gone when the project is read again: save an empty map."""
        placeholder = ""
        if layer.customProperty(JOB_PROPERTY) and layer.source().endswith(".vrt"):
            placeholder = _empty_map(layer.source())
        elif layer.customProperty(PREVIEW_PROPERTY):
            placeholder = _EMPTY_PREVIEW
        if placeholder:
            element.firstChildElement("datasource").firstChild().setNodeValue(placeholder)

    def _engine_changed(self, state: str, _message: str) -> None:
        if state == "ready":
            self.come_back()  # jobs of an engine that was stopped are in its queue again

    def _qgis_started(self) -> None:
        self._main.post(lambda: self.come_back(unsaved=True))

    # --- what becomes of jobs (on the main thread) -----------------------------------------

    def _done(self, order: Order, resumed: bool) -> None:
        self._followed.discard(order.key)
        # Else another project was opened meanwhile: the job comes back when its own is read again.
        if records.belongs_to_project(order.key):
            records.forget(order.key)
            if resumed:
                self._messages.success(
                    self.tr("“{0}” is done: its result is in the project.").format(order.title)
                )

    def _failed(self, order: Order, resumed: bool, goes_on: bool, code: str, message: str) -> None:
        if code == "E_FOLLOWED":  # by another order of this session, which will tell
            self._messages.info(f"“{order.title}”: {message}")
            return
        self._followed.discard(order.key)
        if not goes_on:
            records.forget(order.key)
            if resumed:
                self._tell_lost(f"“{order.title}”: {message} ({code})", cancelled=code == "E_CANCELLED")

    def _tell_lost(self, sentence: str, cancelled: bool) -> None:
        """One message for all that have no result; a cancel is somebody's wish and no warning."""
        self._lost.append(sentence)
        text, more = self._lost[0], len(self._lost) - 1
        if more:
            text = self.tr("{0} And {1} more.").format(text, more)
        tell = self._messages.info if cancelled else self._messages.warning
        tell(text, "\n\n".join(self._lost))


class _Listener(JobListener):
    """Tells of a noted job's end; on the client's thread."""

    def __init__(self, owner: ComingBack, main: MainThread, order: Order) -> None:
        self._owner = owner
        self._main = main
        self._order = order

    def done(self, job: Any, done: Any) -> None:
        resumed = bool(job.name)
        self._main.post(lambda: self._owner._done(self._order, resumed))

    def failed(self, job: Any, code: str, message: str) -> None:
        resumed = job is not None and bool(job.name)
        taken = job is not None and bool(job.id or job.name)
        given_up_here = code.startswith("E_ENGINE_") or code in _ROW_FAULTS
        goes_on = code == "E_CLIENT_CLOSED" or (taken and given_up_here)
        self._main.post(lambda: self._owner._failed(self._order, resumed, goes_on, code, message))


def _empty_map(path: str) -> str:
    """The description of a live raster without its rows: the same grid and classes, nodata all over."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
    document = QDomDocument()
    if not document.setContent(text)[0]:
        return ""
    bands = document.documentElement().elementsByTagName("VRTRasterBand")
    for number in range(bands.count()):
        band = bands.at(number).toElement()
        band.removeAttribute("subClass")
        for name in ("SourceFilename", "ImageOffset", "PixelOffset", "LineOffset", "ByteOrder"):
            band.removeChild(band.firstChildElement(name))
    return document.toString(-1)
