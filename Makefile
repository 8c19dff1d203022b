# Two commands: `make demo` (a table and a plot in about two minutes) and `make test`.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo photographs test lint types pytest smoke benchmark mutants fuzz test-faults clusters clean

demo: $(STAMP)
	$(PY) -m bench run --methods zero-shot,coop,shared-coop,softcpt --shots 1,2,4,8,16
	$(PY) -m bench report

# The committed report on photographs, from its packed records.
photographs: $(STAMP)
	$(PY) -m bench report --results results/photographs/records --out results/photographs --format md,csv,tex,png,html

test: lint types pytest

# Ray and Dask for real, with clusters of two workers on this machine; `make test` skips these without the libraries.
clusters: $(STAMP)
	$(PY) -m pip install --quiet --editable '.[test,ray,dask]'
	$(PY) -m pytest tests/test_clusters.py

# A second call finds the stamp and installs nothing.
$(STAMP): pyproject.toml bench/__init__.py
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[test]'
	touch $@

lint: $(STAMP)
	$(PY) -m ruff check .

# mypy does not know setuptools' package-dir: it reads a copy laid out as the import names are.
types: $(STAMP)
	rm -rf build/types && mkdir -p build/types
	cp -r bench build/types/bench
	cp -r methods datasets reports build/types/bench/
	cd build/types && ../../$(PY) -m mypy --config-file ../../pyproject.toml --cache-dir ../mypy-cache -p bench

pytest: $(STAMP)
	$(PY) -m pytest

# The oldest and the newest Python that pyproject.toml names: installed and used, each in an environment of its own.
smoke: $(STAMP)
	$(PY) scripts/smoke.py 3.10 3.13

benchmark: $(STAMP)
	$(PY) -m pytest tests/benchmarks --benchmark-enable --benchmark-only

# Plants faults in a copy and tells which test notices each (docs/testing.md): about 45 minutes on two cores.
mutants: $(STAMP)
	$(PY) scripts/mutants.py

# Every reader of outside files and the command line on 100 000 changed inputs: counts into results/fuzz.json.
fuzz: $(STAMP)
	nice $(PY) scripts/fuzz.py

# Kills, pauses, full disks, damaged files: what a run comes to all the same, counts into results/faults.json. Ten minutes.
test-faults: $(STAMP)
	$(PY) scripts/faults.py

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache
