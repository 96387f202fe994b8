#!/usr/bin/env bash
# demo.sh demo|psql|stop
#	A private cluster in .demo with the extension and the demo model.
#
# demo makes and starts what is not there yet, shows tools/demo.sql, and says
# how to go on; psql connects; stop stops it.  Nothing outside the cluster's
# own folder is touched, but for packages that are missing.  The folder is
# .demo/cluster; where the user that the server runs as cannot reach the
# checkout (root's home, say), that is a link to a folder in /var/tmp.
#
# tools/demo.sh
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
. tools/cluster.sh

checkout=$PWD
database=demo
wait_seconds=120

say() {
	printf '\n== %s\n' "$*"
}

# Sets place (the cluster's folder) and checkout_is_reachable.
choose_place() {
	local hash
	place=$checkout/.demo/cluster
	checkout_is_reachable=yes
	if ! as_server_user test -x "$checkout"; then
		checkout_is_reachable=no
		hash=$(printf '%s' "$checkout" | sha256sum | cut -c 1-12)
		place=/var/tmp/llm_ext-demo-$hash
	fi
	data=$place/data
	log=$data/server.log
	socket=$place/socket
	# sun_path holds 107 bytes, of which "/.s.PGSQL.5432" takes 14
	if [ ${#socket} -gt 90 ]; then
		hash=$(printf '%s' "$place" | sha256sum | cut -c 1-12)
		socket=/tmp/llm_ext-demo-$hash
	fi
	tree_bin=$place/server$("${PG_CONFIG:-pg_config}" --bindir 2>/dev/null || true)
}

# own_folder PATH USER MODE: make sure that the folder is that user's
own_folder() {
	if [ ! -e "$1" ] && [ ! -L "$1" ]; then
		mkdir -m "$3" "$1"
		[ "$(id -u)" != 0 ] || chown "$2:" "$1"
	fi
	if [ -L "$1" ] || [ "$(stat -c %U "$1")" != "$2" ]; then
		cluster_fail "\"$1\" is not a folder of user \"$2\""
	fi
}

make_place() {
	mkdir -p .demo
	own_folder "$place" "$(id -un)" 755
	own_folder "$data" "$(server_user)" 700
	own_folder "$socket" "$(server_user)" 700
	[ $checkout_is_reachable = yes ] || ln -sfn "$place" .demo/cluster
	model=$checkout/models/demo
	if ! as_server_user test -r "$model/config.json"; then
		model=$place/models/demo
		copy_if_changed models/demo "$model"
	fi
}

is_running() {
	[ -d "$data" ] &&
		as_server_user "$tree_bin/pg_ctl" -D "$data" status >/dev/null 2>&1
}

write_settings() {
	cat <<-END
		# written by tools/demo.sh; set your own things with ALTER SYSTEM
		listen_addresses = ''
		port = 5432
		unix_socket_directories = '$socket'
		unix_socket_permissions = 0700
		cluster_name = 'llm_ext demo'
		shared_buffers = 32MB
		max_connections = 50
		llm_ext.kv_cache_memory = 128MB
		shared_preload_libraries = 'llm_ext'
		llm_ext.model = '$model'
	END
}

# Sets is_changed where the server has to be restarted for it.
configure() {
	if [ ! -e "$data/PG_VERSION" ]; then
		say "creating the cluster in $data"
		as_server_user "$tree_bin/initdb" -D "$data" -U postgres -A trust \
			-E UTF8 --locale=C.UTF-8 --no-instructions >/dev/null
		printf "include 'llm_ext.conf'\n" |
			as_server_user tee -a "$data/postgresql.conf" >/dev/null
	fi
	if [ "$(write_settings)" != "$(cat "$data/llm_ext.conf" 2>/dev/null)" ]; then
		write_settings | as_server_user tee "$data/llm_ext.conf" >/dev/null
		is_changed=yes
	fi
}

start() {
	if is_running; then
		[ $is_changed = yes ] || return 0
		as_server_user "$tree_bin/pg_ctl" -D "$data" -m fast -s stop
	fi
	say "starting PostgreSQL as user \"$(server_user)\""
	if ! as_server_user "$tree_bin/pg_ctl" -D "$data" -l "$log" -s -w \
		start </dev/null; then
		tail -n 20 "$log" >&2
		cluster_fail "PostgreSQL did not start; its log is $log"
	fi
}

# psql as the caller, so that files are read and written as the caller
run_psql() {
	local variable
	for variable in $(compgen -e | grep '^PG' || true); do
		unset "$variable"
	done
	"$tree_bin/psql" -h "$socket" -p 5432 -U postgres "$@"
}

query() {
	run_psql -X -A -t -q -v ON_ERROR_STOP=1 -d "$database" -c "$1"
}

create_extension() {
	if [ -z "$(run_psql -X -A -t -d postgres -c \
		"SELECT 1 FROM pg_database WHERE datname = '$database'")" ]; then
		run_psql -X -q -d postgres -c "CREATE DATABASE $database"
	fi
	query 'SET client_min_messages = warning;
		CREATE EXTENSION IF NOT EXISTS llm_ext'
}

wait_for_model() {
	local state deadline=$((SECONDS + wait_seconds))
	while :; do
		state=$(query 'SELECT state FROM llm.models ORDER BY is_default DESC LIMIT 1')
		case $state in
			ready) return ;;
			failed)
				query 'SELECT name, error FROM llm.models' >&2
				cluster_fail "the demo model could not be loaded"
				;;
		esac
		[ $SECONDS -lt $deadline ] ||
			cluster_fail "the demo model was not loaded within $wait_seconds s; the log is $log"
		sleep 0.1
	done
}

say_how_to_go_on() {
	cat <<-END

		The cluster keeps running.  What to do next:

		  make psql                               connect to it
		  echo 'SELECT llm_ask(...)' | make psql  the same for SQL on standard input
		  make stop                               stop it; "make demo" starts it again

		  A model of your own, in Hugging Face's layout (config.json, *.safetensors,
		  tokenizer.json), readable by user "$(server_user)":

		    SELECT llm_inspect_model('/path/to/model');
		    SELECT llm_load_model('/path/to/model', 'mine');
		    SELECT llm_ask('Hello!', options => '{"model": "mine"}');

		Socket: $socket
		Log:    $log
	END
}

demo() {
	tools/install-packages.sh build
	choose_place
	say "building"
	make -s --no-print-directory -j "$(nproc)" WERROR= all
	make_place
	make_server_tree "$place/server"
	install_extension release
	configure
	start
	create_extension
	wait_for_model
	run_psql -X -e -q -v ON_ERROR_STOP=1 -d "$database" -P pager=off \
		-f tools/demo.sql
	say_how_to_go_on
}

connect() {
	choose_place
	is_running || cluster_fail 'the demo cluster is not running; start it with "make demo"'
	if [ -t 0 ]; then
		run_psql -d "$database"
	else
		run_psql -X -v ON_ERROR_STOP=1 -d "$database"
	fi
}

stop() {
	choose_place
	if is_running; then
		as_server_user "$tree_bin/pg_ctl" -D "$data" -m fast -s stop
		echo "the demo cluster is stopped"
	else
		echo "the demo cluster is not running"
	fi
}

case ${1:-} in
	demo) demo ;;
	psql) connect ;;
	stop) stop ;;
	*) cluster_fail "usage: tools/demo.sh demo|psql|stop" ;;
esac
