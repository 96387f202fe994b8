#!/usr/bin/env bash
# check-newer.sh MAJOR
#	Compile and link the server part against a newer PostgreSQL.
#
# The headers come from a newer Debian release, by way of the mirror that this
# machine's own apt is configured for; they are unpacked into .cache and never
# installed, and apt's state is left alone.  Without a Debian mirror, or
# without that major version on it, the check is skipped (exit status 77).
#
# tools/check-newer.sh
set -euo pipefail
cd "$(dirname "$0")/.."

major=${1:?major version of PostgreSQL}
cache=$PWD/.cache/postgresql-$major
include=$cache/usr/include/postgresql/$major/server

# Newer releases, oldest first.
releases=(trixie forky sid)

skip() {
	echo "$*"
	exit 77
}

# The mirror and the key ring of the machine's own release.
find_mirror() {
	local codename
	[ -r /etc/os-release ] && command -v apt-get >/dev/null || return 0
	codename=$(. /etc/os-release && [ "${ID:-}" = debian ] &&
		echo "${VERSION_CODENAME:-}")
	# apt replaces these $(...), and leaves alone those it has no value for
	# shellcheck disable=SC2016
	apt-get indextargets --format \
		'$(CREATED_BY) $(RELEASE) $(REPO_URI) $(SIGNED_BY)' 2>/dev/null |
		awk -v codename="$codename" \
			'$1 == "Packages" && $2 == codename && !n++ {print $3, $4}'
}

# apt with a state of its own in $root
own_apt() {
	local -a options=(-q -y
		-o "Dir::Etc::sourcelist=$root/sources.sources"
		-o Dir::Etc::sourceparts=/dev/null
		-o Dir::Etc::preferences=/dev/null
		-o Dir::Etc::preferencesparts=/dev/null
		-o "Dir::State=$root/state"
		-o Dir::State::status=/dev/null
		-o "Dir::Cache=$root/cache"
		-o Acquire::Languages=none
		# signed, but perhaps a mirror that has not moved for weeks: good enough
		-o Acquire::Check-Valid-Until=false
		-o Acquire::Retries=1
		-o Acquire::http::Timeout=20
		-o Acquire::https::Timeout=20)

	[ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
	timeout 240 apt-get "${options[@]}" "$@" >>"$root/log" 2>&1
}

# fetch_release: get the headers from this release, if it has them
fetch_release() {
	local root=$PWD/.cache/apt/$release
	mkdir -p "$root"/state/lists/partial "$root"/cache/archives/partial
	: >"$root/log"
	{
		printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' \
			"$mirror" "$release"
		[ ! -r "$keyring" ] || printf 'Signed-By: %s\n' "$keyring"
	} >"$root/sources.sources"
	own_apt update || {
		problem+=" ($release: $(grep '^[EW]: ' "$root/log" | head -n 1))"
		return 1
	}
	(
		cd "$root"
		rm -f postgresql-server-dev-*.deb
		own_apt download "postgresql-server-dev-$major"
	) || return 1
	rm -rf "$cache"
	mkdir -p "$cache"
	dpkg-deb -x "$root"/postgresql-server-dev-"$major"_*.deb "$cache"
	[ -e "$include/postgres.h" ] || return 1
	# that release's libc declares functions that this one may not have
	sed -i 's/^\(#define HAVE_DECL_STRL[A-Z]*\) 1/\1 0/' "$include/pg_config.h"
	touch "$cache/complete"
	rm -rf "$root"
}

fetch_headers() {
	local mirror keyring release problem=
	read -r mirror keyring < <(find_mirror) || true
	[ -n "${mirror:-}" ] ||
		skip "no Debian mirror to take PostgreSQL $major's headers from"
	[ -r "${keyring:-}" ] ||
		keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	for release in "${releases[@]}"; do
		fetch_release && return
	done
	skip "no headers of PostgreSQL $major on the Debian mirror$problem"
}

[ -e "$cache/complete" ] || fetch_headers
make --no-print-directory -s "BUILD=build/postgresql-$major" \
	"PG_SERVER_INCLUDE=$include" check-server
echo "compiles and links against PostgreSQL $(sed -n \
	's/^#define PG_VERSION "\(.*\)"/\1/p' "$include/pg_config.h" "$include"/pg_config_*.h | head -n 1)"
