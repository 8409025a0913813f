# REST for QGIS. `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup plugin demo test lint bench package dev-install clean

PYTHON ?= python3
BACKEND := .venv/bin/python
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

setup:  ## system packages, .venv (backend) and .venv-qgis; quick when nothing changed
	@tools/install_system_packages.sh qgis python3-qgis python3-venv xvfb xauth
	@tools/make_backend_environment.sh
	@tools/make_qgis_environment.sh

plugin:  ## assemble build/plugin/rest_qgis
	@$(PYTHON) tools/assemble_plugin.py

demo: setup  ## segment the sample scene through the daemon: build/demo/preview.png
	@PYTHONPATH=. $(BACKEND) demo/demo.py

test: setup plugin  ## the whole suite: backend, client and real QGIS
	@tools/run_tests.sh

lint: setup plugin  ## style, types, arrows, and the plugin site's own checks
	@tools/run_linters.sh

bench: setup  ## measure: one table a file in bench/
	@tools/run_benches.sh

package: setup plugin  ## build/rest_qgis-VERSION.zip and the backend's wheel in build/wheels
	@$(PYTHON) tools/package_plugin.py
	@.venv/bin/uv build --quiet --wheel backend --out-dir build/wheels && ls build/wheels/*.whl

dev-install: setup plugin  ## put the plugin into your QGIS profile, as a link
	@tools/install_system_packages.sh python3-zmq
	@$(PYTHON) tools/install_plugin.py

clean:  ## remove what the build and the tests made; both environments stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .qgis-settings
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
