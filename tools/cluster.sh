# shellcheck shell=bash
# cluster.sh
#	A private PostgreSQL with the extension in it; sourced by demo.sh and
#	run-tests.sh in the repository root.
#
# PostgreSQL finds its libraries and its extensions relative to the folder its
# program lies in.  So a tree with copies of the programs, and with links to
# everything else of the installed server, is a server of its own: the
# extension is installed into that tree, and the system's PostgreSQL and its
# clusters are not touched.
#
# PostgreSQL refuses to run as root.  Started by root, everything here runs as
# the user that Debian makes for it.
#
# tools/cluster.sh

cluster_fail() {
	printf '%s\n' "$*" >&2
	exit 1
}

# The user that the server runs as.
server_user() {
	local user
	if [ "$(id -u)" != 0 ]; then
		id -un
		return
	fi
	for user in ${LLM_SERVER_USER:-} postgres nobody; do
		if id "$user" >/dev/null 2>&1; then
			printf '%s\n' "$user"
			return
		fi
	done
	cluster_fail "no user to run PostgreSQL as; name one in LLM_SERVER_USER"
}

# Sets the array run_as: what to put before a command to run it as that user,
# with nothing of the caller's environment that PostgreSQL's programs look at.
choose_run_as() {
	local user variable
	user=$(server_user)
	if [ "$(id -u)" = 0 ]; then
		run_as=(env -C / setpriv "--reuid=$user" "--regid=$(id -g "$user")"
			--init-groups --reset-env)
		return
	fi
	run_as=(env)
	for variable in $(compgen -e | grep '^PG' || true); do
		run_as+=(-u "$variable")
	done
}

as_server_user() {
	[ ${#run_as[@]} -gt 0 ] || choose_run_as
	"${run_as[@]}" "$@"
}

run_as=()

# make_server_tree ROOT: sets tree_bin, tree_pkglib, tree_share, tree_pg_config
make_server_tree() {
	local root=$1 pg_config=${PG_CONFIG:-pg_config}
	local bin lib share stamp entry name
	bin=$("$pg_config" --bindir)
	lib=$("$pg_config" --pkglibdir)
	share=$("$pg_config" --sharedir)
	stamp="$("$pg_config" --version) $(stat -c '%Y %s' "$bin/postgres") $bin"
	tree_bin=$root$bin
	tree_pkglib=$root$lib
	tree_share=$root$share
	tree_pg_config=$tree_bin/pg_config
	[ "$(cat "$root/stamp" 2>/dev/null || true)" != "$stamp" ] || return 0

	rm -rf "$root"
	mkdir -p "$tree_bin" "$tree_pkglib" "$tree_share/extension"
	cp -L "$bin"/* "$tree_bin/"
	for entry in "$lib"/* "$share"/* "$share"/extension/*; do
		name=${entry##*/}
		case $name in
			llm_*) continue ;;
			extension) [ "$entry" = "$share/extension" ] && continue ;;
		esac
		ln -s "$entry" "$root$entry"
	done
	chmod -R go+rX "$root"
	printf '%s\n' "$stamp" >"$root/stamp"
}

# install_extension BUILD_TYPE: into the tree; sets is_changed where a file was
# not the same before
install_extension() {
	local build=build/$1 pair
	is_changed=no
	local -a pairs=("llm_ext.so $tree_pkglib/llm_ext.so"
		"$build/llm_executor $tree_pkglib/llm_executor"
		"llm_ext.control $tree_share/extension/llm_ext.control")
	[ ! -e "$build/libllm_cuda.so" ] ||
		pairs+=("$build/libllm_cuda.so $tree_pkglib/libllm_cuda.so")
	for pair in sql/llm_ext--*.sql; do
		[ -e "$pair" ] || continue
		pairs+=("$pair $tree_share/extension/${pair##*/}")
	done
	for pair in "${pairs[@]}"; do
		cmp -s "${pair%% *}" "${pair#* }" || is_changed=yes
	done
	[ $is_changed = yes ] || return 0
	make -s --no-print-directory install "BUILD_TYPE=$1" \
		"PG_CONFIG=$tree_pg_config" >/dev/null
}

# copy_if_changed FROM TO: a folder, for a user who cannot read the original
copy_if_changed() {
	! diff -rq "$1" "$2" >/dev/null 2>&1 || return 0
	rm -rf "$2"
	mkdir -p "$(dirname "$2")"
	cp -RL "$1" "$2"
	chmod -R go+rX "$2"
}
