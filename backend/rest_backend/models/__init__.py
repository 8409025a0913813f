"""Networks described by model cards.

:mod:`~rest_backend.models.card` and :mod:`~rest_backend.models.zoo` import no torch, so that
the daemon's broker can list models; :mod:`~rest_backend.models.network` and
:mod:`~rest_backend.models.weights` build and fill the networks. This module imports none of
them, for the same reason.
"""
