# llm_ext: a PostgreSQL extension (PGXS) and the executor it starts.
#
# PGXS builds the shared library from src/server, the only folder that sees
# PostgreSQL's headers.  Everything else is compiled here by plain rules and
# without PostgreSQL's include path, so that a stray #include of a server
# header is a compile error (src/README.md says who may include whom).
# "make help" lists the targets.

BUILD_TYPE ?= release
BUILD ?= build/$(BUILD_TYPE)
WERROR ?= -Werror

# ---------------------------------------------------------------- server
MODULE_big = llm_ext
EXTENSION = llm_ext
DATA = $(wildcard sql/llm_ext--*.sql)
PGFILEDESC = "llm_ext - language models inside the database"

SERVER_SRCS = $(sort $(wildcard src/server/*.c src/server/*/*.c))
OBJS = $(SERVER_SRCS:%.c=$(BUILD)/server/%.o)
EXPORTS = $(BUILD)/exports.map

SERVER_CFLAGS = -std=gnu11 -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-cast-function-type \
	-Wno-declaration-after-statement $(NO_CLOBBERED)
# gcc suspects every variable around PG_TRY
NO_CLOBBERED = $(if $(findstring clang,$(CC)),,-Wno-clobbered)
SERVER_debug = $(SERVER_asan)
SERVER_asan = -DUSE_ASSERT_CHECKING -O1
PG_CPPFLAGS = -I.
PG_CFLAGS = $(SERVER_CFLAGS) $(SERVER_$(BUILD_TYPE)) -MMD -MP $(WERROR)
SHLIB_LINK = $(BUILD)/libllm_common.a $(COMMON_LIBS) -lm \
	-Wl,--version-script=$(EXPORTS)

# "make installcheck" is for packagers: after "make install", as a user that
# PostgreSQL runs as.  "make test" needs none of that.
REGRESS = $(sort $(patsubst sql/%.sql,%, \
	$(filter-out $(DATA),$(wildcard sql/*.sql))))
REGRESS_PREP = build/regress.conf $(BUILD)/test/fake_executor
REGRESS_OPTS = --temp-instance=./tmp_check --temp-config=build/regress.conf \
	--load-extension=llm_ext --no-locale --encoding=UTF8
TAP_TESTS = $(if $(wildcard test/*.pl),1)
PROVE_TESTS ?= test/*.pl

EXTRA_CLEAN = build tmp_check

# Without PostgreSQL the targets that install it still work.
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
# no bitcode for the JIT: nothing here is worth inlining
override with_llvm = no
ifneq ($(PGXS),)
include $(PGXS)
endif

# ------------------------------------------------- common, engine, tests
OPT_release = -O3 -DNDEBUG -g
OPT_debug = -O1 -g
OPT_asan = -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer \
	-fno-sanitize-recover=undefined
OPT_tsan = -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_fuzz = $(OPT_asan) -fsanitize=fuzzer-no-link
LINK_asan = -fsanitize=address,undefined
LINK_fuzz = $(LINK_asan)
LINK_tsan = -fsanitize=thread

OWN_CFLAGS = -std=gnu11 -Wall -Wextra $(WERROR) -Wno-unused-parameter \
	-Wno-missing-field-initializers -Wstrict-prototypes -Wvla \
	-fPIC -fvisibility=hidden -ffp-contract=fast \
	-D_GNU_SOURCE -I. -MMD -MP $(OPT_$(BUILD_TYPE)) $(EXTRA_CFLAGS)
OWN_LDFLAGS = $(LINK_$(BUILD_TYPE)) $(EXTRA_LDFLAGS)
COMMON_LIBS = -lcjson -lpcre2-8 -lutf8proc
OWN_LIBS = $(COMMON_LIBS) -lpthread -ldl -lm

COMMON_SRCS = $(sort $(wildcard src/common/*/*.c))
ENGINE_SRCS = $(sort $(filter-out src/engine/executor/main.c, \
	$(wildcard src/engine/*/*.c)))
UNIT_SRCS = $(sort $(wildcard test/unit/test_*.c test/ops/test_*.c))
FUZZ_SRCS = $(sort $(wildcard test/fuzz/fuzz_*.c))
BENCH_SRCS = $(sort $(wildcard test/bench/bench_*.c))

COMMON_OBJS = $(COMMON_SRCS:%.c=$(BUILD)/%.o)
ENGINE_OBJS = $(ENGINE_SRCS:%.c=$(BUILD)/%.o)
UNIT_PROGRAMS = $(UNIT_SRCS:test/%.c=$(BUILD)/test/%)
FUZZ_PROGRAMS = $(FUZZ_SRCS:test/%.c=$(BUILD)/test/%)
REPLAY_PROGRAMS = $(FUZZ_SRCS:test/fuzz/fuzz_%.c=$(BUILD)/test/fuzz/replay_%)
BENCH_PROGRAMS = $(BENCH_SRCS:test/%.c=$(BUILD)/test/%)
EXECUTOR = $(BUILD)/llm_executor

# The CUDA backend is a library of its own, which the executor opens where it
# finds a GPU.  Without a CUDA compiler everything else is built.
CUDA_PATH ?= /usr/local/cuda
NVCC ?= $(firstword $(wildcard $(CUDA_PATH)/bin/nvcc) \
	$(shell command -v nvcc 2>/dev/null))
CUDA_LIBRARY = $(BUILD)/libllm_cuda.so
CUDA_SRCS = $(sort $(wildcard cuda/*.cu))
CUDA_OBJS = $(CUDA_SRCS:%.cu=$(BUILD)/%.o)
CUDA_ARCHS = -gencode arch=compute_80,code=sm_80 \
	-gencode arch=compute_90a,code=sm_90a
CUDA_OPT_release = -O3 -DNDEBUG
CUDA_OPT_debug = -O1
CUDA_OPT_asan = $(CUDA_OPT_debug)
CUDA_OPT_tsan = $(CUDA_OPT_debug)
CUDA_FLAGS = -std=c++17 -I. $(CUDA_ARCHS) $(CUDA_OPT_$(BUILD_TYPE)) -lineinfo \
	-Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra$(if $(WERROR),$(comma)-Werror) \
	-Xcompiler -Wno-unused-parameter,-Wno-missing-field-initializers
CUDA_LINK = -shared -cudart static -L$(CUDA_PATH)/lib64 -lcublasLt \
	-Xlinker --exclude-libs,ALL -Xlinker -rpath,$(CUDA_PATH)/lib64
comma = ,

$(BUILD)/cuda/%.o: cuda/%.cu
	@mkdir -p $(@D)
	$(NVCC) $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

$(CUDA_LIBRARY): $(CUDA_OBJS) $(BUILD)/src/common/util/error.o
	$(NVCC) $(CUDA_LINK) $^ -o $@

.PHONY: cuda
ifneq ($(NVCC),)
cuda: $(CUDA_LIBRARY)
else
cuda:
	@echo 'no CUDA compiler (NVCC): the executor is built for the CPU alone'
endif

# A compute file's suffix names the instructions it may use.
ISA_avx2 = -mavx2 -mfma -mf16c
ISA_avx2vnni = $(ISA_avx2) -mavxvnni
ISA_avx512 = $(ISA_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
ISA_avx512vnni = $(ISA_avx512) -mavx512vnni
ISA_avx512bf16 = $(ISA_avx512) -mavx512bf16
isa_flags = $(ISA_$(lastword $(subst _, ,$(basename $(notdir $(1))))))

# Fuzzing is for parsers: instrumented kernels take clang minutes each.
KERNELS_fuzz = $(if $(findstring /compute/cpu_,$(1)),-fno-sanitize=all \
	-fno-sanitize-coverage=inline-8bit-counters$(comma)pc-table$(comma)trace-cmp)
comma = ,

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(OWN_CFLAGS) $(call isa_flags,$<) \
		$(call KERNELS_$(BUILD_TYPE),$<) -c $< -o $@

$(BUILD)/libllm_common.a: $(COMMON_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libllm_engine.a: $(ENGINE_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

$(EXECUTOR): $(BUILD)/src/engine/executor/main.o $(BUILD)/libllm_engine.a \
		$(BUILD)/libllm_common.a
	$(CC) $(OWN_LDFLAGS) $^ $(OWN_LIBS) -o $@

$(BUILD)/test/%: $(BUILD)/test/%.o $(BUILD)/libllm_engine.a \
		$(BUILD)/libllm_common.a
	$(CC) $(OWN_LDFLAGS) $^ $(OWN_LIBS) -o $@

# A fuzz target with libFuzzer's main (clang only), or with one that goes
# through the committed corpus.
$(BUILD)/test/fuzz/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o \
		$(BUILD)/libllm_engine.a $(BUILD)/libllm_common.a
	$(CC) $(OWN_LDFLAGS) -fsanitize=fuzzer $^ $(OWN_LIBS) -o $@

$(BUILD)/test/fuzz/replay_%: $(BUILD)/test/fuzz/fuzz_%.o \
		$(BUILD)/test/fuzz/replay.o $(BUILD)/libllm_engine.a \
		$(BUILD)/libllm_common.a
	$(CC) $(OWN_LDFLAGS) $^ $(OWN_LIBS) -o $@

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.DEFAULT_GOAL = all
all: $(EXECUTOR) cuda

# PGXS links llm_ext.so here, whatever the build type: link again where the
# last one was of another type.
llm_ext.so: $(BUILD)/libllm_common.a $(EXPORTS) build/linked-for
build/linked-for: FORCE
	@mkdir -p build
	@echo '$(BUILD)' | cmp -s - $@ || echo '$(BUILD)' > $@
FORCE:

$(BUILD)/server/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(CPPFLAGS) -c $< -o $@

# What PostgreSQL looks up by name, and nothing else: the functions that have
# an info record, the entry points, and the background workers'.
export_map = { nm -g --defined-only $(1) | sed -n \
	's/.* pg_finfo_\(.*\)/\1; pg_finfo_\1;/p' | LC_ALL=C sort; } | \
	{ echo '{ global: _PG_init; Pg_magic_func; llm_scheduler_main; \
	llm_finetune_worker_main;'; cat; \
	echo 'local: *; };'; }

$(BUILD)/exports.map: $(OBJS)
	@mkdir -p $(@D)
	@$(call export_map,$(OBJS)) > $@

install: install-executor
install-executor: $(EXECUTOR) cuda
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $(EXECUTOR) '$(DESTDIR)$(pkglibdir)/llm_executor'
	$(if $(NVCC),$(INSTALL_SHLIB) $(CUDA_LIBRARY) '$(DESTDIR)$(pkglibdir)/')
uninstall: uninstall-executor
uninstall-executor:
	rm -f '$(DESTDIR)$(pkglibdir)/llm_executor' \
		'$(DESTDIR)$(pkglibdir)/libllm_cuda.so'

build/regress.conf: test/regress.conf
	@mkdir -p build
	@{ cat $<; echo "llm_ext.model = '$(CURDIR)/models/demo'"; } > $@

# The server part with any compiler, against any server's headers, strict,
# without PGXS: what "make test" does with clang and with newer majors.
PG_SERVER_INCLUDE ?= $(shell $(PG_CONFIG) --includedir-server)
CHECK_OBJS = $(SERVER_SRCS:%.c=$(BUILD)/check/%.o)
CHECK_CFLAGS = $(SERVER_CFLAGS) -Wall -Werror -Wmissing-prototypes \
	-Wpointer-arith -Wvla -O2 -g -fPIC -fno-strict-aliasing -fwrapv \
	-D_GNU_SOURCE -I. -isystem $(PG_SERVER_INCLUDE) -MMD -MP

$(BUILD)/check/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CHECK_CFLAGS) -c $< -o $@

$(BUILD)/check/llm_ext.so: $(CHECK_OBJS) $(BUILD)/libllm_common.a
	@mkdir -p $(@D)
	@$(call export_map,$(CHECK_OBJS)) > $(BUILD)/check/exports.map
	$(CC) -shared $^ $(COMMON_LIBS) -lm -o $@ \
		-Wl,--version-script=$(BUILD)/check/exports.map

check-server: $(BUILD)/check/llm_ext.so

# ----------------------------------------------------------------- tests
unit-programs: $(UNIT_PROGRAMS)
bench-programs: $(BENCH_PROGRAMS)
fuzz-programs: $(FUZZ_PROGRAMS)
replay-programs: $(REPLAY_PROGRAMS)

# one room's unit tests: make unit-tokenizer
unit-%: $(BUILD)/test/unit/test_%
	$<

# the same, compiled with the sanitizers or with asserts
asan debug tsan:
	$(MAKE) BUILD_TYPE=$@ unit-programs build/$@/llm_executor \
		$(if $(filter debug,$@),all)

test:
	@tools/install-packages.sh test
	@tools/run-tests.sh

bench:
	@tools/install-packages.sh build
	@$(MAKE) -s bench-programs
	@tools/run-bench.sh $(BUILD) $(CSV)

# Where there is a GPU: steps, attention, and whole jobs beside their bounds.
bench-gpu: cuda $(BUILD)/test/bench/bench_gpu $(BUILD)/test/bench/bench_jobs \
		$(BUILD)/test/bench/bench_attention
	$(BUILD)/test/bench/bench_gpu
	$(BUILD)/test/bench/bench_attention
	$(BUILD)/test/bench/bench_jobs

fuzz:
	@tools/install-packages.sh fuzz
	@$(MAKE) -s CC=clang BUILD_TYPE=fuzz fuzz-programs
	@tools/run-fuzz.sh build/fuzz

check-format check-layers check-headers check-style:
	@tools/$@.sh

check-symbols: all
	@tools/$@.sh $(EXECUTOR) llm_ext.so $(if $(NVCC),$(CUDA_LIBRARY))

check-newer:
	@tools/check-newer.sh 17
	@tools/check-newer.sh 18

# ------------------------------------------------------------------ demo
demo psql stop:
	@tools/demo.sh $@

help:
	@echo 'make                the extension and the executor'
	@echo 'make install        into the server that PG_CONFIG names'
	@echo 'make cuda           the CUDA backend alone (part of make where nvcc is)'
	@echo 'make demo           a private cluster with the demo model'
	@echo 'make psql           connect to it (also SQL on standard input)'
	@echo 'make stop           stop it'
	@echo 'make test           everything that needs no GPU'
	@echo '  PARTS="checks builds newer unit regress tap", TESTS="names", ACCEPT=1, KEEP=1'
	@echo 'make bench          measure this machine; CSV=1 also writes docs/bench'
	@echo 'make bench-gpu      measure a GPU: steps, attention, whole jobs'
	@echo 'make fuzz           look for inputs that break the parsers'
	@echo '  FUZZ_SECONDS=600, FUZZ="names"'
	@echo 'make unit-ROOM      the unit tests of one room, as in unit-tokenizer'
	@echo 'make asan|debug|tsan  libraries, executor and unit tests of that kind'
	@echo 'make check-format   layout of the sources (tools/check-format.sh --fix)'
	@echo 'make check-layers   who includes whom'
	@echo 'make check-headers  every header compiles alone'
	@echo 'make check-style    sizes, names, headers of files'
	@echo 'make check-symbols  what both products use and export'
	@echo 'make check-newer    compile against newer PostgreSQL majors'
	@echo 'make clean'
	@echo
	@echo 'variables: BUILD_TYPE=release|debug|asan|tsan, BUILD=folder, PG_CONFIG,'
	@echo '           CC, WERROR= (warnings are no errors), EXTRA_CFLAGS'

.PHONY: all install-executor uninstall-executor unit-programs bench-programs \
	fuzz-programs replay-programs fuzz asan debug tsan test bench bench-gpu check-format check-layers check-headers \
	check-style check-symbols check-newer check-server demo psql stop help FORCE
