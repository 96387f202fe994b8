#!/usr/bin/env bash
# gpu-host.sh prepare FOLDER | test | train | bench
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
# "test" builds everything, runs the operations on the GPU against the CPU's,
# the reference vectors of all families, compute-sanitizer on the operations,
# and regression and TAP tests with llm_ext.device = cuda.  "train" is training
# alone: its tests, its operations under compute-sanitizer, and its speed beside
# PEFT's (the system's python3 needs torch, transformers and peft).  "bench" is
# make bench-gpu.
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

run_tests() {
	local test
	export LIBRARY_PATH=$only WERROR= JOBS
	JOBS=$(nproc)
	part build make -s "-j$JOBS" all unit-programs
	for test in ops/test_{ops,attention,moe,sample,train_ops} \
		unit/test_{model,model_families,model_experts,executor,answers,train,train_job,train_session}; do
		part "$test" "build/release/test/$test"
	done
	for test in ${SANITIZED-ops moe sample attention}; do
		part "compute-sanitizer, test_$test" "$sanitizer" --tool memcheck \
			--error-exitcode 9 "build/release/test/ops/test_$test"
	done
	DEVICE=cuda PARTS='regress tap' tools/run-tests.sh || n_failed=$((n_failed + 1))
	[ $n_failed = 0 ] || fail "$n_failed parts failed"
}

# Training alone: operations, trainer, jobs, then steps beside PEFT's.
run_train() {
	local test
	export LIBRARY_PATH=$only WERROR= JOBS
	JOBS=$(nproc)
	part build make -s "-j$JOBS" build/release/llm_executor cuda \
		build/release/test/{ops/test_train_ops,bench/bench_train_gpu} \
		build/release/test/unit/test_{train,train_job,train_session}
	part test_train_ops build/release/test/ops/test_train_ops
	for test in train train_job train_session; do
		part "test_$test" "build/release/test/unit/test_$test"
	done
	part 'compute-sanitizer, test_train_ops' "$sanitizer" --tool memcheck \
		--error-exitcode 9 build/release/test/ops/test_train_ops
	build/release/test/bench/bench_train_gpu --parts || n_failed=$((n_failed + 1))
	for test in '' --nf4; do
		build/release/test/bench/bench_train_gpu --layers 4 $test ||
			n_failed=$((n_failed + 1))
	done
	python3 tools/bench-peft.py || n_failed=$((n_failed + 1))
	[ $n_failed = 0 ] || fail "$n_failed parts failed"
}

case ${1:-} in
	prepare) prepare "${2:?a folder with packages}" ;;
	test) run_tests ;;
	train) run_train ;;
	bench) LIBRARY_PATH=$only make -s "-j$(nproc)" WERROR= bench-gpu ;;
	*) fail 'usage: tools/gpu-host.sh prepare FOLDER | test | train | bench' ;;
esac
