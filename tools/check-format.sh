#!/usr/bin/env bash
# check-format.sh
#	Compare the layout of every C and CUDA source with .clang-format.
#
# Versions of clang-format differ in what they make of the same file, so it
# has to be version 14.  "check-format.sh --fix" rewrites the files.
#
# tools/check-format.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/sources.sh

find_clang_format() {
	local candidate
	for candidate in clang-format-14 clang-format; do
		if [[ "$("$candidate" --version 2>/dev/null)" == *version\ 14.* ]]; then
			printf '%s\n' "$candidate"
			return
		fi
	done
}

clang_format=$(find_clang_format)
if [ -z "$clang_format" ]; then
	echo "clang-format 14 is not installed"
	exit 77
fi
if [ "${1:-}" = --fix ]; then
	list_sources | xargs -r "$clang_format" -i
	exit
fi

# check FILES...: complain about those that clang-format would change
check() {
	local file status=0
	for file in "$@"; do
		if ! "$clang_format" --dry-run -Werror "$file" 2>/dev/null; then
			echo "$file is not formatted (tools/check-format.sh --fix formats all)"
			status=1
		fi
	done
	return $status
}

export -f check
export clang_format
list_sources | xargs -r -n 16 -P 2 bash -c 'check "$@"' check
echo "$(list_sources | wc -l) files are formatted"
