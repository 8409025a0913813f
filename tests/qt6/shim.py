"""``qgis.PyQt`` over PyQt6, as QGIS 4 has it; of the rest of QGIS there is nothing.

A module that imports ``qgis.core`` or ``qgis.gui`` fails here, so what runs is known to need Qt alone.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

PARTS = ("QtCore", "QtGui", "QtWidgets", "QtSvg", "QtNetwork", "QtTest", "QtXml", "sip")


def install() -> None:
    """Make ``qgis.PyQt`` importable; before any module of the plugin is."""
    qgis, pyqt = ModuleType("qgis"), ModuleType("qgis.PyQt")
    qgis.__path__ = pyqt.__path__ = []  # packages, but without files
    qgis.PyQt = pyqt
    sys.modules["qgis"], sys.modules["qgis.PyQt"] = qgis, pyqt
    for part in PARTS:
        module = importlib.import_module(f"PyQt6.{part}")
        setattr(pyqt, part, module)
        sys.modules[f"qgis.PyQt.{part}"] = module
