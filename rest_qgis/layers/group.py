"""The group "REST" in the layer tree: above the imagery, and never the active layer."""

from __future__ import annotations

from qgis.core import QgsLayerTreeGroup, QgsLayerTreeNode, QgsMapLayer, QgsProject, QgsProviderRegistry

GROUP_NAME = "REST"


def insert_in_group(
    project: QgsProject, layer: QgsMapLayer, scene: str, below: QgsMapLayer | None = None
) -> None:
    """Add a layer to the project at the top of the group, above the scene it was made from.

    The active layer stays what it was: layers the project does not add to the
    legend itself never become active.

    Args:
        project: The project.
        layer: A layer not yet in a project.
        scene: File of the imagery the group must cover.
        below: A layer of the group that goes above it, instead of none.
    """
    group = _group_above(project, scene)
    above = None if below is None else group.findLayer(below.id())
    if project.addMapLayer(layer, False) is not None:
        parent, place = group, 0
        if above is not None:
            parent = above.parent()
            place = parent.children().index(above) + 1
        node = parent.insertLayer(place, layer)
        for shown in (node, group):  # the legend is what one wants to see
            # Tree views take note of a change only, and of none while a group is empty.
            shown.setExpanded(False)
            shown.setExpanded(True)


def file_of(layer: QgsMapLayer) -> str:
    """Return the file a raster layer of GDAL's shows; empty for other layers."""
    if layer.providerType() != "gdal":
        return ""
    return str(QgsProviderRegistry.instance().decodeUri("gdal", layer.source()).get("path") or "")


def _group_above(project: QgsProject, scene: str) -> QgsLayerTreeGroup:
    root = project.layerTreeRoot()
    group = root.findGroup(GROUP_NAME)
    if group is None:
        return root.insertGroup(0, GROUP_NAME)
    imagery = [
        _top_level(node)
        for node in root.findLayers()
        if node.layer() is not None and file_of(node.layer()) == scene
    ]
    nodes = root.children()
    if group.parent() is root and any(nodes.index(node) < nodes.index(group) for node in imagery):
        moved = group.clone()
        root.insertChildNode(0, moved)
        root.removeChildNode(group)
        return moved
    return group


def _top_level(node: QgsLayerTreeNode) -> QgsLayerTreeNode:
    while node.parent() is not None and node.parent().parent() is not None:
        node = node.parent()
    return node
