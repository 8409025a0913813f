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
check "docs/protocol.md" env PYTHONPATH=backend $bin/python -m rest_backend.wire.document --check
# As the plugin site scans a zip: every finding counts.
# QGS201 and QGS202 go by a method's name alone (any setValue()); E203 contradicts the formatter.
check "flake8, flake8-qgis" $bin/flake8 --max-line-length 120 --extend-ignore E203,QGS201,QGS202 $plugin
# Bandit reads the reasons behind "nosec B404 - ..." as test names and warns of each word.
check "bandit" $bin/bandit --quiet --recursive $plugin 2> >(grep -v 'Test in comment' >&2)
check "detect-secrets" $bin/python tools/find_secrets.py $plugin
exit $status
