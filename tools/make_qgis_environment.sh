#!/usr/bin/env bash
# Make .venv-qgis: QGIS's own Python with the test tools and pyzmq. Does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

python=/usr/bin/python3  # QGIS's bindings are built for the system's Python, not for the first on PATH
stamp=.venv-qgis/.made-from
inputs() { cat requirements/qgis.txt tools/make_qgis_environment.sh; }
if [ -x .venv-qgis/bin/python ] && inputs | cmp -s - "$stamp"; then
    exit 0
fi
if ! "$python" -c 'import qgis.core' 2>/dev/null; then
    echo "note: $python has no QGIS; .venv-qgis is not made and the QGIS tests cannot run here." >&2
    exit 0
fi
if ! { [ -x .venv-qgis/bin/python ] && .venv-qgis/bin/python -c 'import qgis.core, pip' 2>/dev/null; }; then
    echo "setup: .venv-qgis from $("$python" --version)"
    rm -rf .venv-qgis
    "$python" -m venv --system-site-packages .venv-qgis
fi

rm -f "$stamp"
echo "setup: installing the QGIS test tools into .venv-qgis"
# --ignore-installed: an older pyzmq of the distribution would otherwise count as the wanted one.
.venv-qgis/bin/python -m pip install --quiet --disable-pip-version-check --ignore-installed -r requirements/qgis.txt
inputs >"$stamp"
