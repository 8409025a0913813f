"""The daemon: journal, sockets and scheduler in one light process, the work in others.

``serve`` starts it; ``broker`` owns every client socket and the journal and
imports neither torch nor rasterio; ``worker`` runs the operations in a process
of its own per device.
"""
