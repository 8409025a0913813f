"""What the backend answers, as the widgets get it."""

from __future__ import annotations

from typing import Any

RGB = ("red", "green", "blue")


def plan(
    how: str = "name", found: tuple[int | None, ...] = (1, 2, 3), count: int = 3, **more: Any
) -> dict[str, Any]:
    """A plan of a three-band model on a scene of ``count`` bands."""
    return {
        "ground_resolution_m": 0.3,
        "bands": [
            {
                "model": name,
                "role": name,
                "band": band,
                "name": "",
                "how": "missing" if band is None else how,
                "sure": band is not None and how != "order",
                "reason": f"why {name}",
            }
            for name, band in zip(RGB, found, strict=True)
        ],
        "scene_bands": [
            {"number": number, "name": f"B{number}", "role": "", "wavelength_nm": None, "dtype": "uint8"}
            for number in range(1, count + 1)
        ],
        "width": 2560,
        "height": 1280,
        "window": [0, 0, 2560, 1280],
        "area_pixels": None,
        "resolution_m": None,
        "run_width": 2560,
        "run_height": 1280,
        "device": "cpu",
        "device_name": "A processor",
        "stripe": 512,
        "fallback_ops": [],
        "memory_bytes": 1_400_000_000,
        "memory_limit_bytes": 8_000_000_000,
        "output_bytes": 6_600_000,
        "disk_bytes": 20_000_000,
        "free_bytes": 10**11,
        "seconds": 31.4,
        "seconds_basis": "measured on this computer",
        "fits": True,
        "problems": [],
        "notes": [],
        **more,
    }


def summary(identifier: str = "m1", name: str = "A model", bands: tuple[str, ...] = RGB) -> dict[str, Any]:
    """A model's summary."""
    return {
        "id": identifier,
        "name": name,
        "bands": list(bands),
        "classes": [
            {"id": 0, "name": "ground", "color": "#e8e4d8"},
            {"id": 7, "name": "roof & wall", "color": "#d7301f"},
        ],
        "ground_resolution_m": {"expected": 0.3, "minimum": 0.2, "maximum": 0.5},
        "licence": "free",
        "good_for": "Houses.",
        "limits": "Nothing else.",
        "score": {"classes": [{"id": 7, "iou": 0.63}]},
    }
