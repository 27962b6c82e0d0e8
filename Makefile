# One entry for desk and CI. Every target installs what it needs first and says what it installs.
#
#   make demo            builds and shows the product on real processes (last line: checks)
#   make test            all tests
#   make check           formatting, clippy, documentation, dependencies, layers
#   make guest-image     the demonstration guest's disk image
#   make guest-client    the static client for VMs, and an image with it
#   make demo-crash      kills every process at random points, many times
#   make demo-xkms       the four layers: guests, trust services, the centre, three PKIs, keys that move
#   make demo-xkms-away  the authority away for longer than passports last
#   make demo-xkms-crash  kills trust services and the centre while keys are registered and moved
#   make demo-xkms-server  the trust service, asked by our client and by others
#   make fuzz            every parser with mutated input, a minute each (FUZZ="seconds target...")
#   make bench-launch    trusted launch against plain QEMU       -> target/bench/launch.json
#   make bench-vtpm      vTPM manufacture, injection, memory     -> target/bench/vtpm.json
#   make bench-appraise  appraisals per second                   -> target/bench/appraise.json
#   make bench-xkms      signed answers a second, against OCSP -> target/bench/xkms.json
#   make bench-xkms-table  four layers against a PKI directly -> target/bench/xkms-table.json
#   make bench-xkms-scale  four layers with many clients -> target/bench/xkms-scale.json
#   make bench-pki       certificate paths validated per second  -> target/bench/pki.json
#   make bench-disk      volumes against qemu-nbd and nbdkit     -> target/bench/disk.json
#   make bench-disk-crash  thousands of power cuts               -> target/bench/disk-crash.json

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

cargo := cargo --quiet
# Which packages and targets are selected decides with which features the dependencies are built.
# Every target below therefore selects the whole workspace, and every build a test too (the
# smallest), which brings the tests' dependencies in: so nothing is ever built twice.
build := $(cargo) build --workspace --bins --test layers
install := scripts/install-packages.sh

# The guest's client is static and small; its own folder keeps everything else from being built again.
client_dir := target/guest-client
client := $(client_dir)/x86_64-unknown-linux-gnu/release/vouchsafe-guest

.PHONY: help guest-client demo demo-crash demo-xkms demo-xkms-away demo-xkms-crash demo-xkms-server test check guest-image check-image fuzz bench-launch bench-vtpm \
	bench-appraise bench-xkms bench-xkms-table bench-xkms-scale bench-pki bench-disk bench-disk-crash debug release deny toolchain

help:
	@sed -n 's/^#   //p' Makefile

toolchain:
	@if ! command -v cargo >/dev/null; then
	    echo "make: there is no cargo; install Rust from https://rustup.rs" >&2
	    exit 1
	fi
	$(install) build run

guest-image:
	@$(install) image
	guest-image/build.sh

guest-client: toolchain
	@$(install) image
	echo "make: building the guest's client (static; several minutes the first time)"
	# Its randomness is the kernel's: to time the processor for more costs each start 70 ms. Linked as one
	# piece, it has less text; what runs of that lies side by side (client.ld), and only that is in memory.
	order=$(CURDIR)/$(client_dir)/client-$$(sha256sum guest-image/client.ld | cut -c 1-16).ld
	mkdir -p $(client_dir) && cp guest-image/client.ld "$$order"
	AWS_LC_SYS_NO_JITTER_ENTROPY=1 \
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" $(cargo) rustc --release \
	    --package guest --bin vouchsafe-guest --target x86_64-unknown-linux-gnu \
	    --target-dir $(client_dir) --config 'profile.release.opt-level="s"' \
	    --config 'profile.release.lto="fat"' --config 'profile.release.codegen-units=1' \
	    --config 'profile.release.panic="abort"' \
	    --config 'profile.release.strip=true' --config 'profile.release.debug=false' \
	    -- -C link-arg=-Wl,-T,"$$order"
	guest-image/build.sh --client $(client)

# Not part of `make test`: builds every image twice.
check-image:
	@$(install) image
	scripts/check-image-reproducible.sh

debug: toolchain
	@echo "make: building (debug; several minutes the first time)"
	$(build)

release: toolchain
	@echo "make: building (release; several minutes the first time)"
	$(build) --release

test: debug guest-image guest-client
	@$(install) test
	echo "make: testing"
	$(cargo) test --workspace

check: toolchain deny
	@echo "make: formatting"
	$(cargo) fmt --all --check
	echo "make: clippy"
	$(cargo) clippy --workspace --all-targets -- -D warnings
	echo "make: documentation"
	RUSTDOCFLAGS="-D warnings" $(cargo) doc --workspace --no-deps --document-private-items
	echo "make: dependencies"
	cargo deny --log-level error check bans licenses sources
	if cargo deny --log-level off fetch db 2>/dev/null; then
	    cargo deny --log-level error check advisories
	else
	    echo "make: SKIPPED advisories: their database cannot be fetched" >&2
	fi
	echo "make: layers"
	$(cargo) test --workspace --test layers
	echo "make: all checks passed"

deny:
	@if ! cargo deny --version >/dev/null 2>&1; then
	    $(install) build
	    echo "make: installing cargo-deny (once, takes several minutes)"
	    $(cargo) install --locked cargo-deny
	fi

demo: release guest-image
	@$(install) test
	$(cargo) test --release --workspace --test demos -- demo

demo-crash: release guest-image
	@$(install) test
	$(cargo) test --release --workspace --test demos -- demo-crash 50

demo-xkms-crash: release
	@$(install) test
	$(cargo) test --release --workspace --test demos -- demo-xkms-crash 200

demo-xkms-server: release
	@$(install) test
	$(cargo) test --release --workspace --test demos -- demo-xkms-server

demo-xkms: release guest-client
	@$(install) test
	$(cargo) test --release --workspace --test demos -- demo-xkms

# Not part of `make test`: it mostly waits.
demo-xkms-away: release guest-client
	@$(install) test
	$(cargo) test --release --workspace --test demos -- demo-xkms-away

fuzz: toolchain
	@$(install) fuzz
	scripts/fuzz.sh $(FUZZ)

bench-launch: release guest-image
	@$(cargo) bench --workspace --bench launch

bench-vtpm: release
	@$(install) test
	$(cargo) bench --workspace --bench vtpm

bench-appraise: release
	@$(install) test
	$(cargo) bench --workspace --bench appraise

# QUICK=1: short runs, and no library of more than 1,000 entries.
bench-xkms: release
	@$(install) test
	$(cargo) bench --workspace --bench xkms

# QUICK=1: few clients and one delay.
bench-xkms-table: release guest-client
	@$(install) test
	$(cargo) bench --workspace --bench xkms_table

# QUICK=1: short runs on two trust services; the simulated rows are the same.
bench-xkms-scale: release guest-client
	@$(install) test
	$(cargo) bench --workspace --bench xkms_scale

# QUICK=1: three short rounds, two minutes. CASE=a,b: only rows whose name has one of these parts.
bench-disk: release
	@$(install) test
	$(cargo) bench --workspace --bench disk

bench-disk-crash: toolchain
	@$(cargo) bench --workspace --bench power_cut

bench-pki: toolchain
	@$(install) test
	$(cargo) bench --workspace --bench paths
