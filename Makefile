# make demo and make test set up what they need; the second time they start at once.

SHELL := /bin/bash
VENV := .venv
PYTHON ?= python3
STAMP := $(VENV)/.installed
SOURCES := setup.py pyproject.toml CMakeLists.txt package.xml constraints.txt requirements-libero.txt Makefile $(wildcard msg/*.msg action/*.action cmake/* scripts/*)

# torch: the CPU build where there is no NVIDIA GPU. For another CUDA version than PyPI's default:
#   make venv TORCH_ARGS="--index-url https://download.pytorch.org/whl/cu126"
TORCH ?= torch==2.13.0
TORCH_ARGS ?= $$(scripts/torch_index "$(PYTHON)")

# .venv has its own ROS 2; a sourced one must not reach into it. Its middleware is Fast DDS alone.
ifdef AMENT_PREFIX_PATH
unexport LD_LIBRARY_PATH
endif
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH PYTHONPATH RMW_IMPLEMENTATION

.PHONY: demo test lint report venv clean

demo: $(STAMP)
	$(VENV)/bin/specvla demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile test

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

report: $(STAMP)
	scripts/report

venv: $(STAMP)

$(STAMP): $(SOURCES)
ifndef LOCKED
	flock Makefile $(MAKE) --no-print-directory LOCKED=yes $@ # a second make, in another terminal, waits
else
	scripts/check_system "$(PYTHON)"
	$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(TORCH_ARGS) "$(TORCH)"
	$(VENV)/bin/python scripts/build_requirements | xargs -d '\n' $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-libero.txt
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation -e ".[ros,sim,train,test]"
	touch $(STAMP)
endif

clean:
	rm -rf $(VENV) build install log *.egg-info specvla_ros/msg specvla_ros/action specvla_ros/*.so
