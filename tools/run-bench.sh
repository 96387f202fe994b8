#!/usr/bin/env bash
# run-bench.sh BUILD [CSV]
#	Run the benchmark programs of test/bench on this machine, one after another.
#
# Each prints a table; called with --csv those that can print the same as lines
# of commas under a line of names.  With a second argument that is kept in
# docs/bench/MACHINE/PROGRAM.csv (a program's plain table as .txt), so that
# figures of different machines lie side by side.  Nothing else should run on the
# machine meanwhile; all of them take some minutes.  BENCH, from the environment,
# names those to run: BENCH="decode batch".
#
# tools/run-bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:?build folder}
with_csv=${2:-}

# A folder's name out of the processor's: amd-epyc-9b14-2-cpus
machine_name() {
	local model
	model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u)
	printf '%s-%s-cpus\n' "${model:-$(uname -m)}" "$(nproc)" |
		tr '[:upper:]' '[:lower:]' |
		sed 's/(r)\|(tm)\|processor\|cpu @.*ghz//g; s/[^a-z0-9]\+/-/g; s/^-\|-$//g'
}

for source in test/bench/bench_*.c; do
	if [ ! -e "$source" ]; then
		echo "there are no benchmarks in test/bench"
		exit 0
	fi
	name=$(basename "$source" .c)
	[ -z "${BENCH:-}" ] || [[ " $BENCH " == *" ${name#bench_} "* ]] || continue
	program=$build/test/bench/$name
	echo "== $name"
	if [ -n "$with_csv" ]; then
		folder=docs/bench/$(machine_name)
		mkdir -p "$folder"
		"$program" --csv | tee "$folder/$name.txt"
		if head -n 1 "$folder/$name.txt" | grep -qE '^[a-z_0-9]+(,[a-z_0-9]+)+$'; then
			mv "$folder/$name.txt" "$folder/$name.csv"
		fi
	else
		"$program"
	fi
done
