"""The job observer: gives each job a layer that fills in while the job runs.

Its listeners run on the client's thread and do the writing, but for the first
filling, which has a thread of its own; the layers live on QGIS's main thread.
Between them travel only queued signals.
"""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any, Callable

from qgis.core import (
    Qgis,
    QgsDataProvider,
    QgsMessageLog,
    QgsPalettedRasterRenderer,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QTimer, pyqtSignal
from qgis.PyQt.QtGui import QColor

from rest_qgis.layers.group import insert_in_group
from rest_qgis.layers.live_raster import LiveRaster
from rest_qgis.layers.main_thread import MainThread
from rest_qgis.resources import style_path

REFRESH_MILLISECONDS = 250
JOB_PROPERTY = "rest/job"  # custom property of every layer made here: the job's id


class LiveLayers(QObject):
    """Makes, refreshes, finishes and removes the layers of running jobs.

    Signals:
        finished: The result is on the map. Arguments: the order, the layer's id.
        trouble: The preview of a job cannot be shown; the job goes on. Argument: a sentence.
    """

    finished = pyqtSignal(object, str)
    trouble = pyqtSignal(str)

    def __init__(self, canvas: QgsMapCanvas, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._canvas = canvas
        self._closed = False
        self._folder = Path(QgsProcessingUtils.tempFolder())
        self._numbers = itertools.count(1)
        self._shown: dict[Any, _Shown] = {}
        self._timer = QTimer(self)
        self._timer.setObjectName("RestLiveLayerTimer")
        self._timer.setInterval(REFRESH_MILLISECONDS)
        self._timer.timeout.connect(self._refresh)
        self._main = MainThread(self)

    def listen(self, order: Any) -> _Listener | None:
        """Return the client-thread listener of one job, None where it cannot be drawn; for any thread.

        Args:
            order: The :class:`rest_qgis.processing.desk.Order` of the job.
        """
        if not order.watchable:
            return None
        path = self._folder / f"rest-live-{next(self._numbers)}.vrt"
        return _Listener(self, order, LiveRaster(path, order.scene, order.classes, order.window))

    def close(self) -> None:
        """Forget every running job: its layer and its files go. May be called twice."""
        self._closed = True
        self._main.close()
        self._timer.stop()
        for listener in list(self._shown):
            self._drop(listener)

    def _show(self, listener: _Listener) -> None:
        if self._closed:
            _delete(listener.raster)
            return
        order = listener.order
        layer = QgsRasterLayer(str(listener.raster.path), order.title, "gdal")
        if not layer.isValid() or not layer.loadNamedStyle(style_path("class_map.qml"))[1]:
            self.trouble.emit(
                self.tr("The growing result of “{0}” cannot be shown; the job goes on.").format(order.title)
            )
            _delete(listener.raster)
            return
        layer.setRenderer(_class_renderer(layer, order.classes))
        layer.setCustomProperty(JOB_PROPERTY, listener.job_id)
        insert_in_group(QgsProject.instance(), layer, order.scene)
        self._shown[listener] = _Shown(layer)
        self._timer.start()

    def _refresh(self) -> None:
        # A repaint while the canvas still draws would restart the drawing and never end it.
        if self._canvas.isDrawing():
            return
        for listener, shown in self._shown.items():
            rows = listener.raster.rows_written
            if rows != shown.rows and not sip.isdeleted(shown.layer):
                shown.rows = rows
                shown.layer.dataProvider().reloadData()
                shown.layer.triggerRepaint()

    def _complete(self, listener: _Listener, output: str) -> None:
        shown = self._shown.pop(listener, None)
        order = listener.order
        layer = None
        if shown is None and order.keep_layer:
            layer = QgsRasterLayer(output, order.title, "gdal")  # styled by the QML beside it
            layer.setCustomProperty(JOB_PROPERTY, listener.job_id)
            insert_in_group(QgsProject.instance(), layer, order.scene)
        elif shown is not None and not sip.isdeleted(shown.layer):
            layer = shown.layer
            if order.keep_layer:
                options = QgsDataProvider.ProviderOptions()
                options.transformContext = QgsProject.instance().transformContext()
                layer.setDataSource(output, layer.name(), "gdal", options, False)
                layer.triggerRepaint()
            else:
                QgsProject.instance().removeMapLayer(layer.id())
                layer = None
        self._finish(listener)
        self.finished.emit(order, layer.id() if layer is not None else "")

    def _drop(self, listener: _Listener) -> None:
        shown = self._shown.pop(listener, None)
        if shown is not None and not sip.isdeleted(shown.layer):
            QgsProject.instance().removeMapLayer(shown.layer.id())
        self._finish(listener)

    def _finish(self, listener: _Listener) -> None:
        if not self._shown:
            self._timer.stop()
        _delete(listener.raster)


class _Shown:
    """What the main thread keeps of a job: its layer and how much of it was drawn."""

    def __init__(self, layer: QgsRasterLayer) -> None:
        self.layer = layer
        self.rows = 0


class _Listener:
    """Writes one job's rows; its public methods run on the client's thread, the constructor on any."""

    def __init__(self, owner: LiveLayers, order: Any, raster: LiveRaster) -> None:
        self.order = order
        self.raster = raster
        self.job_id = ""
        self._owner = owner
        self._alive = False  # the job runs and its rows can be written
        self._lock = threading.Lock()  # of that, and of the order of signals

    def submitted(self, job: Any) -> None:
        self.job_id = job.id
        self._alive = True
        if self._attempt(self.raster.create):
            threading.Thread(target=self._fill, name="rest-live-fill", daemon=True).start()

    def progress(self, job: Any, progress: Any) -> None:
        pass

    def rows(self, job: Any, rows: Any) -> None:
        if self._alive:
            window = (rows.column, rows.row, rows.width, rows.height)
            self._attempt(lambda: self.raster.write(window, rows.values))

    def done(self, job: Any, done: Any) -> None:
        self._end()
        self._post(lambda owner: owner._complete(self, done.output))

    def failed(self, job: Any, code: str, message: str) -> None:
        self._end()
        self._post(lambda owner: owner._drop(self))

    def _fill(self) -> None:
        """On a thread of its own: ask for the layer once every pixel is written, unless the job ended."""
        whole = self._attempt(self.raster.fill)
        with self._lock:
            if whole and self._alive:
                self._post(lambda owner: owner._show(self))
                return
        self.raster.discard()

    def _end(self) -> None:
        with self._lock:
            self._alive = False
        self.raster.close()

    def _post(self, call: Callable[[LiveLayers], None]) -> None:
        """Have the main thread call ``call`` with the layers' owner."""
        owner = self._owner
        owner._main.post(lambda: call(owner))

    def _attempt(self, action: Callable[[], Any]) -> bool:
        """Run a write; a full disk ends the preview, never the job. Returns whether it can be shown."""
        try:
            return action() is not False
        except (OSError, ValueError) as error:
            with self._lock:
                told, self._alive = not self._alive, False
            if not told:
                QgsMessageLog.logMessage(f"Live layer: {error}", "REST", Qgis.MessageLevel.Warning)
                sentence = self._owner.tr("The growing result cannot be shown ({0}); the job goes on.")
                text = sentence.format(error)
                self._post(lambda owner: owner.trouble.emit(text))
            return False


def _class_renderer(layer: QgsRasterLayer, classes: Any) -> QgsPalettedRasterRenderer:
    # The base style has no classes, and a renderer takes them only when it is made.
    entries = [
        QgsPalettedRasterRenderer.Class(entry.id, QColor(entry.color), entry.name) for entry in classes
    ]
    renderer = QgsPalettedRasterRenderer(layer.dataProvider(), 1, entries)
    renderer.setOpacity(layer.renderer().opacity())
    return renderer


def _delete(raster: LiveRaster) -> None:
    """Delete a live raster's files on a thread of its own: a large file takes a while."""
    threading.Thread(target=raster.discard, name="rest-live-delete", daemon=True).start()
