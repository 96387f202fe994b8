#!/usr/bin/env bash
# install-packages.sh [build|test|fuzz]
#	Install from Debian what is missing for building (default), testing
#	or fuzzing.
#
# Does nothing, and needs no rights, where everything is there.  Otherwise it
# runs apt-get as root or through sudo.  Where PostgreSQL itself has to be
# installed, Debian's "main" cluster is neither created nor started; a
# PostgreSQL that is already there is left exactly as it is.
#
# tools/install-packages.sh
set -euo pipefail

purpose=${1:-build}

say() {
	printf 'install-packages: %s\n' "$*" >&2
}

fail() {
	say "$@"
	exit 1
}

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# The major version of the server to build for: the one whose pg_config is
# found first, else what this Debian release ships.
find_pg_major() {
	local version
	if version=$(pg_config --version 2>/dev/null); then
		version=${version#PostgreSQL }
		printf '%s\n' "${version%%[!0-9]*}"
		return
	fi
	version=$(apt-cache depends postgresql 2>/dev/null |
		sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p')
	printf '%s\n' "${version:-15}"
}

# The major version of clang: the one that is there, or would be installed.
clang_major() {
	{ clang -dumpversion 2>/dev/null ||
		apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p'; } |
		sed -n '1s/\..*//p;1q'
}

# A package that this release does not have is no reason to fail: what needs
# it is skipped later, with its reason.
has_candidate() {
	local policy
	policy=$(apt-cache policy "$1" 2>/dev/null)
	[[ $policy == *Candidate:\ [^\(]* ]]
}

# Debian creates and starts a cluster when a server package is installed for
# the first time.  Say no while we install; afterwards the question is the
# administrator's again.
cluster_answer=/etc/postgresql-common/createcluster.d/llm_ext.conf

forbid_main_cluster() {
	trap allow_main_cluster EXIT
	as_root mkdir -p "${cluster_answer%/*}"
	printf '%s\n' "create_main_cluster = false" |
		as_root tee $cluster_answer >/dev/null
}

allow_main_cluster() {
	as_root rm -f $cluster_answer
	as_root rmdir --ignore-fail-on-non-empty "${cluster_answer%/*}" 2>/dev/null || true
}

# Whether what we need can be found without asking dpkg.
check_without_dpkg() {
	local tool
	for tool in cc make pg_config; do
		command -v "$tool" >/dev/null ||
			fail "\"$tool\" is missing and this is not a Debian system;" \
				"install a C compiler, GNU make, PostgreSQL with its server" \
				"headers, cJSON, PCRE2 and utf8proc by hand"
	done
}

list_packages() {
	# libkrb5-dev and libssl-dev: libpq/libpq-be.h of the server includes them
	printf '%s\n' gcc make libc6-dev libcjson-dev libpcre2-dev \
		libutf8proc-dev libkrb5-dev libssl-dev
	if is_installed postgresql-common || ! command -v pg_config >/dev/null ||
		[[ $(pg_config --bindir) == /usr/lib/postgresql/* ]]; then
		printf '%s\n' "postgresql-$pg_major" "postgresql-server-dev-$pg_major"
	fi
	if [ "$purpose" = fuzz ]; then
		printf '%s\n' clang "libclang-rt-$(clang_major)-dev"
	fi
	if [ "$purpose" = test ]; then
		printf '%s\n' clang clang-format-14 perl libipc-run-perl procps
	fi
}

main() {
	local pg_major package
	local -a missing=() wanted=()

	case $purpose in
		build | test | fuzz) ;;
		*) fail "unknown purpose \"$purpose\" (build, test or fuzz)" ;;
	esac
	if ! command -v dpkg-query >/dev/null; then
		check_without_dpkg
		return
	fi
	pg_major=$(find_pg_major)
	for package in $(list_packages); do
		is_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
		fail "missing packages: ${missing[*]}; install them as root"
	fi
	say "installing ${missing[*]}"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y update >&2
	# the lists were perhaps empty when the major version was looked up
	pg_major=$(find_pg_major)
	for package in $(list_packages); do
		is_installed "$package" && continue
		if has_candidate "$package"; then
			wanted+=("$package")
		else
			say "this release has no package \"$package\""
		fi
	done
	[ ${#wanted[@]} -gt 0 ] || return 0
	is_installed "postgresql-$pg_major" || forbid_main_cluster
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -q -y --no-install-recommends install "${wanted[@]}" \
		</dev/null >&2
}

main
