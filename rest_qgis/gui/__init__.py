"""Toolbar and dock. Everything here lives on QGIS's main thread and never waits."""
