#!/usr/bin/env bash
# Make .venv: rest-backend (editable, pinned), its tests and linters. Does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.made-from
inputs() {  # everything the environment depends on
    cat requirements/backend.txt requirements/development.txt backend/pyproject.toml tools/make_backend_environment.sh
    grep '^__version__' backend/rest_backend/__init__.py
}
if [ -x .venv/bin/python ] && inputs | cmp -s - "$stamp"; then
    exit 0
fi

fits() {  # a Python of 3.10 to 3.14 that can make environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}
if ! { [ -x .venv/bin/python ] && fits .venv/bin/python; }; then
    chosen=
    for candidate in ${PYTHON:-} python3 python3.12 python3.13 python3.11 python3.14 python3.10 /usr/bin/python3; do
        if fits "$candidate"; then chosen=$candidate && break; fi
    done
    if [ -z "$chosen" ]; then
        echo "error: the backend needs Python 3.10 to 3.14 with its venv module; none was found." >&2
        echo "       Install one (Debian, Ubuntu: sudo apt-get install python3-venv) or name it: make setup PYTHON=/path/to/python3" >&2
        exit 1
    fi
    echo "setup: .venv from $("$chosen" --version)"
    rm -rf .venv
    "$chosen" -m venv .venv
fi

rm -f "$stamp"
echo "setup: installing the backend and its tools into .venv"
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
# uv does not read pip's settings; where pip is given a folder of wheels, uv gets it too.
UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" .venv/bin/uv pip install --quiet --python .venv/bin/python \
    -r requirements/backend.txt -r requirements/development.txt --editable backend
inputs >"$stamp"
