# The README's commands. CMake does the work; `make` alone gives build/qfw with its plugins beside it.

cores = $$(getconf _NPROCESSORS_ONLN)

all:
	@[ -f build/CMakeCache.txt ] || cmake -S . -B build -DQFW_TESTS=OFF
	@cmake --build build -j $(cores)

deps:
	@.ci/packages build

demo: deps all
	@docs/examples/demo/demo.sh

# Everything twice: under the sanitizers, and as it is released. The lints need only one of them.
test:
	@.ci/packages test
	@cmake -S . -B build/dev -DQFW_DEV=ON
	@cmake --build build/dev -j $(cores)
	@cmake -S . -B build -DQFW_TESTS=ON
	@cmake --build build -j $(cores)
	@bad=0; \
	ctest --test-dir build/dev -j $(cores) --output-on-failure -LE lint || bad=1; \
	ctest --test-dir build -j $(cores) --output-on-failure || bad=1; \
	exit $$bad

# What takes long: every point of what `make test` samples.
test-long:
	@.ci/packages test
	@cmake -S . -B build -DQFW_TESTS=ON
	@cmake --build build -j $(cores)
	@ctest --test-dir build -j $(cores) --output-on-failure -V -C Long -L long

clean:
	rm -rf build

.PHONY: all deps demo test test-long clean
