"""``rest:segment`` in the Processing framework: as a script, as the toolbox, under qgis_process."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from qgis.core import (
    QgsApplication,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterDefinition,
    QgsProject,
    QgsRasterLayer,
)
from qgis.gui import QgsLayerTreeView
from rest_qgis.client import Progress
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing import run as run_module
from rest_qgis.processing.errors import RunError
from rest_qgis.processing.models import remembered_models
from rest_qgis.processing.segment_help import OUTPUTS, PARAMETERS
from tests.qgis.feedback import Feedback
from tests.qgis.stage import (
    CLASSES,
    MODEL,
    REPOSITORY,
    add_layer,
    make_scene,
    read,
    rest_layers,
    until,
)


@pytest.fixture
def run(plugin: RestPlugin, qgis_processing: None) -> Any:
    import processing

    return processing.run


def test_runs_as_a_script(run: Any, small_scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "classes.tif"
    feedback = Feedback()
    results = run(
        "rest:segment", {"INPUT": str(small_scene), "MODEL": MODEL, "OUTPUT": str(output)}, feedback=feedback
    )
    assert results["OUTPUT"] == str(output)
    assert results["JOB_ID"]
    assert results["DEVICE"].startswith("cpu") or results["DEVICE"].startswith("cuda")
    assert results["SECONDS"] > 0
    values = read(output)
    assert results["VALID_PIXELS"] == np.count_nonzero(values != 255) == 300 * 700 - 40 * 50
    assert feedback.percents[-1] == 100
    assert feedback.percents == sorted(feedback.percents)
    told = "\n".join(feedback.infos)
    assert MODEL in told
    assert "700 rows" in told
    assert "cpu" in told or "cuda" in told
    # A script gets files and numbers, no layers in the project.
    assert rest_layers() == []


def test_extent_gives_that_window(run: Any, small_scene: Path, tmp_path: Path) -> None:
    """30 m x 30 m at 0.3 m, given in another coordinate system's digits of the same one."""
    output = tmp_path / "part.tif"
    extent = "523683.0,523713.0,5267172.0,5267202.0 [EPSG:26910]"
    run("rest:segment", {"INPUT": str(small_scene), "EXTENT": extent, "OUTPUT": str(output)})
    assert read(output).shape == (100, 100)
    layer = QgsRasterLayer(str(output))
    assert layer.extent().toString(3) == "523683.000,5267172.000 : 523713.000,5267202.000"


def test_note_of_the_daemon_is_a_warning(run: Any, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", 96, 96, crs=False)
    feedback = Feedback()
    run("rest:segment", {"INPUT": str(scene), "OUTPUT": str(tmp_path / "o.tif")}, feedback=feedback)
    assert any("coordinate" in warning.lower() or "crs" in warning.lower() for warning in feedback.warnings)


@pytest.mark.parametrize(
    ("model", "code"),
    [("no-such-model", "E_MODEL_UNKNOWN"), ("/nowhere/card.json", "E_CARD_MISSING")],
)
def test_unknown_model_is_named(run: Any, small_scene: Path, tmp_path: Path, model: str, code: str) -> None:
    output = tmp_path / "o.tif"
    with pytest.raises(QgsProcessingException, match=rf"{model}.*\({code}\)"):
        run("rest:segment", {"INPUT": str(small_scene), "MODEL": model, "OUTPUT": str(output)})
    assert not output.exists()


def test_card_by_its_path(run: Any, small_scene: Path, tmp_path: Path) -> None:
    folder = REPOSITORY / "resources" / "models"
    for suffix in (".json", ".safetensors"):
        shutil.copyfile(folder / f"{MODEL}{suffix}", tmp_path / f"mine{suffix}")
    card, output = tmp_path / "mine.json", tmp_path / "o.tif"
    run("rest:segment", {"INPUT": str(small_scene), "MODEL": str(card), "OUTPUT": str(output)})
    assert set(np.unique(read(output))) <= {*CLASSES, 255}


def test_error_carries_sentence_and_code(run: Any, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "one band.tif", 64, 64, bands=1)
    output = tmp_path / "o.tif"
    with pytest.raises(QgsProcessingException, match=r"band.*\(E_[A-Z_]+\)"):
        run("rest:segment", {"INPUT": str(scene), "OUTPUT": str(output)})
    assert not output.exists()


def test_bands_can_be_given_in_the_models_order(run: Any, tmp_path: Path) -> None:
    scenes = [make_scene(tmp_path / f"{name}.tif", 200, 150) for name in ("plain", "swapped")]
    values = gdal.Open(str(scenes[0])).ReadAsArray()
    values[0] //= 2  # so that the order counts
    for path, bands in zip(scenes, (values, values[::-1]), strict=True):
        dataset = gdal.Open(str(path), gdal.GA_Update)
        dataset.WriteArray(np.ascontiguousarray(bands))
        del dataset
    classes = []
    for scene, bands in ((scenes[0], None), (scenes[1], [3, 2, 1]), (scenes[1], None)):
        output = tmp_path / "o.tif"
        run("rest:segment", {"INPUT": str(scene), "BANDS": bands, "OUTPUT": str(output)})
        classes.append(read(output))
    assert (classes[0] == classes[1]).all()
    assert (classes[0] != classes[2]).any()


@pytest.mark.parametrize(
    ("bands", "code"), [([1, 2], "E_BANDS_COUNT"), ([1, 2, 2], "E_BANDS_TWICE"), ([1, 2, 4], "E_SCENE_BANDS")]
)
def test_bands_that_do_not_fit_are_refused(
    run: Any, small_scene: Path, tmp_path: Path, bands: list[int], code: str
) -> None:
    with pytest.raises(QgsProcessingException, match=code):
        run("rest:segment", {"INPUT": str(small_scene), "BANDS": bands, "OUTPUT": str(tmp_path / "o.tif")})


def test_bands_that_cannot_be_told_are_refused(run: Any, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "two bands.tif", 64, 64, bands=2)
    with pytest.raises(QgsProcessingException, match="E_BANDS_UNSURE"):
        run("rest:segment", {"INPUT": str(scene), "OUTPUT": str(tmp_path / "o.tif")})


def test_confidence_and_probabilities_in_another_resolution(
    run: Any, small_scene: Path, tmp_path: Path
) -> None:
    outputs = {name: str(tmp_path / f"{name}.tif") for name in ("OUTPUT", "CONFIDENCE", "PROBABILITIES")}
    results = run("rest:segment", {"INPUT": str(small_scene), "RESOLUTION": 0.45, **outputs})
    assert {name: results[name] for name in outputs} == outputs
    classes, confidence = read(outputs["OUTPUT"]), read(outputs["CONFIDENCE"])
    probabilities = gdal.Open(outputs["PROBABILITIES"]).ReadAsArray()
    assert classes.shape == confidence.shape == (700, 300)  # on the scene's own grid
    assert probabilities.shape == (len(CLASSES), 700, 300)
    present = classes != 255
    assert ((confidence != 255) == present).all()
    assert (probabilities[:, ~present] == 255).all()
    assert (confidence == probabilities.max(axis=0)).all()
    chosen = np.take_along_axis(probabilities, np.where(present, classes, 0)[None].astype(int), 0)[0]
    assert (chosen[present] == confidence[present]).all()
    layer = QgsRasterLayer(outputs["CONFIDENCE"])
    block = layer.dataProvider().block(1, layer.extent(), 300, 700)
    assert block.value(10, 10) == pytest.approx(confidence[10, 10] / 254)
    assert block.isNoData(699, 299)


def test_cancel_is_heard_within_two_seconds(run: Any, long_scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    feedback = Feedback(cancel_on="sweep")
    with pytest.raises(QgsProcessingException, match="E_CANCELLED"):
        run("rest:segment", {"INPUT": str(long_scene), "OUTPUT": str(folder / "o.tif")}, feedback=feedback)
    assert time.monotonic() - feedback.cancelled_at < 5  # two seconds and a busy machine
    assert list(folder.iterdir()) == []


def test_toolbox_job_gets_the_live_layer_and_no_second_one(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, qgis_processing: None, tmp_path: Path
) -> None:
    """As the toolbox runs it: in a task, with "open output file" ticked."""
    imagery = add_layer(make_scene(tmp_path / "scene.tif", 256, 1300), qgis_iface)
    output = str(tmp_path / "classes.tif")
    context = _context()
    opened = QgsProcessingOutputLayerDefinition(output, QgsProject.instance())
    sources: list[str] = []
    results = _run_as_task(context, {"INPUT": imagery.id(), "OUTPUT": opened}, qtbot, sources)
    assert results["OUTPUT"] == output
    assert any(source.endswith(".vrt") for source in sources)
    assert [layer.source() for layer in rest_layers()] == [output]
    assert rest_layers()[0].name().startswith("scene – ")
    assert context.layersToLoadOnCompletion() == {}
    assert qgis_iface.activeLayer() is imagery


def test_toolbox_job_whose_result_is_not_wanted_open(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, qgis_processing: None, tmp_path: Path
) -> None:
    imagery = add_layer(make_scene(tmp_path / "scene.tif", 256, 1300), qgis_iface)
    sources: list[str] = []
    _run_as_task(_context(), {"INPUT": imagery.id(), "OUTPUT": str(tmp_path / "o.tif")}, qtbot, sources)
    assert any(source.endswith(".vrt") for source in sources)
    until(qtbot, lambda: rest_layers() == [])


@pytest.mark.parametrize("opened", [True, False])
def test_toolbox_job_keeps_the_scores_that_are_wanted_open(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, qgis_processing: None, tmp_path: Path, opened: bool
) -> None:
    """Both are watched while they grow, whatever is wanted afterwards."""
    imagery = add_layer(make_scene(tmp_path / "scene.tif", 256, 1300), qgis_iface)
    context = _context()
    names = {
        name: str(tmp_path / f"{name.lower()}.tif") for name in ("OUTPUT", "CONFIDENCE", "PROBABILITIES")
    }
    wanted = {
        name: QgsProcessingOutputLayerDefinition(path, QgsProject.instance()) for name, path in names.items()
    }
    if not opened:
        wanted["CONFIDENCE"], wanted["PROBABILITIES"] = names["CONFIDENCE"], names["PROBABILITIES"]
    sources: list[str] = []
    _run_as_task(context, {"INPUT": imagery.id(), **wanted}, qtbot, sources)
    assert len({source for source in sources if source.endswith(".vrt")}) == 2
    shown = sorted(layer.source() for layer in rest_layers())
    assert shown == (sorted(names.values()) if opened else [names["OUTPUT"]])
    assert context.layersToLoadOnCompletion() == {}
    assert all(Path(path).is_file() for path in names.values())


def test_relative_output_is_loaded_once(
    plugin: RestPlugin,
    qgis_iface: Any,
    qtbot: Any,
    qgis_processing: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    imagery = add_layer(make_scene(tmp_path / "scene.tif", 256, 1300), qgis_iface)
    context = _context()
    opened = QgsProcessingOutputLayerDefinition("classes.tif", QgsProject.instance())
    results = _run_as_task(context, {"INPUT": imagery.id(), "OUTPUT": opened}, qtbot, [])
    assert results["OUTPUT"] == "classes.tif"
    assert [layer.source() for layer in rest_layers()] == [str(tmp_path / "classes.tif")]
    assert context.layersToLoadOnCompletion() == {}


def test_unload_in_mid_job_ends_the_task_at_once(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, qgis_processing: None, long_scene: Path, tmp_path: Path
) -> None:
    """The job itself goes on in the daemon."""
    imagery = add_layer(long_scene, qgis_iface)
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("rest:segment")
    feedback = QgsProcessingFeedback()
    context = _context()
    parameters = {"INPUT": imagery.id(), "OUTPUT": str(tmp_path / "o.tif")}
    task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
    ended: list[bool] = []
    task.executed.connect(lambda fine, results: ended.append(fine))
    QgsApplication.taskManager().addTask(task)
    until(qtbot, lambda: "sweep" in feedback.textLog())
    plugin.unload()
    assert not feedback.isCanceled()
    qtbot.waitUntil(lambda: bool(ended), timeout=8000)  # it looped for ever
    assert ended == [False]
    assert "E_CLIENT_CLOSED" in feedback.textLog()
    assert "goes on" in feedback.textLog()


def test_the_time_limit_of_a_cancel_is_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that goes on telling its progress is asked once and given up all the same."""
    clock = [100.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: clock[0])
    asked: list[int] = []

    class Desk:
        def segment(self, order: Any, listener: Any) -> Any:
            for number in range(50):
                listener.progress(None, Progress("sweep", number, 50, 1.0, None, "cpu", 0, ""))
            return SimpleNamespace(id="job", cancel=lambda: asked.append(1))

    class Impatient(Feedback):
        def setProgress(self, percent: float) -> None:
            clock[0] += 1.0

    feedback = Impatient()
    feedback.cancel()
    with pytest.raises(RunError, match="did not confirm"):
        run_module.JobRun(Desk(), feedback).segment(None)
    assert asked == [1]
    assert 110.0 <= clock[0] <= 113.0


def test_loaded_result_gets_name_and_legend(
    plugin: RestPlugin,
    qgis_iface: Any,
    qgis_processing: None,
    small_scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no live layer shows it: a script that asks for the layer."""
    view = QgsLayerTreeView()
    monkeypatch.setattr(qgis_iface, "layerTreeView", lambda: view, raising=False)
    import processing

    results = processing.runAndLoadResults(
        "rest:segment", {"INPUT": str(small_scene), "OUTPUT": str(tmp_path / "o.tif")}
    )
    (layer,) = [
        layer for layer in QgsProject.instance().mapLayers().values() if layer.source() == results["OUTPUT"]
    ]
    assert layer.name().startswith("small scene – ")
    assert [(entry.value, entry.label) for entry in layer.renderer().classes()] == list(CLASSES.items())


def test_algorithm_is_described(plugin: RestPlugin) -> None:
    algorithm = QgsApplication.processingRegistry().algorithmById("rest:segment")
    names = [parameter.name() for parameter in algorithm.parameterDefinitions()]
    assert names == [*PARAMETERS]
    assert all(parameter.help() for parameter in algorithm.parameterDefinitions())
    outputs = [output.name() for output in algorithm.outputDefinitions()]
    assert sorted(outputs) == sorted([*OUTPUTS, "OUTPUT", "CONFIDENCE", "PROBABILITIES"])
    for name in ("CONFIDENCE", "PROBABILITIES"):
        destination = algorithm.parameterDefinition(name)
        assert not destination.createByDefault()
        assert int(destination.flags() & QgsProcessingParameterDefinition.Flag.FlagOptional)
    text = algorithm.shortHelpString()
    assert all(parameter.description() in text for parameter in algorithm.parameterDefinitions())
    assert algorithm.helpUrl().startswith("https://")
    assert "land cover" in algorithm.tags()
    assert algorithm.parameterDefinition("MODEL").defaultValue() == MODEL
    assert algorithm.canExecute()[0]


def test_toolbox_dialog_offers_models_and_takes_any_text(
    plugin: RestPlugin, qgis_iface: Any, qgis_processing: None, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qgis_iface, "browserModel", lambda: None, raising=False)
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    dialog = AlgorithmDialog(QgsApplication.processingRegistry().createAlgorithmById("rest:segment"))
    qtbot.addWidget(dialog)
    wrapper = dialog.mainWidget().wrappers["MODEL"]
    combo = wrapper.widget
    assert [combo.itemText(index) for index in range(combo.count())] == remembered_models()
    combo.setCurrentText("/models/mine.json")
    assert wrapper.parameterValue() == "/models/mine.json"


def test_job_of_a_lost_qgis_process_is_abandoned_and_one_of_qgis_is_not(
    run: Any, plugin: RestPlugin, tmp_path: Path
) -> None:
    scene = make_scene(tmp_path / "scene.tif", 64, 64)
    orders: list[Any] = []
    plugin.desk.observe(orders.append)
    for keep_engine in (True, False):  # a toolbar, or none
        plugin.desk.keep_engine = keep_engine
        run("rest:segment", {"INPUT": str(scene), "OUTPUT": str(tmp_path / "o.tif")})
    assert [order.abandon_seconds for order in orders] == [0, 60]


def test_control_c_in_a_script_cancels_the_job(run: Any, long_scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    class Interrupted(Feedback):
        def pushInfo(self, text: str) -> None:
            super().pushInfo(text)
            if "sweep" in text:
                threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    with pytest.raises(QgsProcessingException, match="E_CANCELLED"):
        parameters = {"INPUT": str(long_scene), "OUTPUT": str(folder / "o.tif")}
        run("rest:segment", parameters, feedback=Interrupted())
    assert list(folder.iterdir()) == []


def _context() -> QgsProcessingContext:
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    context.setTransformContext(QgsProject.instance().transformContext())
    return context


def _run_as_task(
    context: QgsProcessingContext, parameters: dict[str, Any], qtbot: Any, sources: list[str]
) -> dict[str, Any]:
    """Run in QGIS's task manager; ``sources`` collects what the project's job layers showed meanwhile."""
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("rest:segment")
    feedback = QgsProcessingFeedback()
    task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
    ended: list[tuple[bool, dict[str, Any]]] = []
    task.executed.connect(lambda fine, results: ended.append((fine, results)))
    QgsApplication.taskManager().addTask(task)

    def over() -> bool:
        sources.extend(layer.source() for layer in rest_layers())
        return bool(ended)

    until(qtbot, over)
    fine, results = ended[0]
    assert fine, feedback.textLog()
    return results
