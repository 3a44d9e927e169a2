# What people and CI run. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
# The order of prerequisites is the order of the steps.
.NOTPARALLEL:

BIN := $(or $(CARGO_TARGET_DIR),target)/debug
SAY := @printf '\n== %s\n'

.PHONY: help demo image dist chart chart-check screenshots e2e test faults faults-programs torture bench bench-programs bench-quick up down status build programs fmt fmt-check lint crds verify-generated prerequisites

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Show one credential from issue to revocation, in a cluster of its own
	@$(BIN)/dsv-dev demo

test: build programs faults-programs fmt-check lint verify-generated ## Check everything that can be checked, with all tests on real parts
	$(SAY) 'running all tests on a real Kubernetes and real PostgreSQL servers'
	@$(BIN)/dsv-dev test

faults: build programs faults-programs ## Break everything at every step, and let the databases judge (POSTGRES=15,18 SEED=n ONLY=name)
	@$(BIN)/dsv-dev faults $(if $(POSTGRES),--postgres $(POSTGRES)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

torture: build programs faults-programs ## Use and break everything at random (MINUTES=10 SEED=n)
	@$(BIN)/dsv-dev torture $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

# Built as what is released; all else of the workspace is not needed.
bench-programs: prerequisites
	$(SAY) 'building operator, engine and the measuring program as they are released; the first time this takes some minutes'
	@cargo build --locked --release --workspace --bin dsv-operator --bin dsv-engine --bin dsv-bench

bench: bench-programs ## Measure everything beside its limits (POSTGRES=15,18 ONLY=issue,cost LEASES=1000 ACCOUNTS=n ENGINES=200 ROTATIONS=200 MINUTES=2 OUTPUT=json)
	$(SAY) 'measuring; with nothing else on the machine this takes about ten minutes for each release of PostgreSQL'
	@ulimit -Sn "$$(ulimit -Hn)"; RUST_LOG=info $(BIN)/../release/dsv-bench $(if $(POSTGRES),--postgres $(POSTGRES)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(LEASES),--leases $(LEASES)) $(if $(ACCOUNTS),--accounts $(ACCOUNTS)) \
		$(if $(ENGINES),--engines $(ENGINES)) $(if $(ROTATIONS),--rotations $(ROTATIONS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(OUTPUT),--output $(OUTPUT))

bench-quick: build ## Check in two minutes what no noise can move: requests and statements of a life, memory (POSTGRES=18)
	@RUST_LOG=info $(BIN)/dsv-bench --quick --postgres $(or $(POSTGRES),18)

image: build ## Build the images of operator and engine into target/images, without Docker (ARCH=amd64, arm64)
	@$(BIN)/dsv-dev image $(if $(ARCH),--arch $(ARCH))

dist: build ## Build archives of engine and plugin, with hashes and a list of components, into target/dist (ARCH=amd64, arm64)
	@$(BIN)/dsv-dev dist $(if $(ARCH),--arch $(ARCH))

chart: crds ## Write the chart's generated files anew, and config/install.yaml (builds helm once)
	@$(BIN)/dsv-dev chart

chart-check: build ## Check the chart with helm and a real API server (builds helm once)
	@$(BIN)/dsv-dev chart-check

screenshots: build ## Write docs/images anew, from the page for people in a real browser
	@DSV_SCREENSHOTS=$(CURDIR)/docs/images cargo test --locked --workspace --test vault in_a_real_browser

e2e: build ## Install the chart on a real node, and let pods use what it issues (needs root)
	@$(BIN)/dsv-dev e2e

up: build ## Start a local Kubernetes with the operator and PostgreSQL, and leave it running (POSTGRES=18 for another release)
	@$(BIN)/dsv-dev up $(if $(POSTGRES),--postgres $(POSTGRES))

status: ## Show what `make up` runs
	@$(BIN)/dsv-dev status

down: ## End what `make up` started
	@$(BIN)/dsv-dev down

build: prerequisites ## Build the programs of this project
	$(SAY) 'building the programs of this project'
	@cargo build --locked --workspace --bins

programs: build ## Build Kubernetes and fetch PostgreSQL for the tests, once per machine
	$(SAY) 'making sure that Kubernetes and PostgreSQL 15 to 18 are there'
	@$(BIN)/dsv-dev programs

# The same folder as for all else, so that only this package is compiled once more and not all that it uses; the programs
# are put aside, since the next build without the feature puts its own in their place.
faults-programs: prerequisites ## Build operator and engine with the places at which the fault tests hold them
	$(SAY) 'building the programs with failpoints'
	@cargo build --locked --workspace --bins --features dsv-operator/failpoints
	@mkdir -p $(BIN)/../faults
	@cp --remove-destination $(BIN)/dsv-operator $(BIN)/dsv-engine $(BIN)/../faults/
	@cargo build --locked --workspace --bins

fmt: ## Format the code
	@cargo fmt --all

fmt-check: ## Check the format of the code
	$(SAY) 'checking the format'
	@cargo fmt --all --check

lint: ## Check the code with clippy
	$(SAY) 'checking the code with clippy'
	@cargo clippy --locked --workspace --all-targets -- -D warnings

crds: build ## Write what the code prints anew: definitions, rights, and the pages on fields and metrics
	@$(BIN)/dsv-operator crd --dir crds
	@$(BIN)/dsv-operator rbac --dir config/rbac
	@$(BIN)/dsv-operator chart --dir charts/dsv-operator
	@$(BIN)/dsv-operator reference --dir docs

verify-generated: build ## Check that what `make crds` writes is what the code says
	$(SAY) 'comparing crds/, config/rbac/ and generated pages with what the code says'
	@rm -rf target/generated
	@$(BIN)/dsv-operator crd --dir target/generated/crds
	@$(BIN)/dsv-operator rbac --dir target/generated/rbac
	@$(BIN)/dsv-operator chart --dir target/generated/chart
	@$(BIN)/dsv-operator reference --dir target/generated/docs
	@diff -ru crds target/generated/crds && diff -ru config/rbac target/generated/rbac \
		&& diff -ru charts/dsv-operator/files/crds target/generated/chart/files/crds \
		&& for page in target/generated/docs/*; do diff -u "docs/$${page##*/}" "$$page" || exit 1; done \
		&& for file in target/generated/chart/templates/*; do diff -u "charts/dsv-operator/templates/$${file##*/}" "$$file" || exit 1; done \
		|| { echo 'generated files differ from the code: run `make crds` and commit the result' >&2; exit 1; }

prerequisites:
	@command -v cargo >/dev/null || { echo 'Rust is needed: there is no `cargo` on the PATH' >&2; exit 1; }
