#!/usr/bin/env bash
# run-tests.sh
#	Everything that can be tested without a GPU, in one count.
#
# A part is a check, a build, a unit program, a regression test or a TAP
# script.  A unit program counts what its last line says, a TAP script its
# top-level "ok" and "not ok" lines, everything else counts one.  What crashes
# counts as failed, whatever it printed.  A part that cannot be run here (exit
# status 77) is skipped with its reason.  The output of a part that failed is
# shown; the last line is the sum.
#
# Servers run as an unprivileged user, in a temporary folder, out of a private
# copy of the installed PostgreSQL (tools/cluster.sh): nothing is installed
# into the system's.
#
# From the environment:
#	PARTS   some of: checks builds newer unit regress tap  (default: all)
#	TESTS   names of unit programs, regression tests, TAP scripts (default: all)
#	ACCEPT  1: what the regression tests print becomes what is expected
#	KEEP    1: leave the temporary folder
#	JOBS    how many compilers at the same time (default: 2)
#	DEVICE  where servers run models: cpu or cuda (default: what there is);
#	        with cuda answers do not depend on the batch (deterministic)
#	LLM_PEFT_*, LLM_VALID_*  which the TAP scripts of these names explain
#	PART_TIMEOUT  seconds after which a part has failed (default: 900)
#
# tools/run-tests.sh
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
. tools/cluster.sh

unset MAKEFLAGS MAKELEVEL
make=(make -s -k --no-print-directory -j "${JOBS:-2}")
part_timeout=${PART_TIMEOUT:-900}
newer_majors=(17 18)
parts=" ${PARTS:-checks builds newer unit regress tap} "

n_passed=0
n_failed=0
n_skipped=0
failures=()
temporary=${TMPDIR:-/tmp}
as_server_user test -x "$temporary" || temporary=/tmp
work=$(mktemp -d "$temporary/llm_ext-test.XXXXXX")
log=$work/part.log

clean_up() {
	local pid_file
	# a server whose test was stopped for taking too long
	while IFS= read -r pid_file; do
		as_server_user "$tree_bin/pg_ctl" -D "${pid_file%/*}" -m immediate \
			-s stop >/dev/null 2>&1 || true
	done < <(find "$work" -name postmaster.pid)
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $work"
	else
		rm -rf "$work"
	fi
}
trap clean_up EXIT

# report NAME SECONDS PASSED FAILED SKIPPED
report() {
	n_passed=$((n_passed + $3))
	n_failed=$((n_failed + $4))
	n_skipped=$((n_skipped + $5))
	if [ "$4" -gt 0 ]; then
		failures+=("$1")
		printf 'FAILED  %-44s %4d s  %d passed, %d failed, %d skipped\n' \
			"$1" "$2" "$3" "$4" "$5"
		sed 's/^/    | /' "$log" | tail -n 200
	elif [ "$5" -gt 0 ] && [ "$3" = 0 ]; then
		printf 'skipped %-44s %4d s  %s\n' "$1" "$2" "$(tail -n 1 "$log")"
	else
		printf 'ok      %-44s %4d s  %d passed, %d skipped\n' "$1" "$2" "$3" "$5"
	fi
}

# run COMMAND...: into the log; sets status and seconds
run() {
	local start=$SECONDS
	status=0
	timeout -k 10 "$part_timeout" "$@" >"$log" 2>&1 </dev/null || status=$?
	[ $status != 124 ] || echo "stopped after $part_timeout s" >>"$log"
	seconds=$((SECONDS - start))
}

# run_check NAME COMMAND...: one check or build
run_check() {
	local name=$1
	shift
	run "$@"
	case $status in
		0) report "$name" "$seconds" 1 0 0 ;;
		77) report "$name" "$seconds" 0 0 1 ;;
		*) report "$name" "$seconds" 0 1 0 ;;
	esac
	[ $status = 0 ]
}

# run_program NAME PROGRAM: its last line on stdout has the counts
run_program() {
	local name=$1 last p=0 f=0 s=0
	run bash -c '"$1" >"$2"; status=$?; tail -n 20 "$2"; exit $status' \
		- "$2" "$work/stdout"
	last=$(tail -n 1 "$work/stdout" 2>/dev/null || true)
	if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
	else
		echo "the last line is not \"N passed, N failed, N skipped\"" >>"$log"
		f=1
	fi
	if [ "$status" != 0 ] && [ "$f" = 0 ]; then
		echo "exit status $status" >>"$log"
		f=1
	fi
	report "$name" "$seconds" "$p" "$f" "$s"
}

is_wanted() {
	[ -z "${TESTS:-}" ] || [[ " $TESTS " == *" $1 "* ]]
}

# count_tap: passed, failed and skipped of the log's top-level TAP lines
count_tap() {
	awk '
	/^ok / { if (/# SKIP/) skipped++; else passed++ }
	/^not ok / { if (/# TODO/) skipped++; else failed++ }
	/^1\.\.0 # SKIP/ { skipped++ }
	/^1\.\.[0-9]+/ { planned = 1 }
	END {
		if (!planned)
			failed++
		print passed + 0, failed + 0, skipped + 0
	}' "$log"
}

# ---------------------------------------------------------------- the parts

run_checks() {
	local check
	for check in format style layers headers; do
		run_check "check-$check" "tools/check-$check.sh" || true
	done
}

# Sets what_is_built.
build_all() {
	what_is_built=
	if run_check 'build: gcc' "${make[@]}" all unit-programs bench-programs; then
		what_is_built+=' release'
		run_check check-symbols tools/check-symbols.sh \
			build/release/llm_executor llm_ext.so || true
	fi
	if [[ $parts == *' builds '* || $parts == *' tap '* ]]; then
		if run_check 'build: gcc, with asserts' "${make[@]}" \
			BUILD_TYPE=debug all build/debug/test/fake_executor; then
			what_is_built+=' debug'
		fi
	fi
	[[ $parts == *' builds '* || $parts == *' unit '* ]] || return 0
	if run_check 'build: gcc, ASan and UBSan' "${make[@]}" BUILD_TYPE=asan \
		unit-programs replay-programs build/asan/llm_executor; then
		what_is_built+=' asan'
	fi
	[[ $parts == *' builds '* ]] || return 0
	if command -v clang >/dev/null; then
		run_check 'build: clang' "${make[@]}" BUILD=build/clang CC=clang \
			unit-programs bench-programs build/clang/llm_executor \
			check-server || true
	else
		echo 'clang is not installed' >"$log"
		report 'build: clang' 0 0 0 1
	fi
}

run_newer() {
	local major
	for major in "${newer_majors[@]}"; do
		run_check "build: server part for PostgreSQL $major" \
			tools/check-newer.sh "$major" || true
	done
}

run_unit_programs() {
	local type source name
	for type in release asan; do
		[[ " $what_is_built " == *" $type "* ]] || continue
		for source in test/unit/test_*.c test/ops/test_*.c; do
			[ -e "$source" ] || continue
			name=${source#test/}
			name=${name%.c}
			is_wanted "${name#*/test_}" || continue
			run_program "$name ($type)" "build/$type/test/$name"
		done
	done
	[[ " $what_is_built " == *" asan "* ]] || return 0
	for source in test/fuzz/fuzz_*.c; do
		name=${source#test/fuzz/fuzz_}
		name=${name%.c}
		is_wanted "replay_$name" || continue
		run_program "fuzz/$name, corpus (asan)" \
			"build/asan/test/fuzz/replay_$name"
	done
}

# A folder of the server's user with what the tests read and a server to run.
prepare_server_tests() {
	local folder variable
	chmod 755 "$work"
	make_server_tree "$work/server"
	tests=$work/tests
	mkdir "$tests"
	for folder in test sql expected models; do
		[ ! -e "$folder" ] || cp -R "$folder" "$tests/"
	done
	[ ! -e build/debug/test/fake_executor ] ||
		cp build/debug/test/fake_executor "$tests/"
	{
		cat test/regress.conf
		printf "llm_ext.model = '%s'\n" "$tests/models/demo"
		[ -z "${DEVICE:-}" ] || printf "llm_ext.device = '%s'\n" "$DEVICE"
		[ "${DEVICE:-}" != cuda ] ||
			printf 'llm_ext.%s\n' 'deterministic = on' "kv_cache_memory = '1GB'"
	} >"$tests/regress.conf"
	chmod -R u+w,go+rX "$tests"
	[ "$(id -u)" != 0 ] || chown -R "$(server_user):" "$tests"
	pgxs=$("${PG_CONFIG:-pg_config}" --pkglibdir)/pgxs

	# what to put before a command to run it there as that user
	choose_run_as
	in_tests=("${run_as[@]}" env -C "$tests" "PATH=$tree_bin:$PATH"
		LC_ALL=C.UTF-8 "PG_REGRESS=$pgxs/src/test/regress/pg_regress"
		"PERL5LIB=$pgxs/src/test/perl:$tests/test"
		"LLM_TEST_MODEL=$tests/models/demo"
		"LLM_FAKE_EXECUTOR=$tests/fake_executor"
		"LLM_TEST_DEVICE=${DEVICE:-}")
	for variable in $(compgen -e | grep -E '^LLM_(PEFT|VALID)_' || true); do
		in_tests+=("$variable=${!variable}")
	done
}

list_regress_tests() {
	local file name
	for file in sql/*.sql; do
		name=$(basename "$file" .sql)
		case $name in
			llm_ext--* | '*') continue ;;
		esac
		if is_wanted "$name"; then
			printf '%s\n' "$name"
		fi
	done
}

# Each regression test is one part of one run of pg_regress, whose lines are
# "test NAME ... ok 12 ms" up to PostgreSQL 15 and TAP from 16 on.
run_regress() {
	local name line
	local -a names
	mapfile -t names < <(list_regress_tests)
	[ ${#names[@]} -gt 0 ] || return 0
	run "${in_tests[@]}" "$pgxs/src/test/regress/pg_regress" \
		--inputdir=. --outputdir=. "--bindir=$tree_bin" \
		--temp-instance=tmp_regress --temp-config=regress.conf \
		--load-extension=llm_ext --no-locale --encoding=UTF8 "${names[@]}"
	if [ -n "${ACCEPT:-}" ]; then
		for name in "${names[@]}"; do
			[ ! -e "$tests/results/$name.out" ] ||
				cp "$tests/results/$name.out" expected/
		done
	fi
	cp "$log" "$work/regress.log"
	# what hangs or crashes is explained there
	[ "$status" = 0 ] || [ ! -e "$tests/log/postmaster.log" ] ||
		tail -n 100 "$tests/log/postmaster.log" >>"$work/regress.log"
	[ ! -s "$tests/regression.diffs" ] ||
		cat "$tests/regression.diffs" >>"$work/regress.log"
	for name in "${names[@]}"; do
		line=$(grep -E "^(test +$name +\.\.\.|(not )?ok +[0-9]+ +[-+] +$name )" \
			"$work/regress.log" | head -n 1)
		if [[ $line =~ ^(test.*\.\.\.\ *ok|ok\ ) ]]; then
			report "regress/$name" "$seconds" 1 0 0
		else
			cp "$work/regress.log" "$log"
			report "regress/$name" "$seconds" 0 1 0
		fi
		seconds=0
	done
}

run_tap() {
	local script name p f s
	for script in test/*.pl; do
		[ -e "$script" ] || continue
		name=$(basename "$script" .pl)
		is_wanted "$name" || continue
		"${in_tests[@]}" mkdir -p "tap_$name"
		run "${in_tests[@]}" env "TESTDIR=$tests/tap_$name" perl "$script"
		read -r p f s < <(count_tap)
		if [ "$status" != 0 ] && [ "$f" = 0 ]; then
			echo "exit status $status" >>"$log"
			f=1
		fi
		if [ "$f" -gt 0 ]; then
			show_server_logs "$tests/tap_$name" >>"$log"
		fi
		report "tap/$name" "$seconds" "$p" "$f" "$s"
	done
}

show_server_logs() {
	local file
	for file in "$1"/tmp_check/log/*; do
		[ -e "$file" ] || continue
		echo "---- ${file##*/}"
		tail -n 60 "$file"
	done
}

# Regression tests try what users get, TAP scripts the build with asserts.
run_server_tests() {
	[ -n "$what_is_built" ] || return 0
	prepare_server_tests
	if [[ $parts == *' regress '* && $what_is_built == *release* ]]; then
		install_extension release
		run_regress
	fi
	if [[ $parts == *' tap '* && $what_is_built == *debug* ]]; then
		install_extension debug
		run_tap
	fi
}

main() {
	[[ $parts != *' checks '* ]] || run_checks
	[[ $parts == ' checks ' ]] || build_all
	[[ $parts != *' newer '* ]] || run_newer
	[[ $parts != *' unit '* ]] || run_unit_programs
	if [[ $parts == *' regress '* || $parts == *' tap '* ]]; then
		run_server_tests
	fi
	echo
	if [ ${#failures[@]} -gt 0 ]; then
		printf 'failed: %s\n' "${failures[@]}"
	fi
	printf '%d passed, %d failed, %d skipped\n' "$n_passed" "$n_failed" "$n_skipped"
	[ "$n_failed" = 0 ]
}

what_is_built=
tree_bin=
main
