"""``python -m rest_backend`` is ``rest-backend``."""

from rest_backend.cli import main

main()
