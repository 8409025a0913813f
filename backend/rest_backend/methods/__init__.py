"""Operations: what the command line, the daemon and the Python API offer, one a module."""
