"""What the toolbox says of ``rest:segment``: its parameters and outputs, each with its help."""

from __future__ import annotations

ABOUT = (
    "Segments a raster scene with a deep network as if the whole scene went through the network in one "
    "piece: no tiles and no seams. The work is done by the REST backend on this computer, which is started "
    "when it is not running; memory does not grow with the length of the scene. The result is a "
    "cloud-optimised GeoTIFF with one class id (0 to 254) per pixel and 255 where the scene has no data, on "
    "the scene's own grid. What lies around an area is read too, so that the classes inside do not depend "
    "on where the area ends."
)
# name: (title, help)
PARAMETERS = {
    "INPUT": (
        "Scene",
        "A raster layer with the bands the model reads. A layer that is no file on this computer (in memory, "
        "WMS, XYZ, a database) is copied first; maps without an end, such as WMS and XYZ, need an area.",
    ),
    "MODEL": (
        "Model",
        "The id of an installed model, such as kitsap-buildings, or the path of a model card (.json) with "
        "its weights beside it.",
    ),
    "BANDS": (
        "Bands",
        "The scene's bands in the order in which the model names its own. Empty: found by their names, "
        "wavelengths and colours, and refused where they cannot be told.",
    ),
    "AOI": (
        "Area (polygons)",
        "Only pixels whose centre lies inside these polygons get a class. They may have another coordinate "
        "system than the scene. Empty: no mask.",
    ),
    "EXTENT": (
        "Extent",
        "Only the part of the scene inside this extent gets classes. With polygons: where both are. Empty: "
        "the whole scene.",
    ),
    "MEMORY": (
        "Memory in GB",
        "Upper bound of the computing process's whole memory in gigabytes (10⁹ bytes). Empty: the backend "
        "decides.",
    ),
    "DEVICE": (
        "Device",
        "Where to compute: auto takes the first graphics card, and the processor where there is none.",
    ),
    "RESOLUTION": (
        "Ground resolution in metres",
        "The network sees the scene resampled to pixels of this size; the result stays on the scene's own "
        "grid. Maps without pixels of their own, such as WMS and XYZ, are drawn in it. Empty: the scene's "
        "own, or for such maps what the model expects.",
    ),
    "OUTPUT": (
        "Class map",
        "The GeoTIFF to write. Its style (.qml) and class names (.aux.xml) are written beside it.",
    ),
    "CONFIDENCE": (
        "Confidence",
        "A GeoTIFF with the probability of each pixel's class, from 0 to 1, as the network sees it.",
    ),
    "PROBABILITIES": (
        "Probabilities of all classes",
        "A GeoTIFF with one band for each class: its probability from 0 to 1, as the network sees it.",
    ),
}
OUTPUTS = {
    "JOB_ID": ("Job", "The backend's id of the job."),
    "DEVICE": ("Device used", "The device that computed."),
    "SECONDS": ("Seconds", "Time the job took."),
    "VALID_PIXELS": ("Pixels with data", "Number of pixels that got a class."),
}
