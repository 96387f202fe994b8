#!/usr/bin/env bash
# gpu-host.sh prepare FOLDER | test [PART...] | train | bench [PART...]
#	Tests and measurements on a bare machine that has a GPU and no network.
#
# Such a machine (Ubuntu 24.04 with CUDA, gcc, make and perl) has no PostgreSQL.
# FOLDER holds .deb files that "apt-get download" fetched elsewhere, on Debian
# 12:
#
#	postgresql-15 postgresql-client-15 postgresql-client-common
#	postgresql-common postgresql-server-dev-15 libpq5 libpq-dev libicu72
#	libldap-2.5-0 libcjson1 libcjson-dev libpcre2-8-0 libpcre2-dev
#	libutf8proc2 libutf8proc-dev libmicrohttpd12 libmicrohttpd-dev
#	libipc-run-perl libio-pty-perl libssl-dev krb5-multidev libkrb5-dev
#
# "prepare", as root, unpacks them into one folder, shows the system only those
# libraries that it lacks (all of them would hide newer ones that its own
# programs need), and makes a user for the server.
#
# "test [PART...]" builds and runs, in parts of some minutes each:
#
#	ops        operations on the GPU against the CPU's; equal bits
#	models     reference vectors of all families; the executor
#	sanitizer  compute-sanitizer on the operations (SANITIZED: of which)
#	regress    regression tests with llm_ext.device = cuda
#	tap-1 ..   TAP tests likewise: tap-1, tap-2, tap-3, tap-4
#
# "bench [PART...]" measures, likewise in parts:
#
#	steps      single steps and the model's products, bf16 and fp8 cache
#	attention  attention alone, beside torch where there is torch
#	jobs       whole jobs by the engine directly, bf16 cache
#	jobs-fp8   likewise with an fp8 cache
#	long-jobs  2048/2048 with both
#	adapters   steps with 1, 8 and 64 adapters; 1,000 adapters over 64 slots
#	deterministic  what it costs
#	sql        concurrent sessions, and a statement over short rows
#	sql-fp8    concurrent sessions with an fp8 cache
#	train-beside   serving without a job of training, with one, with one that yields
#	sql-update one UPDATE of 4,096 rows 1000/1000, divided by SCALE (2)
#
# Without parts all of them run.  "train" is training alone: its tests, its
# operations under compute-sanitizer, and its speed beside PEFT's (the system's
# python3 needs torch, transformers and peft).
#
# tools/gpu-host.sh
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=/opt/llm_ext-packages
system_lib=/usr/lib/x86_64-linux-gnu
only=$prefix/only

fail() {
	printf 'gpu-host: %s\n' "$*" >&2
	exit 1
}

# A library that the system does not have, and its names.
show_library() {
	local file name
	for file in "$prefix$system_lib/lib$1".so* "$prefix$system_lib/lib$1"-*.so*; do
		[ -e "$file" ] || [ -L "$file" ] || continue
		name=${file##*/}
		[ -e "$system_lib/$name" ] || [ -e "/lib/x86_64-linux-gnu/$name" ] ||
			cp -a "$file" "$only/"
	done
}

prepare() {
	local packages=$1 package library folder
	[ "$(id -u)" = 0 ] || fail "prepare has to run as root"
	ls "$packages"/*.deb >/dev/null 2>&1 || fail "no packages in $packages"
	mkdir -p "$only"
	for package in "$packages"/*.deb; do
		dpkg-deb -x "$package" "$prefix"
	done
	for library in ldap-2.5 lber-2.5 icudata icui18n icuuc icuio icutu pq cjson \
		microhttpd utf8proc; do
		show_library "$library"
	done
	# the system has the library itself, but not the name that linkers want
	[ -e "$system_lib/libpcre2-8.so" ] ||
		ln -sf "$(ls /{usr/,}lib/x86_64-linux-gnu/libpcre2-8.so.0 2>/dev/null |
			head -n 1)" "$only/libpcre2-8.so"
	echo "$only" >/etc/ld.so.conf.d/zz-llm_ext.conf
	ldconfig
	for folder in share/postgresql lib/postgresql; do
		[ -e "/usr/$folder" ] || ln -s "$prefix/usr/$folder" "/usr/$folder"
	done
	cp -a --update=none "$prefix/usr/include/." /usr/include/
	mkdir -p "$(perl -MConfig -e 'print $Config{sitelib}')"
	cp -R "$prefix/usr/share/perl5/." "$(perl -MConfig -e 'print $Config{sitelib}')/"
	ln -sf "$prefix"/usr/lib/postgresql/*/bin/* /usr/local/bin/
	id postgres >/dev/null 2>&1 || useradd -m postgres
	echo "$(pg_config --version) is ready"
}

n_failed=0

# part NAME COMMAND...: one line, and its output where it fails
part() {
	local name=$1 log start=$SECONDS
	shift
	log=$(mktemp)
	if "$@" >"$log" 2>&1; then
		printf 'ok      %-40s %4d s  %s\n' "$name" $((SECONDS - start)) \
			"$(tail -n 1 "$log")"
	else
		printf 'FAILED  %-40s %4d s\n' "$name" $((SECONDS - start))
		tail -n 60 "$log" | sed 's/^/    | /'
		n_failed=$((n_failed + 1))
	fi
	rm -f "$log"
}

sanitizer=${CUDA_PATH:-/usr/local/cuda}/bin/compute-sanitizer

build() {
	export LIBRARY_PATH=$only WERROR='' JOBS
	JOBS=$(nproc)
	part 'build' make -s "-j$JOBS" "$@"
	[ $n_failed = 0 ] || fail 'it does not build'
}

run_programs() {
	local name
	for name in "$@"; do
		[ -x "build/release/test/$name" ] || continue
		part "$name" timeout 240 "build/release/test/$name"
	done
}

test_part() {
	local name watcher
	case $1 in
		ops)
			build all unit-programs
			run_programs ops/test_{ops,attention,moe,sample,lora,deterministic} \
				ops/test_train_ops
			;;
		models)
			build all unit-programs
			run_programs unit/test_{model,model_families,model_experts,lora_model} \
				unit/test_{model_kv,executor,executor_adapters,answers}
			;;
		sanitizer)
			build all unit-programs
			for name in ${SANITIZED-ops lora deterministic sample attention moe}; do
				part "compute-sanitizer, test_$name" timeout 400 "$sanitizer" \
					--tool memcheck --error-exitcode 9 \
					"build/release/test/ops/test_$name"
			done
			;;
		regress)
			watch_executors 150 &
			watcher=$!
			server_tests regress ''
			kill "$watcher" 2>/dev/null || true
			;;
		tap-1)
			server_tests tap "010_sessions 011_cancel 013_reference_answers
				014_server_rules 020_executor_death 021_process_ends 022_queue"
			;;
		tap-2)
			server_tests tap "012_model_dirs 023_model_loads 024_standby
				025_pid_one 026_resume 027_gguf 028_embed_scores"
			;;
		tap-3)
			server_tests tap "029_adapters 030_batching 031_batching_random
				035_accounts 036_faults 040_valid_answers"
			;;
		tap-4)
			server_tests tap "032_finetune 033_many_rows 034_adapter_changes
				038_train_beside"
			;;
		*) fail "no part \"$1\" of the tests" ;;
	esac
}

# What executors do that are there after so many seconds: one that hangs tells
# where.
watch_executors() {
	local pid debugger
	sleep "$1"
	debugger=$(command -v gdb || command -v cuda-gdb ||
		ls "${CUDA_PATH:-/usr/local/cuda}/bin/cuda-gdb" 2>/dev/null || true)
	for pid in $(pgrep -x llm_executor || true); do
		printf '== executor %s, %s\n' "$pid" "$(cat "/proc/$pid/wchan")"
		[ -z "$debugger" ] ||
			timeout 60 "$debugger" -p "$pid" -batch -ex 'thread apply all bt 12' \
				2>/dev/null | grep -E '^(Thread|#)' || true
	done
}

# server_tests PART NAMES
server_tests() {
	local names
	names=$(tr -s '\t\n' '  ' <<<"$2")
	[ "$names" != ' ' ] || names=
	LIBRARY_PATH=$only WERROR='' JOBS=$(nproc) PART_TIMEOUT=${PART_TIMEOUT:-240} \
		DEVICE=cuda PARTS=$1 TESTS=${TESTS:-$names} tools/run-tests.sh ||
		n_failed=$((n_failed + 1))
}

# Training alone: operations, trainer, jobs, then steps beside PEFT's.
run_train() {
	local weights
	build build/release/llm_executor cuda \
		build/release/test/{ops/test_train_ops,bench/bench_train_gpu} \
		build/release/test/unit/test_{train,train_job,train_session}
	run_programs ops/test_train_ops unit/test_{train,train_job,train_session}
	part 'compute-sanitizer, test_train_ops' "$sanitizer" --tool memcheck \
		--error-exitcode 9 build/release/test/ops/test_train_ops
	build/release/test/bench/bench_train_gpu --parts || n_failed=$((n_failed + 1))
	for weights in '' --nf4; do
		build/release/test/bench/bench_train_gpu --layers 4 ${weights:+"$weights"} ||
			n_failed=$((n_failed + 1))
	done
	python3 tools/bench-peft.py || n_failed=$((n_failed + 1))
	[ $n_failed = 0 ] || fail "$n_failed parts failed"
}

# show NAME COMMAND...: a measurement, with its output
show() {
	printf '\n== %s\n' "$1"
	shift
	timeout "${BENCH_TIMEOUT:-540}" "$@" || n_failed=$((n_failed + 1))
}

bench_part() {
	local b=build/release/test/bench
	case $1 in
		steps)
			show 'steps, bf16 cache' $b/bench_gpu
			show 'steps, fp8 cache' $b/bench_gpu --kv fp8
			;;
		attention)
			show 'attention' $b/bench_attention
			! python3 -c 'import torch' 2>/dev/null ||
				show 'attention, torch' python3 tools/bench-sdpa.py
			;;
		# the second run finds algorithms in the folder
		jobs)
			show 'jobs, bf16 cache' $b/bench_jobs --cache "$algorithms" \
				128/128 1000/1000 2048/128
			;;
		jobs-fp8)
			show 'jobs, fp8 cache' $b/bench_jobs --cache "$algorithms" --kv fp8 \
				128/128 1000/1000 2048/128
			;;
		long-jobs)
			show '2048/2048, bf16' $b/bench_jobs --cache "$algorithms" 2048/2048
			show '2048/2048, fp8' $b/bench_jobs --cache "$algorithms" --kv fp8 \
				2048/2048
			;;
		adapters)
			show 'steps with adapters' $b/bench_lora --device cuda
			show '1,000 adapters, 64 slots' $b/bench_jobs --cache "$algorithms" \
				--adapters 1000
			;;
		deterministic)
			show 'jobs, deterministic' $b/bench_jobs --cache "$algorithms" \
				--deterministic 128/128 1000/1000
			show 'steps, deterministic' $b/bench_gpu --deterministic
			;;
		train-beside)
			show 'serving beside training' $b/bench_train_beside
			;;
		sql) JOBS_SQL='sessions short' show 'through SQL' tools/bench-sql.sh ;;
		# all 4,096 rows take an H100 some ten minutes
		sql-update)
			JOBS_SQL=update SCALE=${SCALE:-2} \
				show 'one UPDATE' tools/bench-sql.sh
			;;
		sql-fp8)
			KV=fp8 JOBS_SQL=sessions show 'through SQL, fp8' tools/bench-sql.sh
			;;
		*) fail "no part \"$1\" of the measurements" ;;
	esac
}

algorithms=${TMPDIR:-/tmp}/llm_ext-algorithms

# run_parts COMMAND DEFAULTS PART...
run_parts() {
	local command=$1 part
	local -a parts
	read -ra parts <<<"${2//$'\n'/ }"
	shift 2
	[ $# = 0 ] || parts=("$@")
	for part in "${parts[@]}"; do
		"$command" "$part"
	done
	[ $n_failed = 0 ] || fail "$n_failed parts failed"
}

case ${1:-} in
	prepare) prepare "${2:?a folder with packages}" ;;
	train) run_train ;;
	test)
		shift
		run_parts test_part 'ops models sanitizer regress tap-1 tap-2 tap-3 tap-4' "$@"
		;;
	bench)
		shift
		mkdir -p "$algorithms"
		build all bench-programs
		run_parts bench_part \
			'steps attention jobs jobs-fp8 long-jobs adapters deterministic sql sql-fp8
			train-beside sql-update' \
			"$@"
		;;
	*) fail 'usage: tools/gpu-host.sh prepare FOLDER | test [PART...] | train | bench [PART...]' ;;
esac
