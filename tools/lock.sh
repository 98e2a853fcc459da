#!/bin/sh
# Resolve the dependencies again: every version and hash of a development environment, PyTorch apart.
set -eu
bin=$1
cd "$(dirname "$0")/.."
"$bin/pip-compile" --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate --unsafe-package torch --extra demo --extra dev --output-file requirements/dev.lock pyproject.toml
"$bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate --output-file requirements/mlserver.lock requirements/mlserver.in
