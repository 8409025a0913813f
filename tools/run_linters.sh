#!/usr/bin/env bash
# Run every static check, and fail if one of them finds something.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
check() {  # NAME COMMAND...: all checks run, so that one look shows all that is wrong
    printf '== %s\n' "$1"
    "${@:2}" || status=1
}

bin=.venv/bin
plugin=build/plugin/rest_qgis
check "ruff" $bin/ruff check .
check "mypy --strict" $bin/mypy
check "messages.schema.json" env PYTHONPATH=backend $bin/python -m rest_backend.wire.schema --check
# As the plugin site scans a zip: every finding counts.
check "flake8, flake8-qgis" $bin/flake8 --max-line-length 120 $plugin
check "bandit" $bin/bandit --quiet --recursive $plugin
check "detect-secrets" $bin/python tools/find_secrets.py $plugin
exit $status
