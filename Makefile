# `make` alone says what there is. What a target needs is set up by the target.
.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo compare bench-federated bench-flower-setup bench-inference bench-blog experiment-model experiment-noniid \
	front-end front-end-watch test e2e e2e-load lint images image-sizes compose-env compose-up secrets manifests deploy backup backups restore \
	screenshots messages clean distclean

VENV_PYTHON := .venv/bin/python
# Without byte code on disk every process would compile torch and Django anew: seconds at each start.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'Huisheng 回声: a blog whose comments teach its own sentiment model.'
	@echo
	@echo '  make demo         set up and run everything on this machine; Ctrl-C ends it'
	@echo '                    make demo ARGS="--help" shows its options,'
	@echo '                    make demo ARGS="--once --json report.json" goes round the loop once and ends'
	@echo '  make compare      the first model against the same network trained centrally on the same samples'
	@echo '  make bench-federated   what a round of training costs beside the computing; a JSON line'
	@echo '  make bench-flower-setup   install Flower into .venv-bench, for bench-federated to measure beside our engine'
	@echo '  make bench-inference   how near the inference service comes to what its core can do; a JSON line.'
	@echo '                    QUICK=1 for a trial of a minute, ARGS="--help"'
	@echo '  make bench-blog   how fast pages, posting and searching are, on a MariaDB and Redis of its own; a JSON line.'
	@echo '                    QUICK=1 for a trial, ARGS="--help"'
	@echo '  make experiment-model  the network, trained federatedly and centrally on a public corpus, against a linear model;'
	@echo '                    CORPUS=online_shopping_10_cats.zip, QUICK=1 for a trial of two minutes, ARGS="--help"'
	@echo '  make experiment-noniid   the strategies on non-IID data (CORPUS=zip; QUICK=1: minutes); report in docs/experiments'
	@echo '  make test         set up and run the tests: all on SQLite, then on a real MariaDB and Redis; WORKERS=2'
	@echo '  make e2e          the whole system on the cluster that KUBECONFIG names, which is filled and emptied;'
	@echo '                    OVERLAY=local REGISTRY=registry:5000 TAG=1.0, E2E_KEEP=1 leaves it standing'
	@echo '  make e2e-load     inference at 1, 2 and 4 replicas on that cluster, with a plot in var/e2e'
	@echo '  make lint         ruff, mypy, the import contracts and ESLint'
	@echo '  make front-end    build the Vue islands of static/islands into static/built; front-end-watch: at every change'
	@echo '  make images       the container images, with docker, podman or buildah: REGISTRY=… TAG=… PUSH=1,'
	@echo '                    PYTHON_BASE=… DEBIAN_BASE=… for other bases; infra/docker/build.sh says all settings'
	@echo '  make image-sizes  their sizes; fails where one is larger than it may be'
	@echo '  make compose-up   the whole system on this machine with docker compose (infra/compose.yaml)'
	@echo '  make secrets      random secrets for the overlay `local`, in files that git ignores; those there stay;'
	@echo '                    ROTATE="INFERENCE_TOKEN …" gives those another value; make deploy brings them in'
	@echo '  make deploy       bring a release to the cluster of KUBECONFIG and wait: OVERLAY=local REGISTRY=… TAG=…'
	@echo '                    COMPONENTS="mariadb …", OTHER_IMAGES="mysql=registry:5000/mysql:8.4 …", SETTINGS="LABELLER=openai …"'
	@echo '  make manifests    print what deploy would apply; the same settings'
	@echo '  make backup       dump the database in the cluster now; make backups lists the dumps'
	@echo '  make restore      FILE=… (or latest): put a dump in the place of the database'
	@echo '  make messages     collect the texts of the pages into locale/ (needs gettext) and compile them'
	@echo '  make screenshots  photograph a running demo into docs/images (ARGS="--base-url http://…")'
	@echo '  make setup        only set up: .venv with what the demo needs'
	@echo '  make clean        remove what running has made: var/ (database, models, queue) and caches'
	@echo '  make distclean    clean, and .venv, .venv-bench and node_modules'

setup:
	@infra/setup/install.sh demo

# exec: what Ctrl-C reaches is the command itself, with no shell between that could end before it.
demo:
	@infra/setup/install.sh demo
	@infra/setup/front_end.sh build --if-possible
	@$(VENV_PYTHON) -I blog_site/demo/environment.py var/env
	@exec $(VENV_PYTHON) manage.py demo $(ARGS)

compare:
	@infra/setup/install.sh demo
	@$(VENV_PYTHON) -m federated.compare $(ARGS)

bench-federated:
	@infra/setup/install.sh demo
	@$(VENV_PYTHON) -m federated.bench $(ARGS)

bench-flower-setup:
	@infra/setup/install.sh bench

# QUICK=0 is not quick.
bench-inference:
	@infra/setup/install.sh demo
	@exec $(VENV_PYTHON) -m ml.bench $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

# Starts its own servers, as the tests do.
bench-blog:
	@infra/setup/test_servers.sh
	@infra/setup/install.sh test
	@exec $(VENV_PYTHON) -m blog_site.bench $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

experiment-model:
	@infra/setup/install.sh experiments
	@exec $(VENV_PYTHON) -m federated.experiments.model $(if $(filter-out 0,$(QUICK)),--quick) \
		$(if $(CORPUS),--corpus "$(CORPUS)") $(ARGS)

# What was interrupted goes on where it stopped; what is done lies in var/experiments/noniid.
experiment-noniid:
	@infra/setup/install.sh demo
	@exec $(VENV_PYTHON) -m federated.experiments.noniid $(if $(filter-out 0,$(QUICK)),--quick) \
		$(if $(CORPUS),--corpus "$(CORPUS)") $(ARGS)

setup-test:
	@infra/setup/test_servers.sh
	@infra/setup/install.sh test
	@infra/setup/front_end.sh build

# exec: Ctrl-C ends the watching itself.
front-end front-end-watch:
	@infra/setup/install.sh demo
	@exec infra/setup/front_end.sh $(if $(filter %-watch,$@),run watch,build)

# Two processes of tests beside each other: many of them wait for timers and for processes of their own. The tests of
# a file stay together, for what they share; WORKERS=0 runs everything in one, as for a debugger.
WORKERS ?= 2
PYTEST = $(VENV_PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# Both passes run whatever the first says; the exit status is that of the first that failed. The second is for what
# speaks to a database, a cache or a broker: ml, federated and the cluster's manifests know of none.
test: setup-test
	@first=0; second=0; \
	$(PYTEST) -m "not servers and not e2e" $(ARGS) || first=$$?; \
	$(VENV_PYTHON) -m tests.servers -- $(PYTEST) -m "not browser and not flow and not once" \
		--ignore tests/federated --ignore tests/ml --ignore tests/cluster --ignore tests/e2e --ignore-glob 'tests/infra/*/*' \
		$(ARGS) || second=$$?; \
	exit $$((first ? first : second))

# Against whatever cluster KUBECONFIG names; images are there already (make images PUSH=1, or loaded into the nodes).
# Needs kubectl and what the tests import; no database, browser or root.
e2e:
	@infra/setup/install.sh test
	@E2E=1 OVERLAY="$(OVERLAY)" REGISTRY="$(REGISTRY)" TAG="$(TAG)" \
		$(VENV_PYTHON) -m pytest tests/e2e/test_system.py -s -v -p no:cacheprovider $(ARGS)

e2e-load:
	@infra/setup/install.sh test
	@E2E=1 E2E_LOAD=1 OVERLAY="$(OVERLAY)" REGISTRY="$(REGISTRY)" TAG="$(TAG)" \
		$(VENV_PYTHON) -m pytest tests/e2e/test_load.py -s -v -p no:cacheprovider $(ARGS)

lint: setup-test
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) -m ruff format --check --quiet
	@$(VENV_PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo
	@infra/setup/front_end.sh run lint

# What is set on make's command line is in the environment of what it runs: TAG, PUSH, PYTHON_BASE and the others.
images:
	@infra/docker/build.sh

image-sizes:
	@infra/docker/build.sh sizes

compose-env:
	@infra/docker/compose_env.sh

compose-up: compose-env
	@IMAGES="web gateway inference local-worker" infra/docker/build.sh
	@TAG="$$(infra/docker/build.sh tag)" REGISTRY_PREFIX="$(if $(REGISTRY),$(REGISTRY)/)" \
		docker compose --file infra/compose.yaml up --detach --wait

secrets:
	@python3 -m infra.k8s.make_secrets $(if $(ROTATE),--rotate "$(ROTATE)")

# What is set on make's command line is in the environment of what it runs. The tag is that of `make images`.
manifests deploy:
	@TAG="$${TAG:-$$(infra/docker/build.sh tag)}" python3 -m infra.k8s.release $@

backup:
	@infra/k8s/backups.sh now

backups:
	@infra/k8s/backups.sh list

restore:
	@infra/k8s/backups.sh restore "$(FILE)"

messages: setup-test
	@$(VENV_PYTHON) manage.py makemessages --locale en --no-location --no-obsolete --ignore .venv --ignore .venv-bench --ignore node_modules --ignore var --ignore tests
	@$(VENV_PYTHON) -m infra.setup.compile_messages

screenshots: setup-test
	@$(VENV_PYTHON) -m infra.setup.screenshots $(ARGS)

clean:
	@for path in var report.json static/built .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache; do \
		if [ -e $$path ]; then echo "removing $$path ($$(du -sh $$path | cut -f1))"; rm -rf $$path; fi; \
	done
	@find . -path './.venv*' -prune -o -path ./node_modules -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	@for path in .venv .venv-bench node_modules; do if [ -e $$path ]; then echo "removing $$path"; rm -rf $$path; fi; done
