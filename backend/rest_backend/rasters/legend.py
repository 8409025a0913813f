"""The files beside a result that tell how to show it: a class map's legend, a score map's grey.

``OUT.tif.aux.xml`` (GDAL's side file) holds category names and a colour table of
exactly as many entries as there are ids. A colour table inside the TIFF would always
have 256 entries, and so would QGIS's legend of a copy that lost its style.
``OUT.qml`` (QGIS's default style of the layer) lists exactly the classes, also where
their ids have gaps. Its elements are those QGIS 3.22 to 4 read for a paletted raster.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol
from xml.etree import ElementTree

MAXIMUM_ID = 254  # 255 is nodata


class MapClass(Protocol):
    """A class of the map; a model card's class entries are such."""

    @property
    def id(self) -> int:
        """Value in the map, 0 to 254."""

    @property
    def name(self) -> str:
        """Name for the legend."""

    @property
    def color(self) -> str:
        """Colour as ``#rrggbb``."""


def check_classes(classes: Sequence[MapClass]) -> None:
    """Raise ValueError unless ids are distinct and 0 to 254 and colours are ``#rrggbb``."""
    if not classes:
        raise ValueError("a class map needs at least one class")
    ids = [entry.id for entry in classes]
    if len(set(ids)) != len(ids) or min(ids) < 0 or max(ids) > MAXIMUM_ID:
        raise ValueError(f"class ids must be distinct and from 0 to {MAXIMUM_ID}, not {ids}")
    for entry in classes:
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", entry.color):
            raise ValueError(f"class {entry.id} has the colour {entry.color!r}, not #rrggbb")


def auxiliary_document(classes: Sequence[MapClass]) -> bytes:
    """The ``.aux.xml`` of a class map: category names and colours by id.

    Args:
        classes: The classes, ids 0 to 254.

    Returns:
        The document, UTF-8. Ids without a class have an empty name and no colour.
    """
    by_id = {entry.id: entry for entry in classes}
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    ElementTree.SubElement(band, "ColorInterp").text = "Palette"
    colours = ElementTree.SubElement(band, "ColorTable")
    names = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(by_id) + 1):
        entry = by_id.get(value)
        red, green, blue = _channels(entry.color) if entry else (0, 0, 0)
        ElementTree.SubElement(
            colours, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255" if entry else "0"
        )
        ElementTree.SubElement(names, "Category").text = _plain(entry.name) if entry else ""
    return _document(root)


def style_document(classes: Sequence[MapClass]) -> bytes:
    """The ``.qml`` of a class map: a paletted renderer with exactly the classes, in their order.

    Args:
        classes: The classes, ids 0 to 254.

    Returns:
        The document, UTF-8.
    """
    root, pipe = _style()
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ElementTree.SubElement(renderer, "rasterTransparency")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for entry in classes:
        ElementTree.SubElement(
            palette,
            "paletteEntry",
            value=str(entry.id),
            label=_plain(entry.name),
            color=entry.color.lower(),
            alpha="255",
        )
    return _styled(root, pipe)


def score_style_document() -> bytes:
    """The ``.qml`` of a score map: its first band in grey, 0 black and 1 white.

    Returns:
        The document, UTF-8. Values are those after the band's scale.
    """
    root, pipe = _style()
    renderer = ElementTree.SubElement(
        pipe,
        "rasterrenderer",
        type="singlebandgray",
        grayBand="1",
        gradient="BlackToWhite",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
    )
    ElementTree.SubElement(renderer, "rasterTransparency")
    contrast = ElementTree.SubElement(renderer, "contrastEnhancement")
    ElementTree.SubElement(contrast, "minValue").text = "0"
    ElementTree.SubElement(contrast, "maxValue").text = "1"
    ElementTree.SubElement(contrast, "algorithm").text = "StretchToMinimumMaximum"
    return _styled(root, pipe)


def _style() -> tuple[ElementTree.Element, ElementTree.Element]:
    """The beginning of a style: its root, and the pipe that takes a renderer."""
    root = ElementTree.Element(
        "qgis", version="3.22.0", styleCategories="Symbology", hasScaleBasedVisibilityFlag="0"
    )
    pipe = ElementTree.SubElement(root, "pipe")
    provider = ElementTree.SubElement(pipe, "provider")
    ElementTree.SubElement(
        provider,
        "resampling",
        enabled="false",  # ids must not be mixed
        zoomedInResamplingMethod="nearestNeighbour",
        zoomedOutResamplingMethod="nearestNeighbour",
        maxOversampling="2",
    )
    return root, pipe


def _styled(root: ElementTree.Element, pipe: ElementTree.Element) -> bytes:
    """The end of a style, and the whole as a document."""
    ElementTree.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ElementTree.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ElementTree.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ElementTree.SubElement(pipe, "resamplingStage").text = "resamplingFilter"
    ElementTree.SubElement(root, "blendMode").text = "0"
    return _document(root, "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n")


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _plain(name: str) -> str:
    """The name without characters XML cannot hold."""
    return re.sub(r"[\x00-\x1f\ufffe\uffff\ud800-\udfff]", " ", name)


def _document(root: ElementTree.Element, head: str = "") -> bytes:
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f"{head}{text}\n".encode()
