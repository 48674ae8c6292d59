# Needs git, make and Python 3.11 or newer. Everything lands in .venv (and .venv-peers); nothing is asked, nothing is
# installed outside this folder.
#
#   make demo            a real program on a local cluster of worker processes
#   make test            the tests, without the slow and the soak ones
#   make test-hosts      the integration tests on three hosts, the driver on each, then through slow proxies; or DRIVER=1..3, PROXY=1. Root
#   make check           ruff, mypy, import-linter
#   make bench           bench-core, bench-startup and bench-objects; `make peers` first, to measure beside Ray and xoscar
#   make bench-cluster   calls and transfers between nodes, joins, placement groups
#   make sim             SEEDS whole clusters under faults, each drawn from its seed, FROM on; it says what was reached and what was wrong
#   make sim-scenarios   the simulated scenarios, those of every fault at every step too, then SCENARIO_SEEDS of them each, FROM on
#   make mutants         bugs planted by hand, each to be found by the scenarios
#   make kill-test       RUNS rounds of killing processes at random moments
#   make head-test       the head of a cluster is killed HEAD_KILLS times in a row, under load
#   make chaos           SECONDS of killing, stopping and cutting off nodes of a cluster at work, from SEED; SYSTEM=ray for Ray (`make peers`)
#   make partition-test  ROUNDS times cut a node of three off for 30 s, in the middle of work; needs root, iproute2 and nftables
#   make promise-test    a node of three stands still for 60 s, STANDSTILLS times, and the slow tests of disks that fill; needs root
#   make cancel-test     CANCELS cancels at random moments
#   make fuzz            the fuzz targets, at length, and STRANGERS connections to the port of a running cluster
#   make clean           caches and build outputs; the environments stay

PYTHON ?= python3
SEEDS ?= 1000
SCENARIO_SEEDS ?= 1000
RUNNERS ?= 3
FROM ?= 0
RUNS ?= 200
CANCELS ?= 10000
ROUNDS ?= 6
STANDSTILLS ?= 3
HEAD_KILLS ?= 50
SECONDS ?= 60
SEED ?=
SYSTEM ?= actorflow
STRANGERS ?= 1000000
BENCH_ARGS ?=
DRIVER ?=
PROXY ?=

VENV := .venv
PEERS := .venv-peers
PY := $(VENV)/bin/python
PIP := -m pip install --quiet --quiet --constraint constraints.txt
STAMP := $(VENV)/.stamp
# As pip does when it installs a package: what is measured or shown first should not compile.
COMPILE := $(PY) -m compileall -q actorflow benchmarks
PEERS_STAMP := $(PEERS)/.stamp
# Debian's redis-server for the tests that need one, where the system has none; an empty directory where it cannot be had.
REDIS := $(VENV)/redis

# What has been compiled is kept beside its source (git ignores it, `make clean` removes it): the tests start some thousand processes, and
# where PYTHONDONTWRITEBYTECODE is set each of them would compile all that it imports again. Empty is as not set.
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: demo test test-hosts check bench bench-core bench-startup bench-objects bench-cluster peers sim sim-scenarios mutants kill-test partition-test promise-test cancel-test head-test chaos fuzz clean
.DEFAULT_GOAL := test
# A benchmark beside another one measures nothing.
.NOTPARALLEL:

# Three runners, as many tests wait for others more than they work. Each gets the next test when it is free (without groups, that is what
# loadgroup does), so tests must bear others beside them. RUNNERS=1 for a machine that is busy with other things.
# The closing line of pytest is the last thing `make test` prints: nothing may follow it in this recipe.
test: $(STAMP) $(REDIS)
	@$(PY) -m pytest $(if $(filter 1,$(RUNNERS)),,-n $(RUNNERS) --dist loadgroup) -m "not slow and not soak"

# Six minutes a run: network namespaces, so it needs root, ip and nft.
test-hosts: $(STAMP)
	@$(PY) -m tests.integration.on_hosts $(if $(DRIVER),--driver $(DRIVER)) $(if $(PROXY),--proxy)

demo: $(STAMP)
	@$(COMPILE)
	@$(PY) examples/index_stdlib.py

check: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

bench: bench-core bench-startup bench-objects

bench-core: $(STAMP)
	@$(COMPILE)
	@$(PY) -m benchmarks.core $(BENCH_ARGS)

bench-startup: $(STAMP)
	@$(COMPILE)
	@$(PY) -m benchmarks.startup $(BENCH_ARGS)

bench-objects: $(STAMP)
	@$(COMPILE)
	@$(PY) -m benchmarks.objects $(BENCH_ARGS)
	@$(PY) -m benchmarks.spilling --check
	@$(PY) -m benchmarks.new_memory --check

bench-cluster: $(STAMP)
	@$(COMPILE)
	@$(PY) -m benchmarks.cluster $(BENCH_ARGS)
	@$(PY) -m benchmarks.transfers --check
	@$(PY) -m benchmarks.transfers --tls --check
	@$(PY) -m benchmarks.broadcast --check
	@$(PY) -m benchmarks.placement --check
	@$(PY) -m benchmarks.scheduling

peers: $(PEERS_STAMP)

sim: $(STAMP)
	@$(PY) -m tests.sim.whole --known --from $(FROM) --seeds $(SEEDS)

sim-scenarios: $(STAMP)
	@$(PY) -m pytest tests/sim --timeout 0 $(if $(filter 1,$(RUNNERS)),,-n $(RUNNERS))
	@$(PY) -m tests.sim.seeds --from $(FROM) --seeds $(SCENARIO_SEEDS)

# Bugs planted one at a time; each must be found by the simulated scenarios.
mutants: $(STAMP)
	@$(PY) -m tests.sim.mutants

kill-test: $(STAMP)
	@$(PY) -m tests.soak.random_kills --runs $(RUNS)

# The head of a cluster of two nodes, HEAD_KILLS times in a row, under load.
head-test: $(STAMP)
	@$(PY) -m tests.soak.head_kills --kills $(HEAD_KILLS)

chaos: $(if $(filter ray,$(SYSTEM)),$(PEERS_STAMP),$(STAMP))
	@$(if $(filter ray,$(SYSTEM)),$(PEERS)/bin/python,$(PY)) -m actorflow.testing.chaos --system $(SYSTEM) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# Cuts both ways, then in one direction at a time, then between a node and the head alone.
partition-test: $(STAMP)
	@$(PY) -m tests.soak.partition --seconds 30 --rounds $(ROUNDS)
	@$(PY) -m tests.soak.partition --seconds 30 --rounds $(ROUNDS) --one-way
	@$(PY) -m tests.soak.partition --seconds 30 --rounds $(ROUNDS) --from-head

# The quick ones, each with its promise in its name, are in `make test`; docs/internals/failures.md has them all.
promise-test: $(STAMP)
	@$(PY) -m tests.soak.standstill --seconds 60 --rounds $(STANDSTILLS)
	@$(PY) -m pytest tests/integration/test_full_disk.py -m slow

cancel-test: $(STAMP)
	@$(PY) -m tests.soak.random_cancels --cancels $(CANCELS)

fuzz: $(STAMP)
	@$(PY) -m pytest tests/fuzz --hypothesis-profile fuzz --timeout 0
	@$(PY) -m tests.fuzz.fuzz_port --iterations $(STRANGERS)
	@$(PY) -m tests.fuzz.fuzz_port --iterations $(STRANGERS) --inside-tls

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# The two environments. A stamp, newer than what it was made from, says that one is complete; when pyproject.toml or
# constraints.txt changes, the next target that needs the environment brings it up to date.

define need_python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "actorflow needs Python 3.11 or newer, and '$(PYTHON)' is \
		$$(command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo not here)." >&2; \
	echo "Name one that fits: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1; }
endef

define make_venv
@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1) || { \
	rm -rf $(1); \
	echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu it needs: apt-get install python3-venv" >&2; \
	exit 1; }
endef

$(STAMP): pyproject.toml constraints.txt
	$(need_python)
	$(call make_venv,$(VENV))
	@echo "Setting up $(VENV); this takes about a minute the first time." >&2
	@$(PY) $(PIP) --editable ".[dev]"
	@touch $@

$(REDIS):
	@mkdir -p $@
	@tests/get_redis.sh $@

$(PEERS_STAMP): pyproject.toml constraints.txt
	$(need_python)
	$(call make_venv,$(PEERS))
	@echo "Setting up $(PEERS) with Ray and xoscar; this takes a few minutes the first time." >&2
	@$(PEERS)/bin/python $(PIP) ray xoscar uvloop numpy cloudpickle
	@$(PEERS)/bin/python $(PIP) --editable . || { \
		echo "actorflow itself did not install into $(PEERS); the peers are there all the same." >&2; }
	@touch $@
