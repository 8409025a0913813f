"""The demo's picture: imagery and class map side by side, with all one needs to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.enums import Resampling

PANEL = 880  # pixels, the longer side of either panel
MARGIN, GAP = 40, 28
INK, GREY, PAPER = "#1b1f24", "#5c6670", "#ffffff"
BLOCK_COLOR = "#0a50c8"  # far from every colour of imagery and of the bundled model's classes
NODATA, NODATA_COLOR = 255, "#b8bec6"
BAR_METRES = 100

Canvas = ImageDraw.ImageDraw


def draw_preview(scene: Path, classes: Path, card: dict[str, Any], run: str, output: Path) -> None:
    """Draw imagery and result side by side.

    Args:
        scene: The imagery; its first three bands are shown as red, green, blue.
        classes: The class map of the whole scene, uint8.
        card: Summary of the model: ``name``, ``classes``, ``score`` with the test block in ``window``.
        run: One line about the run.
        output: The PNG to write.
    """
    with rasterio.open(scene) as source:
        scale = PANEL / max(source.width, source.height)
        size = (round(source.width * scale), round(source.height * scale))
        bands = source.read([1, 2, 3], out_shape=(3, size[1], size[0]), resampling=Resampling.average)
        metre = scale / abs(source.transform.a)  # panel pixels
        caption = f"{source.width:,} by {source.height:,} pixels, {abs(source.transform.a):g} m each"
    with rasterio.open(classes) as source:
        ids = source.read(1)
    imagery = Image.fromarray(np.moveaxis(bands, 0, 2))
    # Colours are averaged, not ids, so that small buildings stay visible and edges are smooth.
    mapped = Image.fromarray(_colours(ids, card)).resize(size, Image.Resampling.BOX)

    top = 128
    bottom = top + size[1]
    canvas = Image.new("RGB", (2 * MARGIN + GAP + 2 * size[0], bottom + 132), PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, (MARGIN, 28), card["name"], 30)
    _text(draw, (MARGIN, 70), f"Sample scene, {caption}, segmented as one scene in {run}", 17, GREY)
    for left, title, panel in (
        (MARGIN, "Imagery", imagery),
        (MARGIN + size[0] + GAP, f"Class map by {card['id']}", mapped),
    ):
        _text(draw, (left, top - 26), title, 17)
        canvas.paste(panel, (left, top))
        draw.rectangle((left - 1, top - 1, left + size[0], bottom), outline="#8a929b")
        _outline_block(draw, card["score"]["window"], scale, (left, top))
    _scale_bar(draw, MARGIN, bottom + 22, metre)
    _legend(draw, MARGIN + size[0] + GAP, bottom + 20, ids, card)
    _score(draw, MARGIN, bottom + 66, card)
    temporary = output.with_suffix(".new.png")
    canvas.save(temporary, optimize=True)
    temporary.replace(output)


def _colours(ids: NDArray[np.uint8], card: dict[str, Any]) -> NDArray[np.uint8]:
    """Class map as RGB in the card's colours."""
    table = np.tile(np.array(_rgb(NODATA_COLOR), np.uint8), (256, 1))
    for entry in card["classes"]:
        table[entry["id"]] = _rgb(entry["color"])
    return table[ids]


def _outline_block(draw: Canvas, window: list[int], scale: float, origin: tuple[int, int]) -> None:
    """The block kept for testing: the one part the score may be quoted on."""
    column, row, width, height = window
    # Edges shared with the panel are drawn inside it.
    left, top = origin[0] + round(column * scale), origin[1] + round(row * scale)
    right, bottom = left + round(width * scale) - 1, top + round(height * scale) - 1
    for inset, color in enumerate((PAPER, BLOCK_COLOR, BLOCK_COLOR, BLOCK_COLOR, PAPER)):
        draw.rectangle((left + inset, top + inset, right - inset, bottom - inset), outline=color)


def _legend(draw: Canvas, left: int, top: int, ids: NDArray[np.uint8], card: dict[str, Any]) -> None:
    """Classes with their share of the scene."""
    entries = [(entry["id"], entry["name"], entry["color"]) for entry in card["classes"]]
    if (ids == NODATA).any():
        entries.append((NODATA, "no data", NODATA_COLOR))
    for number, name, color in entries:
        draw.rectangle((left, top, left + 26, top + 20), fill=color, outline="#8a929b")
        text = f"{name}, {(ids == number).mean():.1%} of the scene"
        _text(draw, (left + 36, top + 1), text, 17)
        left += 36 + round(draw.textlength(text, font=_font(17))) + 36


def _scale_bar(draw: Canvas, left: int, top: int, metre: float) -> None:
    width = round(BAR_METRES * metre)
    draw.rectangle((left, top + 7, left + width, top + 11), fill=INK)
    for x in (left, left + width):
        draw.line((x, top + 2, x, top + 16), fill=INK, width=2)
    _text(draw, (left + width + 12, top - 1), f"{BAR_METRES} m", 17)


def _score(draw: Canvas, left: int, top: int, card: dict[str, Any]) -> None:
    score = card["score"]
    names = {entry["id"]: entry["name"] for entry in card["classes"]}
    parts = [
        f"{names[entry['id']]} IoU {entry['iou']:.3f}, precision {entry['precision']:.3f}, "
        f"recall {entry['recall']:.3f}"
        for entry in score["classes"]
    ]
    draw.rectangle((left, top + 1, left + 26, top + 19), outline=BLOCK_COLOR, width=3)
    _text(
        draw,
        (left + 36, top),
        f"Test block, never trained on. The score is of its {score['pixels']:,} pixels only: "
        f"{'; '.join(parts)}.",
        17,
    )
    note = score.get("note", "").partition("; ")[0].rstrip(".")
    if note:
        _text(draw, (left + 36, top + 26), f"{note}.", 15, GREY)


def _text(draw: Canvas, at: tuple[int, int], text: str, size: int, color: str = INK) -> None:
    draw.text(at, text, fill=color, font=_font(size))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)  # the one inside Pillow: no font of the system is needed


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
