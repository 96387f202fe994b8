#!/usr/bin/env bash
# check-headers.sh
#	Compile every header alone: each must include what it uses.
#
# Headers outside src/server are compiled without PostgreSQL's include path,
# so that one of them that leans on it fails here, too.  A *_body.h is no header
# but a text that several files compile, each with macros of its own.  CUDA's
# headers are compiled where nvcc is.
#
# tools/check-headers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/sources.sh

cc=${CC:-gcc}
pg_include=$(${PG_CONFIG:-pg_config} --includedir-server)
flags=(-std=gnu11 -D_GNU_SOURCE -fsyntax-only -I. -Wall -Wextra -Werror
	-Wno-unused-parameter -Wno-missing-field-initializers
	-Wno-sign-compare -Wno-unused-function -Wno-unused-variable -x c)
if [[ "$($cc --version)" == *clang* ]]; then
	flags+=(-Wno-pragma-once-outside-header)
fi

n_headers=0
failed=0
while IFS= read -r header; do
	case $header in
		*_body.h) continue ;;
		src/server/*) own=(-isystem "$pg_include") ;;
		*) own=() ;;
	esac
	n_headers=$((n_headers + 1))
	if ! printf '#include "%s"\n' "$header" |
		"$cc" "${flags[@]}" "${own[@]}" -; then
		echo "$header does not compile alone"
		failed=1
	fi
done < <(list_files '*.h')

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
if [ -x "$nvcc" ]; then
	empty=$(mktemp --suffix=.cu)
	trap 'rm -f "$empty"' EXIT
	while IFS= read -r header; do
		n_headers=$((n_headers + 1))
		printf '#include "%s"\n' "$header" >"$empty"
		if ! "$nvcc" -std=c++17 -I. -arch=sm_80 -c "$empty" -o /dev/null; then
			echo "$header does not compile alone"
			failed=1
		fi
	done < <(list_files '*.cuh')
fi

[ "$failed" = 0 ]
echo "$n_headers headers compile alone"
