# Everything sets itself up: `make demo` and `make test` are all that a fresh machine needs.
# PYTHON names the interpreter to build the virtual environment from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MLSERVER := .venvs/mlserver
AARCH64 := .venvs/aarch64
NVIDIA_SAMPLES := .cache/nvidia-samples
PASSES := src/siniantrust/masking/exact/_kernels
LOCKS := requirements/torch.lock requirements/dev.lock
TORCH := $(shell grep -v '^\#' requirements/torch.lock)
TEST_WORKERS ?= 2

# Tests start hundreds of Python processes: what one has compiled is kept for the next, whatever the caller's setting.
export PYTHONDONTWRITEBYTECODE :=
export SINIAN_MLSERVER := $(CURDIR)/$(MLSERVER)/bin/mlserver
export SINIAN_AARCH64 := $(CURDIR)/$(AARCH64)
export SINIAN_NVIDIA_SAMPLES := $(CURDIR)/$(NVIDIA_SAMPLES)/verifier/samples

.PHONY: demo test test-all lint types format bench train-demo lock docs conformance cross optee optee-machine
.PHONY: nvidia-samples clean setup system help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: setup  ## run the whole path on real photographs; ends with the path of a report
	$(BIN)/sinian demo --out demo-output

test: setup $(MLSERVER)/.installed nvidia-samples  ## run the tests that CI runs
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

test-all: setup $(MLSERVER)/.installed $(AARCH64)/.installed nvidia-samples  ## run the slow tests too
	$(BIN)/python -m pytest -m '' -n $(TEST_WORKERS) --dist loadfile

lint: setup  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## check types
	$(BIN)/mypy

format: setup  ## rewrite in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## measure everything that README and docs quote
	$(BIN)/python benchmarks/run_all.py --out benchmarks/results

docs: setup  ## write the generated pages again
	$(BIN)/python tools/write_docs.py

conformance: setup  ## hold every backend against ONNX's own tests again, for docs/backends.md
	$(BIN)/python tools/conformance.py
	$(BIN)/python tools/write_docs.py

train-demo: setup  ## train the demo's network again
	$(BIN)/python tools/train_demo.py src/siniantrust/demo/scenes.onnx

setup: $(STAMP)

system:
	@sh tools/system_packages.sh

$(STAMP): $(LOCKS) pyproject.toml setup.py $(PASSES).c $(PASSES)_avx2.h | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps "$(TORCH)+cpu" 2>/dev/null || { \
		echo "make: no CPU build of PyTorch in pip's indexes; installing the default build with its GPU libraries" \
			"(to save gigabytes, name PyTorch's CPU index in PIP_EXTRA_INDEX_URL)"; \
		$(BIN)/python -m pip install --quiet "$(TORCH)"; }
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@ls $(PASSES).*.so >/dev/null 2>&1 || echo "make: no C compiler: exact masks will compute in numpy, some ten times" \
		"slower (install gcc, then run: make -B setup)"
	@touch $@

# A server of the Open Inference Protocol that others wrote, in an environment of its own: its pins are not ours.
$(MLSERVER)/.installed: requirements/mlserver.lock
	$(PYTHON) -m venv $(MLSERVER)
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then \
		echo "make: MLServer has no release for this Python; the tests against it will be skipped"; \
	else \
		$(MLSERVER)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/mlserver.lock; \
	fi
	@touch $@

# IREE's runtime for another architecture, which QEMU runs: it is no environment of this machine.
$(AARCH64)/.installed: requirements/aarch64.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --target $(AARCH64) --upgrade \
		--platform manylinux_2_28_aarch64 --python-version 3.11 --implementation cp --only-binary=:all: \
		-r requirements/aarch64.lock
	@touch $@

# A real GPU's report and its certificates, which NVIDIA's own verifier carries; nothing of it is installed.
nvidia-samples: $(NVIDIA_SAMPLES)/.fetched  ## fetch a real GPU report for the tests of attestation

$(NVIDIA_SAMPLES)/.fetched: requirements/nvidia-samples.txt | setup
	@mkdir -p $(NVIDIA_SAMPLES)
	$(BIN)/python -m pip download --quiet --no-deps --require-hashes --dest $(NVIDIA_SAMPLES) \
		-r requirements/nvidia-samples.txt
	$(BIN)/python -m zipfile --extract $(NVIDIA_SAMPLES)/nv_local_gpu_verifier-*.whl $(NVIDIA_SAMPLES)
	@touch $@

cross: setup $(AARCH64)/.installed  ## run one bundle on x86-64 and, under QEMU, on aarch64
	$(BIN)/python -m pytest -m '' -s tests/runtime/test_runtime_cross_architecture.py

optee-machine: setup
	$(BIN)/sinian doctor --setup optee

optee: optee-machine  ## set OP-TEE under QEMU up (as root, on Debian) and run the tests in it
	$(BIN)/python -m pytest -m '' tests/trust/test_trust_optee.py tests/trust/test_trust_conformance.py tests/runtime/test_runtime_optee.py

lock: setup  ## resolve the locked dependencies again
	$(BIN)/python tools/lock.py

clean:  ## remove environments and what the targets made
	rm -rf $(VENV) .venvs demo-output .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
