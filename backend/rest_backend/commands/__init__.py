"""The commands of ``rest-backend``, one a module; what is heavy they import when they run."""
