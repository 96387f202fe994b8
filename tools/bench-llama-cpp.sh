#!/usr/bin/env bash
# bench-llama-cpp.sh BENCH BATCHED_BENCH MODEL.gguf...
#	Measure llama.cpp on this machine, to stand beside "make bench".
#
# BENCH and BATCHED_BENCH are llama.cpp's llama-bench and
# llama-batched-bench, or commands that run them; models come from
# test/bench/make_gguf.py.  For each model: tokens per second of a prompt of
# 512 tokens, and of 1, 8 and 32 sequences that generate.  THREADS (2) and
# REPEATS (3, the best counts) may be set.  It ends where a program says
# nothing; run that by hand to see why.
#
# tools/bench-llama-cpp.sh
set -euo pipefail

if [ $# -lt 3 ]; then
	echo "usage: ${0##*/} BENCH BATCHED_BENCH MODEL.gguf..." >&2
	exit 2
fi
read -ra bench <<< "$1"
read -ra batched_bench <<< "$2"
shift 2
threads=${THREADS:-2}
repeats=${REPEATS:-3}

# best_of COLUMN: the largest number in a column of comma separated lines
best_of() {
	awk -F, -v column="$1" '
		{ gsub(/"/, "", $column); if ($column + 0 > best) best = $column + 0 }
		END { if (NR == 0) exit 1; printf "%.1f\n", best }'
}

prompt_speed() {
	"${bench[@]}" -m "$1" -t "$threads" -p 512 -n 0 -r "$repeats" -o jsonl 2>/dev/null |
		sed 's/.*"samples_ts": *\[\([^]]*\)\].*/\1/; s/, */\n/g' | best_of 1
}

# generate_speed MODEL N_SEQUENCES
generate_speed() {
	local i
	for ((i = 0; i < repeats; i++)); do
		"${batched_bench[@]}" -m "$1" -t "$threads" -tb "$threads" -c 4096 \
			-npp 16 -ntg 32 -npl "$2" --output-format jsonl
	done 2>/dev/null | sed -n 's/.*"speed_tg": *\([0-9.]*\).*/\1/p' | best_of 1
}

printf '%-28s %10s %10s %10s %10s\n' "model, $threads threads, tok/s" \
	"prompt 512" "1 seq" "8 seqs" "32 seqs"
for model in "$@"; do
	printf '%-28s' "$(basename "$model")"
	printf ' %10s' "$(prompt_speed "$model")"
	for n_sequences in 1 8 32; do
		printf ' %10s' "$(generate_speed "$model" "$n_sequences")"
	done
	printf '\n'
done
