"""Whether the engine computes what it must, on this computer, with these packages."""

from __future__ import annotations

from dataclasses import asdict

from rest_backend.doctor.check import Check

# Float32 sums come out differently in another order; what is wrong differs by far more.
LARGEST_DIFFERENCE = 1e-3  # of the logits' standard deviation


def check_engine() -> Check:
    """One small network in stripes against the plain whole forward, about two seconds."""
    from rest_backend.methods.verify import VerifyRequest, verify

    summary = verify(VerifyRequest("tu-resnet18", "unet", height=128, width=96, stripe=32))
    facts = asdict(summary)
    message = (
        f"{summary.encoder} + {summary.decoder} in stripes: largest difference from the whole forward "
        f"{summary.max_rel_diff:.0e}, {summary.label_flips} of {summary.pixels:,} labels differ"
    )
    if summary.max_rel_diff > LARGEST_DIFFERENCE or summary.flips_beyond_margin:
        message = f"{message}. Results cannot be trusted here. Install torch and rest-backend anew."
        return Check("engine", "problem", message, facts)
    if summary.fallback_ops:
        message = (
            f"{message}; run whole: {', '.join(summary.fallback_ops)}. This torch is newer than the engine."
        )
        return Check("engine", "warning", message, facts)
    return Check("engine", "ok", message, facts)


def check_weights() -> Check:
    """The bundled models' weights: the files their cards describe, and they fit their networks."""
    from rest_backend.models.weights import load_model
    from rest_backend.models.zoo import list_models

    bundled = [model for model in list_models() if model.bundled]
    for model in bundled:
        load_model(model)
    facts = {"sha256": {model.id: model.card.sha256 for model in bundled}}
    if not bundled:
        return Check("weights", "problem", "There is no bundled model. Install rest-backend anew.", facts)
    return Check("weights", "ok", f"{', '.join(facts['sha256'])}: as the card describes them", facts)
