# shellcheck shell=bash
# sources.sh
#	Which files the checks look at; sourced by them in the repository root.
#
# tools/sources.sh

# list_files NAME-PATTERN...: the files of that name in the folders of code
list_files() {
	local folder pattern
	local -a folders=() test=(-name "$1")
	for folder in src cuda test; do
		[ -d "$folder" ] && folders+=("$folder")
	done
	shift
	for pattern in "$@"; do
		test+=(-o -name "$pattern")
	done
	find "${folders[@]}" -type f \( "${test[@]}" \) | LC_ALL=C sort
}

list_sources() {
	list_files '*.c' '*.h' '*.cu' '*.cuh'
}
