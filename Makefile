# Only Go is needed. `make demo` runs a cluster on this machine; `make test` is what CI runs.
GO      ?= go
TOOL     = $(GO) tool -modfile=tools/go.mod
PACKAGES = ./...
FUZZTIME ?= 10s
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: all build demo test check format vet lint layers race fuzz sim bench clean

all: check test

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o tradepost ./cmd/tradepost

# make demo          a cluster that keeps running; make demo STORY=1 runs the story and exits
demo: build
	./tradepost dev $(if $(STORY),--story) $(DEMOFLAGS)

test:
	$(GO) test -timeout 14m $(PACKAGES)

check: format vet lint layers

format:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not formatted (run: gofmt -w .):"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet $(PACKAGES)

lint:
	$(TOOL) staticcheck $(PACKAGES)

layers:
	$(GO) test -run 'TestLayers|TestPackageDocs' .

race:
	$(GO) test -race -timeout 40m $(PACKAGES)

# Every fuzz target of every package, FUZZTIME each.
fuzz:
	@for pkg in $$($(GO) list $(PACKAGES)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

# make sim SEED=n SEEDS=k   histories of whole clusters in one goroutine, and scripts and histories in virtual time
# A world is small and lives for a second: collecting garbage less often saves a fifth of the time.
sim:
	GOGC=400 $(GO) test -count 1 -v -timeout 3h -run 'TestSeeds|TestFixedSeeds' ./sim -seed $(or $(SEED),1) -seeds $(or $(SEEDS),20)
	$(GO) test -count 1 -run 'TestScripts|TestHistories' ./clustertest -seed $(or $(SEED),1) -seeds $(or $(SEEDS),20)

bench:
	cd bench && $(GO) run . $(BENCHFLAGS)

clean:
	rm -f tradepost
