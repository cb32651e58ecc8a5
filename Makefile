# `make` alone lists what a person can ask for.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Relative, since make takes a blank in a path for the end of a name.
BIN      := .cache/bin
REVISION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# VERSION is what the program calls itself, and the tag of docker compose's image where it is set.
export REVISION

# PKG narrows `make test` to some packages: make test PKG=./internal/saga/...
PKG       ?= ./...
TESTFLAGS ?= -race -timeout 15m
KILLS     ?= 30
OUTAGE    ?= 30s
AUDITS    ?= 200
OPERATIONS ?= 50
PAYMENTS  ?= 1000000
REFRESHES ?= 20

KAFKA_BROKERS := 127.0.0.1:19092
# The tests that have asked for a broker in the last green `make test` of all packages, and so run
# against both brokers.
BROKER_TESTS  := $(CURDIR)/.cache/broker-tests

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Run everything here (Postgres, broker, simulator, service); Ctrl-C ends it, state stays in .data
	@exec ./bin/payments demo

.PHONY: audit-demo
audit-demo: build ## Check every invariant of the running demo
	@set -a; . ./.data/demo.env; set +a; exec ./bin/payments audit

.PHONY: build
build: ## Build bin/payments
	go build -trimpath -ldflags "-X main.version=$(or $(VERSION),$(REVISION))" -o bin/payments ./cmd/payments

.PHONY: test
# -count=1: the tools' tests read files outside of their module, which go test's cache does not see,
# and each test that asks for a broker has to say so anew.
test: $(BIN)/gotestsum ## Run the tests with the race detector: PKG=./internal/saga/... for some, TESTFLAGS for go test
	cd tools && ../$(BIN)/gotestsum --format pkgname -- -count=1 ./...
	cd client && ../$(BIN)/gotestsum --format pkgname -- $(TESTFLAGS) ./...
	cd bench && ../$(BIN)/gotestsum --format standard-verbose -- -count=1 ./...
	@rm -f '$(BROKER_TESTS).new'
	PAYMENTS_TEST_BROKER_LIST='$(BROKER_TESTS).new' $(BIN)/gotestsum --format pkgname --format-hide-empty-pkg -- $(TESTFLAGS) -count=1 $(PKG)
	@[[ '$(PKG)' != ./... ]] || mv '$(BROKER_TESTS).new' '$(BROKER_TESTS)' # all packages, and green

.PHONY: docs-test
# A part of `make test`: the tests of tools/ are run there.
docs-test: ## Run each example of README.md and docs in bash and zsh beside a fresh demo, and compare what it prints: PAGE=saga for some pages
	cd tools && go test -count=1 -v -timeout 20m -run 'TestExamples|TestBlocks|TestWhatAPage' . -docs-page='$(PAGE)'

.PHONY: docs-walk
docs-walk: ## Let a headless Chromium walk /docs of a demo as an integrator, with layout checks and axe, and take docs/screenshots anew
	scripts/docs-walk.sh

.PHONY: test-kafka
# -p 1: some tests stop and start the broker that all of them share.
test-kafka: $(BIN)/gotestsum ## Run the broker-facing tests of the last `make test` against the Kafka of `make kafka-up`
	@[[ -s '$(BROKER_TESTS)' ]] || { echo "Run make test of all packages first: if it is green, it lists the tests that face a broker." >&2; exit 1; }
	PAYMENTS_TEST_KAFKA_BROKERS=$(KAFKA_BROKERS) PAYMENTS_TEST_KAFKA_SCRIPT="$$PWD/scripts/kafka.sh" \
		$(BIN)/gotestsum --format pkgname --format-hide-empty-pkg -- $(TESTFLAGS) -count=1 -p 1 \
		-run "^($$(sed 's/.* //' '$(BROKER_TESTS)' | sort -u | paste -sd '|'))\$$" \
		$$(sed -e 's/ [^ ]*$$//' -e "s|^$$PWD|.|" '$(BROKER_TESTS)' | sort -u)

.PHONY: chaos
chaos: $(BIN)/gotestsum ## Kill and stop everything under load, KILLS=30 times and for OUTAGE=30s, and audit what is left
	PAYMENTS_CHAOS_KILLS=$(KILLS) PAYMENTS_CHAOS_OUTAGE=$(OUTAGE) \
		$(BIN)/gotestsum --format testname -- -race -count=1 -parallel 2 -timeout 60m -run 'Killed|Stopped|Away' ./test/...

.PHONY: drills
drills: $(BIN)/gotestsum ## Restore, recover, fail over and change the topic with payments under way, and audit: docs/operations/restore.md, as tests
	PAYMENTS_DRILLS=all $(BIN)/gotestsum --format testname -- -count=1 -parallel 1 -timeout 30m -run 'Restored|Recovered|Promoted' ./test/...

.PHONY: counts-baseline
counts-baseline: ## Take what a payment costs now, in statements, rows, log and allocations, as the baseline of `make test`
	cd bench && go test -count=1 -v -run TestAPaymentCosts ./counts -update

.PHONY: audit-load
audit-load: ## Run AUDITS=200 audits in a row under load, with OPERATIONS=50 of each kind between two, on both providers
	PAYMENTS_AUDIT_ROUNDS=$(AUDITS) PAYMENTS_AUDIT_OPERATIONS=$(OPERATIONS) go test ./test -run TestAuditsUnderLoadAreClean -v -count=1 -timeout 6h

.PHONY: bench-quick
bench-quick: build ## Measure payments a second, latency, idling and what one payment costs, beside DBOS, in three minutes
	cd bench && go build -o bench . && ./bench quick -fresh $(BENCHFLAGS)

.PHONY: bench
bench: build ## Measure every scenario in five rounds, for hours; goes on where it stopped: BENCHFLAGS="-only complete,latency"
	cd bench && go build -o bench . && ./bench full $(BENCHFLAGS)

.PHONY: bench-neighbors
bench-neighbors: build ## Measure what one merchant at its limits costs another, for each way to reach them, in ten minutes
	cd bench && go build -o bench . && ./bench quick -fresh -rounds 1 -only neighbors $(BENCHFLAGS)

.PHONY: bench-relays
bench-relays: ## Drain and latency of the outbox beside what others use: BENCHFLAGS="-hold 10m -only ours,ours-open-tx"
	cd bench && go build -o bench . && ./bench relays $(BENCHFLAGS)

.PHONY: bench-queries
bench-queries: ## Measure lists, search and reads at SIZES=100000,10000000 payments (the second takes half an hour and 50 GB)
	go test ./internal/readmodel -count=1 -run TestQueriesMeasured -v -timeout 180m -queries-sizes=$(or $(SIZES),100000)

.PHONY: bench-reports
bench-reports: ## Live queries, caches and materialized views side by side, for PAYMENTS=1000000 payments and REFRESHES=20
	go test -count=1 -v -timeout 180m -run TestReportsAtSize ./internal/report -report-payments=$(PAYMENTS) -report-refreshes=$(REFRESHES)

.PHONY: timing
# Without the race detector, which would be what is measured.
timing: ## Ask by measurement whether verifying a secret takes a time that tells of it; SAMPLES=50000 asks thoroughly
	DUDECT_SAMPLES=$(SAMPLES) go test -count=1 -p 1 -v -run 'TellsNothingByItsTime' ./internal/secret ./internal/provider

.PHONY: generate
# That the committed code is what this writes, a test in tools/ holds.
generate: ## Generate the Go client from the OpenAPI document
	cd tools && go tool oapi-codegen -config ../client/generate/config.yaml -o ../client/api.gen.go ../internal/api/openapi.yaml

.PHONY: reader
# That the committed files are what this writes, a test in tools/ holds.
reader: ## Compress what is served under /docs, after internal/api/reader/scalar.js was renewed
	cd tools && go run ./reader

.PHONY: release-api
release-api: ## Take the OpenAPI document of each version for released: from here on only additions to it pass `make lint`
	for document in internal/api/openapi.yaml internal/api/versions/????-??-??.yaml; do \
		cp "$$document" "docs/api/released/$$(sed -n "s/^  version: '\(.*\)'$$/\1/p" "$$document").yaml"; done

.PHONY: lint
lint: $(BIN)/golangci-lint ## Check the words, the code, the import direction, every go.mod file, and that the API breaks no client
	cd tools && go run ./words
	$(BIN)/golangci-lint run ./...
	cd tools && ../$(BIN)/golangci-lint run --config ../.golangci.yml ./...
	cd bench && ../$(BIN)/golangci-lint run --config ../.golangci.yml ./...
	cd client && ../$(BIN)/golangci-lint run --config ../.golangci.yml ./...
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd bench && go mod tidy -diff
	cd client && go mod tidy -diff
	scripts/api-changes.sh

.PHONY: lint-openapi
lint-openapi: ## Check the OpenAPI document (needs Node.js 20.19 or 22.12, and npm's registry once)
	scripts/openapi-lint.sh

.PHONY: contract
contract: ## Let Schemathesis hold a demo against its OpenAPI document (needs Python, and PyPI once): EXAMPLES=200 SEED=2 for more and others
	scripts/contract.sh

.PHONY: vuln
# gosec runs within golangci-lint, by `make lint`.
vuln: $(BIN)/govulncheck ## Look for known vulnerabilities in what the program calls (needs the network)
	scripts/vuln.sh $(BIN)/govulncheck

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## Format the code
	$(BIN)/golangci-lint fmt ./...
	cd tools && ../$(BIN)/golangci-lint fmt --config ../.golangci.yml ./...
	cd bench && ../$(BIN)/golangci-lint fmt --config ../.golangci.yml ./...
	cd client && ../$(BIN)/golangci-lint fmt --config ../.golangci.yml ./...

.PHONY: kafka-up
kafka-up: ## Start a real Apache Kafka on this machine (needs Java 17 and Maven)
	scripts/kafka.sh up

.PHONY: kafka-down
kafka-down: ## Stop it and remove its data
	scripts/kafka.sh down

.PHONY: up
up: ## Start the full stack from real images, with Docker alone, and say what to do next
	@scripts/up.sh

.PHONY: down
down: ## Stop the stack; its volumes stay (docker compose down --volumes removes them)
	docker compose down

# Tools are built once for each state of tools/go.sum.
$(BIN)/golangci-lint: tools/go.mod tools/go.sum
	GOBIN="$$PWD/$(BIN)" go -C tools install github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

$(BIN)/govulncheck: tools/go.mod tools/go.sum
	GOBIN="$$PWD/$(BIN)" go -C tools install golang.org/x/vuln/cmd/govulncheck
	@touch $@

$(BIN)/gotestsum: tools/go.mod tools/go.sum
	GOBIN="$$PWD/$(BIN)" go -C tools install gotest.tools/gotestsum
	@touch $@
