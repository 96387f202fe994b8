#!/usr/bin/env bash
# check-layers.sh
#	Compare every #include with the table of who may include whom.
#
# The table below is the one that src/README.md explains.  A room is a folder;
# it may include its own headers and those of the rooms named in its row, and
# nothing else of this project.  Besides:
#   - headers are named from the repository root: "src/common/util/error.h";
#   - PostgreSQL's headers appear only in src/server, CUDA's only in cuda;
#   - threads live only in the engine and in cuda;
#   - processor intrinsics appear only in src/engine/compute and src/common/util;
#   - *_internal.h stays in its room, *_subsys.h is for llm_ext.c alone.
#
# tools/check-layers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/sources.sh

table='
src/common/util
src/common/ipc          src/common/util
src/common/tokenizer    src/common/util
src/common/template     src/common/util
src/common/grammar      src/common/util src/common/tokenizer
src/common/safetensors  src/common/util
src/common/quant        src/common/util
src/common/gguf         src/common/util src/common/quant
src/common/checkpoint   src/common/util src/common/quant src/common/safetensors src/common/gguf
src/common/model_dir    src/common/util src/common/safetensors src/common/gguf src/common/checkpoint
src/common/dataset      src/common/util src/common/template src/common/tokenizer
src/common/adapter      src/common/util src/common/safetensors src/common/checkpoint src/common/model_dir
src/common/model_image  src/common/util src/common/model_dir src/common/template src/common/tokenizer
src/engine/compute      src/common/util
src/engine/batch        src/common/util
src/engine/sample       src/common/util src/common/ipc src/engine/compute
src/engine/model        src/common/util src/common/safetensors src/common/checkpoint src/common/adapter src/common/quant src/common/model_dir src/engine/compute
src/engine/train        src/common/quant src/common/util src/common/dataset src/common/model_dir src/common/safetensors src/common/adapter src/engine/compute src/engine/model
src/engine/executor     src/common/util src/common/ipc src/common/safetensors src/common/model_dir src/common/adapter src/common/model_image src/common/grammar src/engine/compute src/engine/batch src/engine/model src/engine/sample src/engine/train src/common/dataset
src/server              src/common/util src/server/scheduler src/server/scan src/server/finetune
src/server/catalog      src/common/util src/common/model_dir src/common/adapter src/server
src/server/scheduler    src/common/util src/common/ipc src/server
src/server/sql          src/common/util src/common/ipc src/common/tokenizer src/common/template src/common/grammar src/common/safetensors src/common/model_dir src/common/model_image src/common/adapter src/server src/server/catalog src/server/scheduler
src/server/scan         src/common/util src/server src/server/scheduler src/server/sql
src/server/finetune     src/common/util src/common/ipc src/common/dataset src/common/tokenizer src/common/template src/common/model_dir src/common/model_image src/common/adapter src/server src/server/catalog src/server/scheduler src/server/sql
cuda                    src/common/util src/engine/compute
test                    src/common/*
test/unit               src/common/* src/engine/*
test/ops                src/common/* src/engine/* test/unit
test/fuzz               src/common/* src/engine/*
test/bench              src/common/* src/engine/*
'

list_sources | awk -v table="$table" '
function complain(message) {
	printf "%s:%d: %s\n", file, line_no, message
	n_complaints++
}

function room_of(path) {
	sub(/\/[^\/]*$/, "", path)
	return path
}

function may_include(from, to,    i, n, rooms, pattern) {
	if (from == to)
		return 1
	n = split(allowed[from], rooms, " ")
	for (i = 1; i <= n; i++) {
		if (rooms[i] == to)
			return 1
		pattern = rooms[i]
		if (sub(/\*$/, "", pattern) && index(to, pattern) == 1)
			return 1
	}
	return 0
}

function check_own(room, path,    to, base) {
	to = room_of(path)
	base = path
	sub(/.*\//, "", base)
	if (!may_include(room, to))
		complain(room " may not include \"" path "\"")
	if (base ~ /_internal\.h$/ && to != room && room !~ /^test\//)
		complain("\"" path "\" is internal to " to)
	if (base ~ /_subsys\.h$/ && to != room && file != "src/server/llm_ext.c")
		complain("\"" path "\" is for src/server/llm_ext.c alone")
}

function check_foreign(room, path) {
	if (path ~ /^(cuda|cublas|cudnn|nccl|nvtx|nvrtc|curand|cutlass)/ && room != "cuda")
		complain("CUDA header <" path "> outside cuda")
	if (path ~ /^(pthread|threads|omp|semaphore|stdatomic)\.h$/ &&
		path != "stdatomic.h" && room !~ /^(src\/engine\/|cuda$|test\/)/)
		complain("<" path "> outside the engine, where threads live")
	if (path ~ /^([a-z]*mmintrin|x86intrin|cpuid|arm_neon|arm_sve)\.h$/ &&
		room !~ /^(src\/engine\/compute|src\/common\/util|test\/)/)
		complain("<" path "> outside src/engine/compute and src/common/util")
	if (path ~ /^(postgres|catalog\/|utils\/|storage\/|libpq)/)
		complain("PostgreSQL header <" path "> in angle brackets")
}

BEGIN {
	n = split(table, rows, "\n")
	for (i = 1; i <= n; i++) {
		if (split(rows[i], cells, " ") == 0)
			continue
		sub(/^[^ ]+ */, "", rows[i])
		allowed[cells[1]] = " " rows[i]
	}
}

{
	file = $0
	room = room_of(file)
	line_no = 0
	n_files++
	if (!(room in allowed)) {
		complain("folder \"" room "\" has no row in tools/check-layers.sh")
		next
	}
	while ((getline line < file) > 0) {
		line_no++
		if (line !~ /^[ \t]*#[ \t]*include[ \t]*["<]/)
			continue
		path = line
		sub(/^[ \t]*#[ \t]*include[ \t]*/, "", path)
		quote = substr(path, 1, 1)
		path = substr(path, 2)
		sub(/[">].*$/, "", path)
		if (path ~ /^(src|cuda|test)\//)
			check_own(room, path)
		else if (quote == "<")
			check_foreign(room, path)
		else if (room !~ /^src\/server/)
			complain("\"" path "\" is not named from the repository root")
	}
	close(file)
}

END {
	if (n_complaints > 0)
		exit 1
	printf "%d files keep to their layers\n", n_files
}
'
