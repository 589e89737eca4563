# Every target says what it needs. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
FUZZTIME ?= 1h
BENCHTIME ?= 1s
# The share of statements that tests reach, in percent. It only rises.
COVER_FLOOR := 75
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
# What other operating systems and architectures the module must compile for.
CROSS := linux/arm64 linux/riscv64 darwin/arm64 windows/amd64
# Packages whose tests run again as ordinary users: those that ask the kernel for something. internal/e2e and pkg/sandbox
# change the user themselves.
ROOTLESS := ./pkg/credentials ./pkg/emulate ./pkg/layer ./pkg/output ./pkg/source ./pkg/store ./pkg/worker/... ./pkg/build ./cmd/manifestctl
# All packages but the tests of the whole program, which need peers and minutes.
UNIT = $$($(GO) list ./... | grep -v -e /internal/e2e -e /internal/differential)
# What reads bytes of strangers, for the short run in make test.
FUZZ += FuzzApply
FUZZ += FuzzBuilderFiles
FUZZ += FuzzBundle
FUZZ += FuzzChallenges
FUZZ += FuzzDebData
FUZZ += FuzzDecode
FUZZ += FuzzDecodeConfig
FUZZ += FuzzDecompress
FUZZ += FuzzDockerManifest
FUZZ += FuzzDecodeYAML
FUZZ += FuzzEdit
FUZZ += FuzzExe
FUZZ += FuzzFromOCI
FUZZ += FuzzHTTP
FUZZ += FuzzLayout
FUZZ += FuzzLoad
FUZZ += FuzzMode
FUZZ += FuzzPackages
FUZZ += FuzzParse
FUZZ += FuzzParseMergeFile
FUZZ += FuzzParseTag
FUZZ += FuzzReadTOC
FUZZ += FuzzTar

.PHONY: all
all: fmt lint test build ## all of it: format, lint, test, build

.PHONY: help
help: ## this list
	@awk -F ' ## ' '/^[a-z][a-z0-9-]*:.* ## / { sub(/:.*/, "", $$1); printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/manifestctl ## bin/manifestctl: static, the same bytes from the same commit (Go)

.PHONY: bin/manifestctl
bin/manifestctl:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w -buildid=' -o $@ ./cmd/manifestctl

.PHONY: demo
demo: ## build, push, inspect and pull back examples/hello (Go, qemu-user-static)
	scripts/demo.sh

##@ gates

.PHONY: check
check: static ## the quick gate: format, vet, staticcheck, short tests; under 3 minutes (Go)
	$(GO) test -short $(UNIT)

.PHONY: static
static: ## gofumpt, vet, staticcheck and the map of packages (Go; fetches the tools once)
	@out=$$($(TOOL) gofumpt -l cmd pkg internal examples bench); [ -z "$$out" ] || { echo "not formatted (make fmt):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) test ./internal/layering

.PHONY: test
test: ## everything that decides; installs what it needs when root, else says what is missing (Go, Debian)
	CI=true scripts/test.sh </dev/null

.PHONY: unit
unit: ## all tests but those of the whole program (Go; more of them run with the packages of make deps)
	$(GO) test -timeout 30m $(UNIT)

.PHONY: e2e-long
e2e-long: ## Debian's compilers from a Dockerfile, on two architectures; apt in containers without rights (root, make deps; many minutes)
	MANIFESTCTL_LONG=1 $(GO) test -count=1 -timeout 60m -v ./internal/e2e -run 'TestDebianDockerfile|TestDebianInContainers'

.PHONY: e2e
e2e: ## the program beside its peers, as root and as ordinary users (Go, make deps; minutes)
	$(GO) test -timeout 40m ./internal/e2e ./internal/differential

.PHONY: conformance
conformance: ## the distribution specification's own tests against serve, fresh, with what they print (Go, apache2-utils)
	$(GO) test -count=1 -v ./internal/e2e -run TestConformance

.PHONY: deps
deps: ## install the Debian packages that tests use (root), or say which are missing
	scripts/deps.sh test

.PHONY: script
script: ## the scripts in cmd/manifestctl/testdata/script (Go)
	$(GO) test ./cmd/manifestctl -run TestScript

.PHONY: rootless
rootless: ## tests again as two ordinary users, with and without subuid ranges (root, uidmap)
	scripts/rootless.sh $(ROOTLESS)

.PHONY: race
# Dockerfiles are left out: BuildKit's frontend sets a flag of its resolve cache from several goroutines (builder.withResolveCache).
race: ## tests under the race detector (Go, a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m $$($(GO) list ./... | grep -v -e /internal/e2e -e /internal/consumer -e /internal/layering -e /internal/differential -e /pkg/build$$ -e /pkg/frontend/dockerfile -e /bench)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (Go)
	scripts/fuzz.sh $(FUZZTIME)

FUZZ += FuzzParseSync

.PHONY: fuzz-short
fuzz-short: ## the fuzz targets that read bytes of strangers, 10 seconds each (Go)
	scripts/fuzz.sh 10s $(FUZZ)

.PHONY: sweep
sweep: ## kill -9 at every call that changes the disk, every flipped bit of an archive (Go, strace; half an hour to an hour)
	MANIFESTCTL_SOAK=1 $(GO) test -count=1 -timeout 180m ./internal/e2e ./pkg/transfer -run 'TestD06_sweep|TestLoad_G01'
	$(GO) test -count=1 -timeout 60m ./pkg/store -run TestD06

.PHONY: soak
soak: ## 50 writers of one tag and 12 machines of one stage, killed and run again; builds killed at any moment; collections beside builds for ten minutes (Go, make deps)
	MANIFESTCTL_SOAK=1 $(GO) test -count=1 -timeout 60m ./pkg/transfer ./cmd/manifestctl -run 'TestAppend_C2|TestMergeAppend|TestStage_'
	MANIFESTCTL_SOAK=1 $(GO) test -count=1 -timeout 60m -v ./internal/e2e -run 'TestKilledAnywhere|TestCollectionsBesideBuilds'

.PHONY: cgroup
cgroup: ## limits of steps by cgroups, in a kernel of its own: user-mode Linux 6.1, which is downloaded (Go, apt-get, mkfs.ext4, busybox; 45 MB, a minute)
	scripts/cgroup.sh

.PHONY: runners
runners: ## docs/runners.md and docs/containers.md: builds on forty kinds of runners, and buildah's, and in containers (root, make deps; minutes)
	MANIFESTCTL_RUNNERS=update $(GO) test -count=1 -timeout 20m ./internal/e2e -run 'TestRunners$$|TestContainers$$'

.PHONY: races
races: ## 10,000 rounds of each race of a step against its set-up and clean-up, a canary beside the store (root for all users; twenty minutes)
	$(GO) test -count=1 -timeout 180m -v ./pkg/sandbox -run 'TestRaces$$' -races=10000

.PHONY: kills
kills: ## a hundred builds for each user, one of their processes killed at any time: nothing is left (root, make deps; minutes)
	MANIFESTCTL_KILLS=100 $(GO) test -count=1 -timeout 60m -v ./internal/e2e -run TestKilledAnytime

.PHONY: ownership
ownership: ## the long package sets: root, ranges and single id give the same layers (root, make deps; an hour)
	MANIFESTCTL_OWNERSHIP=1 $(GO) test -count=1 -timeout 120m -v ./internal/e2e -run TestSameOwners

.PHONY: test-real
test-real: ## whole Debian systems and programs of every target of Go against `verify` (Go, mmdebstrap; 400 MB, minutes)
	MANIFESTCTL_REAL=1 $(GO) test -count=1 -timeout 60m ./pkg/verify -run 'TestRealTrees|TestGoMatrix' -v

.PHONY: kubernetes
kubernetes: ## deploy/kubernetes through kustomize, read as Kubernetes' own types (Go)
	$(GO) test -modfile=tools/kubernetes.mod internal/deploy/kubernetes_test.go

.PHONY: nodes
nodes: ## builds on real BuildKit daemons, over every endpoint: the same images as here, nodes that are killed (root, make deps; minutes)
	MANIFESTCTL_NODES=1 $(GO) test -count=1 -timeout 60m -v ./internal/e2e -run TestNode

.PHONY: nodes-short
nodes-short: ## the same without daemons in containers, as make test runs it (root, runc; a minute, and one to build BuildKit once)
	MANIFESTCTL_NODES=short $(GO) test -count=1 -timeout 30m ./internal/e2e -run TestNode

.PHONY: differential
differential: ## Dockerfiles built by a real BuildKit and by us: equal configs and layers (root, runc, busybox-static; minutes)
	MANIFESTCTL_DIFFERENTIAL=ask $(GO) test -count=1 -timeout 60m -v ./internal/differential -run TestDifferential | grep -v -e '^=== ' -e '^ *--- PASS'

.PHONY: differential-random
differential-random: ## Dockerfiles that chance writes, built by a real BuildKit and by us (root, runc, busybox-static; minutes)
	MANIFESTCTL_DIFFERENTIAL_RANDOM=$${N:-200} MANIFESTCTL_DIFFERENTIAL_SEED=$${SEED:-$$RANDOM} $(GO) test -count=1 -timeout 120m -v ./internal/differential -run TestRandom | grep -v -e '^=== ' -e '^ *--- PASS'

.PHONY: differential-record
differential-record: ## write down what BuildKit answers, for tests without it; look at git diff
	MANIFESTCTL_DIFFERENTIAL=record $(GO) test -count=1 -timeout 60m ./internal/differential -run TestDifferential

.PHONY: cross
cross: ## compile for other systems and architectures (Go)
	@for p in $(CROSS); do echo "build $$p"; CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build ./cmd/... ./pkg/... ./internal/...; done

.PHONY: cover
cover: ## the share of statements that tests reach, at least the floor (Go)
	@mkdir -p bin
	$(GO) test -short -coverpkg=./pkg/...,./cmd/...,./internal/ui -coverprofile=bin/cover.out $(UNIT) >/dev/null
	@$(GO) tool cover -func=bin/cover.out | awk '/^total:/ { print; exit ($$3+0 < $(COVER_FLOOR)) }'

.PHONY: repro
repro: ## the program and the sample image twice, from other places: the same bytes (Go, qemu-user-static)
	scripts/repro.sh

.PHONY: bench
bench: ## bench/RESULTS.md: builds beside buildah and the bare processes (root, make deps)
	$(GO) run ./bench

.PHONY: benchmarks
benchmarks: ## the Go benchmarks of the packages (Go)
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) ./...

##@ by hand

.PHONY: fmt
fmt: ## format (Go)
	$(TOOL) gofumpt -w cmd pkg internal examples bench

.PHONY: lint
lint: static ## the full linter (Go; compiles golangci-lint, minutes the first time)
	$(GO) run $(GOLANGCI) run

.PHONY: docs
docs: ## write docs/cli and docs/migrating.md from the commands (Go)
	$(GO) test ./cmd/manifestctl -run 'TestReference|TestMigrating' -update

.PHONY: golden
golden: ## write golden files anew; look at git diff (Go)
	$(GO) test $$(git grep -lE 'flag\.Bool\("update"' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|') -update
	git diff --stat

.PHONY: vuln
vuln: ## known vulnerabilities in what the program calls (Go, network)
	$(TOOL) govulncheck ./...

.PHONY: clean
clean: ## remove bin
	rm -rf bin
