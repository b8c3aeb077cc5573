# Everything a fresh machine needs is set up by the targets themselves; the second time they only check stamps.
#
#   make export     the main job: selfie segmentation to onnx and webgpu, proven on a photo
#   make test       what CI runs
#   make test-all   the slow matrices too
#   make webgpu-f16 a software WebGPU adapter that computes float16 (350 MB), which some tests then use
#   make swift      Swift for Linux (550 MB to fetch), with which tests run what a Core ML bundle brings for phones
#   make digits     train the project's own network again, over its committed weights, and examine it
#   make grid       every target in every precision: bytes, accuracy, latency, as tables (an hour; goes on where killed)
#   make bench      export time, memory, latency and int8 accuracy beside Optimum, coremltools, litert-torch, as ratios
#   make web-demo   background blur in a browser: its models exported and proven, built, served on this machine
#   make bench-web  that page beside MediaPipe's own, the same network in the same browser, as ratios
#   make lint       ruff, mypy --strict, tsc

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= build/selfie

.DELETE_ON_ERROR:
.PHONY: setup webgpu-f16 swift export test test-all digits grid bench web-demo bench-web lint format generate generate-kernels clean

setup: $(VENV)/.installed web-demo/node_modules/.installed $(VENV)/.browser $(VENV)/legacy/.installed

# The stamps are files, so that what is set up is not set up again until what it depends on has changed.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vitexport needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Run: make PYTHON=python3.12 ..."; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[webgpu,coreml,tflite,hub,dev]'
	@touch $@

%/node_modules/.installed: %/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 20))' || { echo "vitexport needs Node 20 or newer: install it and run make again."; exit 3; }
	npm ci --prefix $* --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(VENV)/.browser: .ci/chromium | $(VENV)/.installed
	.ci/chromium
	@touch $@

# The runtime that old devices have, see targets/vitexport_targets/tflite/legacy.py. Its last release has wheels for
# Linux and Python up to 3.11; elsewhere the report says "not run".
$(VENV)/legacy/.installed: .ci/legacy.txt | $(VENV)/.installed
	@if $(BIN)/python -c 'import sys; sys.exit(sys.platform != "linux" or sys.version_info >= (3, 12))'; then \
	    $(BIN)/python -m venv --clear $(VENV)/legacy && \
	    $(VENV)/legacy/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement $< && \
	    touch $@; \
	else \
	    echo "tflite-runtime 2.14 has wheels for Linux and Python 3.11 alone: files for LiteRT are not proven in it here."; \
	fi

# A software WebGPU adapter with shader-f16, for tests/test_half_webgpu.py: from Debian 12's backports. Elsewhere those
# tests say "not run".
webgpu-f16: $(VENV)/webgpu-f16/adapter.json

$(VENV)/webgpu-f16/adapter.json: .ci/webgpu-f16 | $(VENV)/.installed
	.ci/webgpu-f16 $(@D) $(BIN)/python
	@touch $@

# Swift for tests/test_coreml_swift.py, from Debian 13 in a root of its own. Elsewhere those tests say "not run".
swift: $(VENV)/swift/run

$(VENV)/swift/run: .ci/swift | $(VENV)/.installed
	.ci/swift $(@D)
	@touch $@

export: setup
	$(BIN)/vitexport --model selfie --target onnx --target webgpu --precision fp32 --precision fp16 --out $(OUT) --force

# In several processes, each file in one of them: on two cores that takes 0.7 of the time. No more than four, for each
# holds torch, the converters and a browser.
test: setup tests/js/node_modules/.installed
	$(BIN)/python -m pytest -m 'not slow' --numprocesses logical --maxprocesses 4 --dist loadfile

test-all: setup tests/js/node_modules/.installed
	$(BIN)/python -m pytest

digits: setup
	$(BIN)/python -m vitexport.digits.train
	$(BIN)/python -m vitexport.digits.evaluate

grid: setup tests/js/node_modules/.installed
	$(BIN)/python tests/grid.py

bench: setup
	$(BIN)/python tests/bench_export.py
	$(BIN)/python tests/bench_coreml.py
	$(BIN)/python tests/bench_tflite.py
	$(BIN)/python tests/bench_onnx_int8.py

# Its models take minutes the first time. The page is in web-demo/dist, for any host.
web-demo: setup web-demo/public/models/models.json
	npm run --silent build --prefix web-demo
	npm run --silent preview --prefix web-demo

web-demo/public/models/models.json: web-demo/prepare.py | setup
	$(BIN)/python $<

bench-web: setup web-demo/public/models/models.json
	npm run --silent build --prefix web-demo
	$(BIN)/python tests/bench_web.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	npm run --silent check --prefix web-demo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The manifest's JSON Schema and TypeScript type, from the Python dataclass; a test compares.
generate: setup
	$(BIN)/python -m vitexport_targets.webgpu.generate_types

# What the pinned runtimes take, as they say themselves: run it after a pin has moved; minutes in a browser.
generate-kernels: setup
	$(BIN)/python -m vitexport_targets.webgpu.generate_kernels
	$(BIN)/python -m vitexport_targets.tflite.generate_gpu_operators

clean:
	rm -rf build exports web-demo/dist web-demo/public/models web-demo/public/sample .mypy_cache .ruff_cache .pytest_cache
