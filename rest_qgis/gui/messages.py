"""Messages of the plugin, as QGIS's conventions have them.

What a person should read stands in the message bar and, with its details, in the
log under one tag. A message takes the place of the one before it, so that none
pile up; only a failure stays beside newer news until the next failure or until
it is closed by hand. Nothing here ever waits for an answer.
"""

from __future__ import annotations

from typing import Any

from qgis.core import Qgis, QgsMessageLog
from qgis.gui import QgsMessageBarItem, QgsMessageViewer
from qgis.PyQt.QtCore import QCoreApplication
from qgis.PyQt.QtWidgets import QPushButton

from rest_qgis.install.folder import home_folder

LOG_TAG = "REST"
SECONDS_SHOWN = 6  # of good news; what went wrong stays until it is closed or replaced
_ITEM_NAMES = {False: "RestMessage", True: "RestFailure"}  # by "is a failure"


class Messages:
    """The plugin's messages in QGIS's message bar; any number of these share the bar. Main thread only."""

    def __init__(self, interface: Any) -> None:
        self._bar = interface.messageBar()
        self._window = interface.mainWindow()

    def info(self, text: str, details: str = "") -> None:
        """Tell something that needs no action; it goes by itself."""
        self._show(Qgis.MessageLevel.Info, text, details)

    def success(self, text: str, details: str = "") -> None:
        """Tell that something worked; it goes by itself."""
        self._show(Qgis.MessageLevel.Success, text, details)

    def warning(self, text: str, details: str = "") -> None:
        """Tell something a person should know before trusting a result; it stays."""
        self._show(Qgis.MessageLevel.Warning, text, details)

    def error(self, code: str, text: str, details: str = "") -> None:
        """Tell a failure; it stays, with its code.

        Args:
            code: ``E_…``.
            text: A sentence that says what to do.
            details: What else helps, such as the job it is about.
        """
        where = _tr("The engine's log: {0}").format(home_folder().absolute() / "log")
        self._show(Qgis.MessageLevel.Critical, f"{text} ({code})", f"{details}\n\n{where}".strip())

    def open_text(self, title: str, text: str) -> None:
        """Show a longer text in a window beside QGIS's, for reading and copying."""
        viewer = QgsMessageViewer(self._window)  # deletes itself when it is closed
        viewer.setObjectName("RestMessageViewer")
        viewer.setTitle(title)
        viewer.setMessageAsPlainText(text)
        viewer.setModal(False)
        viewer.showMessage(False)

    def close(self) -> None:
        """Take the messages that still stand out of the bar. May be called twice."""
        for failure in (False, True):
            self._remove(failure)

    def _show(self, level: Qgis.MessageLevel, text: str, details: str) -> None:
        # The user is told by the bar, not by the log's own hint as well.
        logged = f"{text}\n{details}" if details else text
        QgsMessageLog.logMessage(logged, LOG_TAG, level, notifyUser=False)
        failure = level == Qgis.MessageLevel.Critical
        self._remove(failure)
        item = QgsMessageBarItem("REST", text, level)
        item.setObjectName(_ITEM_NAMES[failure])
        if details:
            button = QPushButton(_tr("Details"), item)
            button.setObjectName("RestMessageDetails")
            button.clicked.connect(lambda _checked=False: self.open_text("REST", f"{text}\n\n{details}"))
            item.layout().addWidget(button)
        if level in (Qgis.MessageLevel.Info, Qgis.MessageLevel.Success):
            item.setDuration(SECONDS_SHOWN)
        self._bar.pushItem(item)

    def _remove(self, failure: bool) -> None:
        for item in self._bar.items():
            if item.objectName() == _ITEM_NAMES[failure]:
                self._bar.popWidget(item)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Messages", text)
