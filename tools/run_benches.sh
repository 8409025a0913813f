#!/usr/bin/env bash
# Run every benchmark in bench/, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
for bench in bench/*.py; do
    printf '\n==== %s ====\n' "$bench"
    PYTHONPATH=. .venv/bin/python "$bench"
done
