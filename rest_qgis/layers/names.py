"""What the layers of jobs are called, and the marks that tell them from others."""

from __future__ import annotations

from qgis.core import QgsMapLayer, QgsProject
from qgis.PyQt.QtCore import QCoreApplication

JOB_PROPERTY = "rest/job"  # custom property of every layer a job made: the job's id
PRODUCT_PROPERTY = "rest/product"  # and which of its results it shows: classes, confidence, probabilities
PREVIEW_PROPERTY = "rest/preview"  # of a preview's layer, whose file goes with the layer


def product_title(title: str, product: str) -> str:
    """Return the name of the layer that shows one result of a job: what differs comes first.

    Args:
        title: Name of the job's class map.
        product: ``classes``, ``confidence`` or ``probabilities``.
    """
    if product == "confidence":
        return QCoreApplication.translate("Names", "Confidence – {0}").format(title)
    if product == "probabilities":
        return QCoreApplication.translate("Names", "Probabilities – {0}").format(title)
    return title


def unused_name(project: QgsProject, name: str, own: QgsMapLayer | None = None) -> str:
    """Return a name that no other layer of a project has: the name itself, or with a number from 2.

    Args:
        project: The project; only on its own thread.
        name: The name wanted.
        own: The layer to be named, where it is in the project already.
    """
    taken = {layer.name() for layer in project.mapLayers().values() if layer is not own}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
