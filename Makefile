# llm_ext: a PostgreSQL extension (PGXS) and the executor it starts.
#
# PGXS builds the shared library from src/server, the only folder that sees
# PostgreSQL's headers.  Everything else is compiled here by plain rules and
# without PostgreSQL's include path, so that a stray #include of a server
# header is a compile error (src/README.md says who may include whom).
#
#   make                 llm_ext.so and llm_executor
#   make install         into the server that PG_CONFIG names
#   make demo|psql|stop  a private cluster with the demo model
#   make test            everything that needs no GPU
#   make BUILD_TYPE=debug|asan …   other builds of common, engine and tests

BUILD_TYPE ?= release
BUILD ?= build/$(BUILD_TYPE)

# ---------------------------------------------------------------- server
MODULE_big = llm_ext
EXTENSION = llm_ext
DATA = $(wildcard sql/llm_ext--*.sql)
PGFILEDESC = "llm_ext - language models inside the database"

SERVER_SRCS = $(sort $(wildcard src/server/*.c src/server/*/*.c))
OBJS = $(SERVER_SRCS:.c=.o)

PG_CPPFLAGS = -I.
PG_CFLAGS = -std=gnu11 -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-cast-function-type \
	-Wno-declaration-after-statement -fvisibility=hidden $(SERVER_WERROR)
SHLIB_LINK = $(BUILD)/libllm_common.a -lcjson -lpcre2-8 -lutf8proc -lm

# the demo's and the tests' helpers are found here
EXTRA_CLEAN = build

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
with_llvm = no
include $(PGXS)

# ------------------------------------------------- common, engine, tests
OPT_release = -O3 -DNDEBUG -g
OPT_debug = -O1 -g
OPT_asan = -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer \
	-fno-sanitize-recover=undefined
LINK_asan = -fsanitize=address,undefined

OWN_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter \
	-Wno-missing-field-initializers -Wstrict-prototypes -Wvla \
	-fPIC -fvisibility=hidden -ffp-contract=fast \
	-D_GNU_SOURCE -I. -MMD -MP $(OPT_$(BUILD_TYPE)) $(EXTRA_CFLAGS)
OWN_LDFLAGS = $(LINK_$(BUILD_TYPE)) $(EXTRA_LDFLAGS)
OWN_LIBS = -lcjson -lpcre2-8 -lutf8proc -lpthread -ldl -lm

COMMON_SRCS = $(sort $(wildcard src/common/*/*.c))
ENGINE_SRCS = $(sort $(filter-out src/engine/executor/main.c, \
	$(wildcard src/engine/*/*.c)))
UNIT_SRCS = $(sort $(wildcard test/unit/test_*.c test/ops/test_*.c))
BENCH_SRCS = $(sort $(wildcard test/bench/bench_*.c))

COMMON_OBJS = $(COMMON_SRCS:%.c=$(BUILD)/%.o)
ENGINE_OBJS = $(ENGINE_SRCS:%.c=$(BUILD)/%.o)
UNIT_PROGRAMS = $(UNIT_SRCS:test/%.c=$(BUILD)/test/%)
BENCH_PROGRAMS = $(BENCH_SRCS:test/%.c=$(BUILD)/test/%)
EXECUTOR = $(BUILD)/llm_executor

# A compute file's suffix names the instructions it may use.
ISA_avx2 = -mavx2 -mfma -mf16c
ISA_avx512 = $(ISA_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
ISA_avx512bf16 = $(ISA_avx512) -mavx512bf16
isa_flags = $(ISA_$(lastword $(subst _, ,$(basename $(notdir $(1))))))

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(OWN_CFLAGS) $(call isa_flags,$<) -c $< -o $@

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

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

all: $(EXECUTOR)
llm_ext.so: $(BUILD)/libllm_common.a

install: install-executor
install-executor: $(EXECUTOR)
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $(EXECUTOR) '$(DESTDIR)$(pkglibdir)/llm_executor'
uninstall: uninstall-executor
uninstall-executor:
	rm -f '$(DESTDIR)$(pkglibdir)/llm_executor'

unit-programs: $(UNIT_PROGRAMS)
bench-programs: $(BENCH_PROGRAMS)

# one room's unit tests: make unit-tokenizer
unit-%: $(BUILD)/test/unit/test_%
	$<

.PHONY: install-executor uninstall-executor unit-programs bench-programs
