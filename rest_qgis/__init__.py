"""REST for QGIS: segment whole scenes from the map canvas.

The package can be imported without QGIS; ``rest_qgis.client`` needs only the
standard library and pyzmq.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def classFactory(iface: Any) -> Any:
    """Make the plugin.

    Args:
        iface: The running QGIS's ``QgisInterface``.

    Returns:
        The plugin object with ``initGui``, ``initProcessing`` and ``unload``.
    """
    from .plugin import RestPlugin  # imports qgis, which a script using the client does not have

    return RestPlugin(iface)
