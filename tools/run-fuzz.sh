#!/usr/bin/env bash
# run-fuzz.sh BUILD
#	Give every fuzz target of a build time to find an input that breaks it.
#
# Starts from the committed corpus and from what earlier runs gathered in
# BUILD/corpus; leaves what broke a target in BUILD/findings.  A finding goes
# into test/fuzz/corpus/<target> together with its repair: "make test" runs
# every target over that folder.
#
# From the environment:
#	FUZZ_SECONDS  of each target (default: 600)
#	FUZZ          names of targets (default: all)
#
# tools/run-fuzz.sh
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1
seconds=${FUZZ_SECONDS:-600}
n_broken=0
mkdir -p "$build/findings"

for source in test/fuzz/fuzz_*.c; do
	target=$(basename "$source" .c)
	target=${target#fuzz_}
	[ -z "${FUZZ:-}" ] || [[ " $FUZZ " == *" $target "* ]] || continue
	mkdir -p "$build/corpus/$target"
	log=$build/findings/$target.log
	options=(-max_total_time="$seconds" -timeout=25 -rss_limit_mb=4096
		-max_len=65536 -artifact_prefix="$build/findings/$target-")
	[ ! -e "test/fuzz/$target.dict" ] || options+=(-dict="test/fuzz/$target.dict")
	if "$build/test/fuzz/fuzz_$target" "${options[@]}" "$build/corpus/$target" \
		"test/fuzz/corpus/$target" >"$log" 2>&1; then
		printf 'ok      %-12s %s\n' "$target" "$(tail -n 1 "$log")"
	else
		n_broken=$((n_broken + 1))
		printf 'BROKEN  %-12s see %s\n' "$target" "$log"
		grep -E 'ERROR|SUMMARY|broken promise|Test unit written' "$log" || true
	fi
done
[ $n_broken = 0 ]
