# Every target sets itself up: an environment in .venv with the extras that it needs, reused when it is there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch
PYTEST := $(BIN)/python -m pytest -n 2
DATA ?= data
# These take no data, or bring it along; those read what is under DATA.
EXAMPLES ?= gradients linear_regression augment optimizer_race
EXAMPLES_WITH_DATA ?= mnist_mlp learning_rates depths early_stopping multi_task concrete_regression fashion_cnn \
	transfer mnist_gan shakespeare_lstm shakespeare_gpt trashnet_resnet
BENCH ?= mlp cnn gpt-small lstm overhead overhead-gradient ensemble-64 per-example blocks

RESULTS := benchmarks/results

.PHONY: demo examples test test-all test-torch lint bench results smoke clean

demo: $(VENV)/.demo
	$(BIN)/funcnet demo

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.dev
	$(PYTEST)

# make test-torch VERSION=2.11.0 runs the suite on another torch, in an environment of its own.
test-torch:
	$(MAKE) test VENV=.venv-torch-$(VERSION) TORCH="torch==$(VERSION)"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Every example in full, the slowest last: most of an hour on two cores. Exit status 1 where one misses its figure.
# make examples DATA=folder, where the folder holds MNIST/, FashionMNIST/, trashnet/, tabular/ and tinyshakespeare/.
examples: $(VENV)/.dev
	@missed=; \
	run() { \
		name=$$1; shift; begun=$$(date +%s); echo "== $$name"; \
		$(BIN)/python examples/$$name.py "$$@" || missed="$$missed $$name"; \
		echo "== $$name: $$(($$(date +%s) - begun)) s"; \
	}; \
	run gradients; \
	for name in $(filter-out gradients,$(EXAMPLES)); do run $$name --out build/examples/$$name.png; done; \
	for name in $(EXAMPLES_WITH_DATA); do run $$name --data $(DATA) --out build/examples/$$name.png; done; \
	if [ -n "$$missed" ]; then echo "missed:$$missed"; exit 1; fi

# Ten minutes on two cores; exit status 1 where a target is missed.
bench: $(VENV)/.dev
	$(BIN)/funcnet bench $(BENCH) --targets --out build/bench.json --markdown build/bench.md --plot build/bench.png

# Every figure of the pages anew, from all subjects of each file: hours on two cores, beside no other work.
results: $(VENV)/.dev
	$(BIN)/funcnet bench mlp cnn gpt-small lstm overhead overhead-gradient ensemble-64 per-example blocks vit-tiny dlrm \
		mlp-inference cnn-inference gpt-small-inference lstm-inference --out $(RESULTS)/bench-cpu.json
	$(BIN)/funcnet bench resnet18 hvp epoch uniform normal ensemble-1 ensemble-4 ensemble-16 ensemble-256 dlrm-inference \
		resnet18-inference vit-tiny-inference resnet50-inference --out $(RESULTS)/bench-cpu-more.json
	$(BIN)/funcnet bench gpt gpt-inference --ways module --ways 'module, fused' --ways 'module compiled*' \
		--ways 'funcnet*' --ways jax --out $(RESULTS)/bench-cpu-gpt.json
	$(BIN)/funcnet bench resnet50 --out $(RESULTS)/bench-cpu-resnet50.json
	$(BIN)/funcnet bench thousand-parameters --warm --rounds 10 --ways module --ways 'module, f*' \
		--ways 'module compiled, fused' --ways funcnet --ways 'funcnet, donating' --ways 'funcnet compiled, donating' \
		--out $(RESULTS)/bench-cpu-thousand.json
	$(BIN)/python benchmarks/tables.py

# Whether every way runs, and gives the losses of the others.
smoke: $(VENV)/.dev
	$(BIN)/funcnet bench mlp cnn overhead overhead-gradient per-example ensemble-4 --smoke

clean:
	rm -rf .venv .venv-torch-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One marker for each set of extras, newer than the declaration of what they are.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@
