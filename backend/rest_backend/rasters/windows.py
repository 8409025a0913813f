"""Windows of a scene: (column, row, width, height) in pixels, the top left pixel is 0, 0."""

from __future__ import annotations

from typing import Protocol

from rest_backend.errors import InputError

Window = tuple[int, int, int, int]


class Sized(Protocol):
    """Anything with a size in pixels."""

    width: int
    height: int


def checked_window(scene: Sized, window: Window | None) -> Window:
    """A window that lies inside a scene.

    Args:
        scene: The scene.
        window: (column, row, width, height) in pixels; None is the whole scene.

    Returns:
        The window.

    Raises:
        InputError: ``E_WINDOW``, for a window that is empty or leaves the scene.
    """
    if window is None:
        return (0, 0, scene.width, scene.height)
    column, row, width, height = window
    inside = 0 <= column < column + width <= scene.width and 0 <= row < row + height <= scene.height
    if not inside:
        raise InputError(
            "E_WINDOW",
            f"The area (column {column}, row {row}, {width} x {height} pixels) is empty or leaves the scene, "
            f"which has {scene.width} x {scene.height} pixels.",
        )
    return (column, row, width, height)
