#!/usr/bin/env bash
# check-style.sh
#	The rules of CONTRIBUTING.md that a script can see.
#
# Basenames are unique, a file's header comment ends in its own path, files
# and functions stay within their limits, and nothing is left for later.
#
# tools/check-style.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/sources.sh

max_file_lines=1400
max_function_lines=120

failed=0
twins=$(list_sources | sed 's|.*/||' | LC_ALL=C sort | uniq -d)
if [ -n "$twins" ]; then
	printf 'two files of one name: %s\n' "$twins"
	failed=1
fi

list_sources | awk -v max_file="$max_file_lines" -v max_function="$max_function_lines" '
function complain(line_no, message) {
	printf "%s:%d: %s\n", file, line_no, message
	failed = 1
}

{
	file = $0
	n = 0
	start = 0
	footer = 0
	while ((getline line < file) > 0) {
		n++
		if (line == " * " file)
			footer = 1
		if (line ~ /(TODO|FIXME|[^a-z]stub[^a-z]|not implemented)/)
			complain(n, "something is left for later")
		if (line ~ /^\{$/)
			start = n
		if (line ~ /^\}/ && start > 0) {
			if (n - start - 1 > max_function)
				complain(start, "function of " n - start - 1 " lines, the limit is " max_function)
			start = 0
		}
	}
	close(file)
	if (!footer)
		complain(1, "the header comment does not end in \"" file "\"")
	if (n > max_file)
		complain(n, "file of " n " lines, the limit is " max_file)
}

END {
	exit failed
}
' || failed=1

[ "$failed" = 0 ]
echo "$(list_sources | wc -l) files keep to the rules"
