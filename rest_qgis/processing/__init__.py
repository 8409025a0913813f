"""Jobs as QGIS asks for them: the desk every job goes over, and the Processing provider."""
