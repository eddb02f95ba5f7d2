# Two commands: `make run` (a disk over NVMe/TCP in a minute) and `make test`. The rest is for working on varve.
# PRESET=debug|asan|tsan|fuzz chooses another build than release.
PRESET ?= release
SECONDS_EACH ?= 60
BUILD = build/$(PRESET)

.PHONY: build run test deps bench fuzz lint format sim clean help
build: deps $(BUILD)/build.ninja          ## compile varve (build/release/varve)
	ninja -C $(BUILD)

help:                                     ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## */  make \1\t/p' $(MAKEFILE_LIST)

$(BUILD)/build.ninja: CMakeLists.txt CMakePresets.json
	cmake --preset $(PRESET)

deps:                                     ## install the Debian packages that are missing
	@tools/deps

run: build                                ## install, build, serve a disk on 127.0.0.1:4420, verify it, leave it running
	tools/demo.sh

test: deps                                ## everything: three builds, unit tests, sanitizers, end to end with a real kernel
	tests/run

bench: deps $(BUILD)/build.ninja          ## Google Benchmark; figures and how to take them: bench/README.md
	ninja -C $(BUILD)
	$(BUILD)/varve_benchmarks

fuzz: deps                                ## each fuzz target for SECONDS_EACH seconds, from its corpus
	tests/run build-fuzz fuzz --seconds $(SECONDS_EACH)

lint: deps                                ## format and tidy, seconds
	tests/run tidy format

format: deps                              ## rewrite sources as clang-format wants them
	find src tests examples -name '*.h' -o -name '*.cc' 2> /dev/null | xargs clang-format-19 -i

sim: build                                ## simulations at length, from seeds: 2,000 systems, 10,000 lives of a store
	tests/run sim

clean:
	rm -rf build
