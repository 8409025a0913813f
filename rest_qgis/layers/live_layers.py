"""The job observer: gives each job layers that fill in while the job runs.

Its listeners run on the client's thread and do the writing, but for the first
filling, which has a thread of its own; the layers live on QGIS's main thread.
Between them travel only queued signals.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

from qgis.core import (
    Qgis,
    QgsDataProvider,
    QgsMessageLog,
    QgsPalettedRasterRenderer,
    QgsProject,
    QgsRasterLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QTimer, pyqtSignal
from qgis.PyQt.QtGui import QColor

from rest_qgis.install.folder import make_results_folder, results_folder
from rest_qgis.layers.group import insert_in_group
from rest_qgis.layers.live_raster import LiveRaster
from rest_qgis.layers.main_thread import MainThread
from rest_qgis.layers.names import (
    JOB_PROPERTY,
    PREVIEW_PROPERTY,
    PRODUCT_PROPERTY,
    product_title,
    unused_name,
)
from rest_qgis.resources import style_path

REFRESH_MILLISECONDS = 250
_DELETING = "rest-live-delete"  # name of the threads that delete files
_DELETE_SECONDS = 2.0  # for each of them, when the plugin is unloaded


class LiveLayers(QObject):
    """Makes, refreshes, finishes and removes the layers of jobs.

    A job has a layer of its classes, one of its confidence below it where that was asked for, and at
    the end one of its probabilities. There is one preview at most: the next takes its place.

    Signals:
        finished: The result is on the map. Arguments: the order, the id of the classes' layer.
        trouble: The growing result of a job cannot be shown; the job goes on. Argument: a sentence.
    """

    finished = pyqtSignal(object, str)
    trouble = pyqtSignal(str)

    def __init__(self, canvas: QgsMapCanvas, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._canvas = canvas
        self._closed = False
        self._numbers = itertools.count(1)
        self._shown: dict[Any, dict[str, _Shown]] = {}  # by listener and product
        self._newest_preview = 0
        self._preview: QgsRasterLayer | None = None  # the layer of a preview, running or done
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
        number = next(self._numbers)
        if order.preview:
            self._newest_preview = number
        return _Listener(self, order, number)

    def show_again(self, keys: Container[str]) -> bool:
        """Put running jobs back on the map whose layers were removed, or went with another project.

        Args:
            keys: Keys of the jobs' orders.

        Returns:
            Whether there was one.
        """
        gone = [
            listener
            for listener, products in self._shown.items()
            if listener.order.key in keys and all(sip.isdeleted(shown.layer) for shown in products.values())
        ]
        for listener in gone:
            del self._shown[listener]
            self._show(listener)
        return bool(gone)

    def close(self) -> None:
        """Forget every running job and the preview: their layers and files go. May be called twice."""
        self._closed = True
        self._main.close()
        self._timer.stop()
        for listener in list(self._shown):
            self._drop(listener)
        self._remove_preview()
        for thread in threading.enumerate():
            if thread.name == _DELETING:
                thread.join(_DELETE_SECONDS)  # QGIS may be ending, and threads with it

    def _show(self, listener: _Listener) -> None:
        order = listener.order
        if self._closed or self._is_replaced(listener):
            _delete(listener.rasters.values())
            return
        layers = {}
        for product, raster in listener.rasters.items():
            layer = QgsRasterLayer(str(raster.path), "", "gdal")
            styled = product != "classes" or (layer.isValid() and _style(layer, order.classes))
            if not layer.isValid() or not styled:
                text = self.tr("The growing result of “{0}” cannot be shown; the job goes on.")
                self.trouble.emit(text.format(order.title))
                _delete(listener.rasters.values())
                return
            layers[product] = layer
        if order.preview:
            self._remove_preview()
        above = None
        for product, layer in layers.items():
            self._add(layer, listener, product, above)
            above = layer
        self._shown[listener] = {product: _Shown(layer) for product, layer in layers.items()}
        self._timer.start()

    def _add(
        self, layer: QgsRasterLayer, listener: _Listener, product: str, above: QgsRasterLayer | None
    ) -> None:
        """Put a layer on the map, below another one of its job."""
        order, project = listener.order, QgsProject.instance()
        layer.setName(unused_name(project, product_title(order.title, product)))
        layer.setCustomProperty(JOB_PROPERTY, listener.job_id)
        layer.setCustomProperty(PRODUCT_PROPERTY, product)
        if order.preview and product == "classes":
            self._preview = layer
            layer.setCustomProperty(PREVIEW_PROPERTY, True)
            files = list(_files_of(order))
            layer.willBeDeleted.connect(lambda: _unlink(files))
        insert_in_group(project, layer, order.scene, above)

    def _refresh(self) -> None:
        # A repaint while the canvas still draws would restart the drawing and never end it.
        if self._canvas.isDrawing():
            return
        for listener, products in self._shown.items():
            for product, shown in products.items():
                rows = listener.rasters[product].rows_written
                if rows != shown.rows and not sip.isdeleted(shown.layer):
                    shown.rows = rows
                    shown.layer.dataProvider().reloadData()
                    shown.layer.triggerRepaint()

    def _complete(self, listener: _Listener, output: str) -> None:
        order = listener.order
        if self._is_replaced(listener):
            self._drop(listener)
            return
        if order.preview and listener not in self._shown:
            self._remove_preview()
        all_shown = self._shown.pop(listener, {})
        outputs = {"classes": output, "confidence": order.confidence, "probabilities": order.probabilities}
        layers: dict[str, QgsRasterLayer] = {}
        for product, path in outputs.items():
            if not path:
                continue
            shown = all_shown.get(product)
            if shown is not None:
                layer = self._settle(shown.layer, product, path, order.keep_layer)
            else:
                layer = QgsRasterLayer(path, "", "gdal") if order.keep_layer else None
                if layer is not None:  # styled by the QML beside it
                    self._add(layer, listener, product, next(reversed(list(layers.values())), None))
            if layer is not None:
                layers[product] = layer
        self._finish(listener)
        if order.preview and not layers:
            _unlink(_files_of(order))
        self.finished.emit(order, layers["classes"].id() if "classes" in layers else "")

    def _settle(self, layer: QgsRasterLayer, product: str, path: str, keep: bool) -> QgsRasterLayer | None:
        """Have a live layer show the finished file, or remove it; None where there is none any more."""
        if sip.isdeleted(layer):
            return None
        if not keep:
            QgsProject.instance().removeMapLayer(layer.id())
            return None
        options = QgsDataProvider.ProviderOptions()
        options.transformContext = QgsProject.instance().transformContext()
        own_style = product != "classes"  # whose legend stays as the user may have changed it
        layer.setDataSource(path, layer.name(), "gdal", options, own_style)
        layer.triggerRepaint()
        return layer

    def _drop(self, listener: _Listener) -> None:
        for shown in self._shown.pop(listener, {}).values():
            if not sip.isdeleted(shown.layer):
                QgsProject.instance().removeMapLayer(shown.layer.id())
        self._finish(listener)
        if listener.order.preview:
            _unlink(_files_of(listener.order))

    def _finish(self, listener: _Listener) -> None:
        if not self._shown:
            self._timer.stop()
        _delete(listener.rasters.values())

    def _is_replaced(self, listener: _Listener) -> bool:
        return listener.order.preview and listener.number < self._newest_preview

    def _remove_preview(self) -> None:
        layer, self._preview = self._preview, None
        if layer is not None and not sip.isdeleted(layer):
            QgsProject.instance().removeMapLayer(layer.id())


class _Shown:
    """What the main thread keeps of a live layer: the layer and how much of it was drawn."""

    def __init__(self, layer: QgsRasterLayer) -> None:
        self.layer = layer
        self.rows = 0


class _Listener:
    """Writes one job's rows; its public methods run on the client's thread, the constructor on any.

    Attributes:
        rasters: The live rasters by product, the topmost layer's first; empty until their window is known.
    """

    def __init__(self, owner: LiveLayers, order: Any, number: int) -> None:
        self.order = order
        self.number = number
        self.rasters: dict[str, LiveRaster] = {}
        self.job_id = ""
        self._owner = owner
        self._alive = False  # the job runs and its rows can be written
        self._lock = threading.Lock()  # of that, and of the order of signals

    def submitted(self, job: Any) -> None:
        self.job_id = job.id
        self._alive = True
        if self.order.window is not None or not self.order.aoi:
            self._begin(self.order.window)

    def progress(self, job: Any, progress: Any) -> None:
        pass

    def rows(self, job: Any, rows: Any) -> None:
        if self._alive and not self.rasters:  # the box around an area is known to the daemon alone
            self._begin((rows.column, rows.row, rows.width, 0))
        raster = self.rasters.get(rows.product)
        if self._alive and raster is not None:
            window = (rows.column, rows.row, rows.width, rows.height)
            self._attempt(lambda: raster.write(window, rows.values))

    def done(self, job: Any, done: Any) -> None:
        self._end()
        self._post(lambda owner: owner._complete(self, done.output))

    def failed(self, job: Any, code: str, message: str) -> None:
        self._end()
        self._post(lambda owner: owner._drop(self))

    def _begin(self, window: tuple[int, int, int, int] | None) -> None:
        order = self.order
        if not Path(order.scene).exists():  # a copy, deleted with its job: only the finished result comes
            self._alive = False
            return
        # Not in QGIS's temporary folder: on closing, QGIS would say that the layer's contents will be lost.
        make_results_folder()
        stem = results_folder() / f"live-{secrets.token_hex(8)}"
        path = stem.with_name(f"{stem.name}-classes.vrt")
        self.rasters["classes"] = LiveRaster(path, order.scene, order.classes, window)
        if order.confidence:
            path, style = stem.with_name(f"{stem.name}-confidence.vrt"), style_path("score_map.qml")
            self.rasters["confidence"] = LiveRaster(path, order.scene, None, window, style)
        if all(self._attempt(raster.create) for raster in self.rasters.values()):
            threading.Thread(target=self._fill, name="rest-live-fill", daemon=True).start()

    def _fill(self) -> None:
        """On a thread of its own: ask for the layers once every pixel is written, unless the job ended."""
        whole = all(self._attempt(raster.fill) for raster in self.rasters.values())
        with self._lock:
            if whole and self._alive:
                self._post(lambda owner: owner._show(self))
                return
        for raster in self.rasters.values():
            raster.discard()

    def _end(self) -> None:
        with self._lock:
            self._alive = False
        for raster in self.rasters.values():
            raster.close()

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


def _style(layer: QgsRasterLayer, classes: Any) -> bool:
    """Give a live layer of classes its looks; False where that is impossible."""
    loaded = layer.loadNamedStyle(style_path("class_map.qml"))[1]
    if loaded:
        layer.setRenderer(_class_renderer(layer, classes))
    return loaded


def _class_renderer(layer: QgsRasterLayer, classes: Any) -> QgsPalettedRasterRenderer:
    # The base style has no classes, and a renderer takes them only when it is made.
    entries = [
        QgsPalettedRasterRenderer.Class(entry.id, QColor(entry.color), entry.name) for entry in classes
    ]
    renderer = QgsPalettedRasterRenderer(layer.dataProvider(), 1, entries)
    renderer.setOpacity(layer.renderer().opacity())
    return renderer


def _delete(rasters: Iterable[LiveRaster]) -> None:
    """Delete the files of live rasters on a thread of its own: a large file takes a while."""
    kept = list(rasters)

    def discard() -> None:
        for raster in kept:
            raster.discard()

    threading.Thread(target=discard, name=_DELETING, daemon=True).start()


def _files_of(order: Any) -> Iterable[Path]:
    """Everything a finished job leaves on the disk."""
    for output in (order.output, order.confidence, order.probabilities):
        if output:
            yield from (Path(output), Path(f"{output}.aux.xml"), Path(output).with_suffix(".qml"))


def _unlink(files: Iterable[Path]) -> None:
    """Delete the files of a preview on a thread of its own; those in use stay for a week."""
    kept = list(files)

    def unlink() -> None:
        for file in kept:
            with suppress(OSError):
                file.unlink()

    threading.Thread(target=unlink, name=_DELETING, daemon=True).start()
