#!/usr/bin/env bash
# bench-sql.sh
#	The shape of Llama 3.1 8B through SQL: concurrent sessions, and statements
#	over many rows.
#
# A private server (tools/cluster.sh) loads made-up weights of that shape with
# the demo model's tokenizer.  Prompts are token ids, answers end by their
# length, so work is the same as bench_jobs does without PostgreSQL.  Each line
# is a job: rows, tokens in and out of each, seconds, output tokens a second.
#
# From the environment:
#	DEVICE    cuda (default) or cpu, which takes a small shape
#	KV        the cache's format (default: auto)
#	SCALE     divides numbers of rows (default: 1)
#	JOBS_SQL  some of: sessions update short  (default: all)
#
# tools/bench-sql.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cluster.sh

device=${DEVICE:-cuda}
scale=${SCALE:-1}
jobs=" ${JOBS_SQL:-sessions update short} "
work=$(mktemp -d "${TMPDIR:-/tmp}/llm_ext-bench-sql.XXXXXX")
port=$((20000 + RANDOM % 20000))

stop_server() {
	as_server_user "$tree_bin/pg_ctl" -D "$work/data" -m immediate -s stop \
		>/dev/null 2>&1 || true
	rm -rf "$work"
}
trap stop_server EXIT

# The demo model's files with another shape; weights are not read.
make_model() {
	local layers=32 hidden=4096 inner=14336 heads=32 vocab=128256
	if [ "$device" = cpu ]; then
		layers=2 hidden=256 inner=512 heads=8 vocab=4096
	fi
	mkdir "$work/model"
	cp models/demo/*.json models/demo/*.jinja "$work/model/"
	cat >"$work/model/config.json" <<-END
		{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
		"vocab_size": $vocab, "hidden_size": $hidden,
		"intermediate_size": $inner, "num_hidden_layers": $layers,
		"num_attention_heads": $heads, "num_key_value_heads": 8,
		"rms_norm_eps": 1e-05, "max_position_embeddings": 8192,
		"tie_word_embeddings": false, "rope_theta": 500000.0,
		"bos_token_id": 4089, "eos_token_id": [4092, 4090],
		"dtype": "bfloat16"}
	END
}

start_server() {
	chmod 755 "$work"
	make_server_tree "$work/server"
	install_extension release
	make_model
	[ "$(id -u)" != 0 ] || chown -R "$(server_user):" "$work"
	as_server_user "$tree_bin/initdb" -D "$work/data" -A trust \
		--locale=C.UTF-8 --encoding=UTF8 >/dev/null
	cat <<-END | as_server_user tee -a "$work/data/postgresql.conf" >/dev/null
		shared_preload_libraries = 'llm_ext'
		unix_socket_directories = '$work'
		listen_addresses = ''
		port = $port
		max_connections = 300
		jit = off
		work_mem = '256MB'
		llm_ext.model = '$work/model'
		llm_ext.model_name = 'bench'
		llm_ext.load_format = dummy
		llm_ext.device = $device
		llm_ext.kv_cache_dtype = ${KV:-auto}
		llm_ext.max_model_len = 4224
	END
	as_server_user "$tree_bin/pg_ctl" -D "$work/data" -l "$work/data/log" \
		-w -s start
}

sql() {
	as_server_user "$tree_bin/psql" -X -A -t -q -v ON_ERROR_STOP=1 \
		-h "$work" -p "$port" -d postgres "$@"
}

# Prompts with nothing in common, or with the same beginning.
prepare_rows() {
	sql <<-'END'
		CREATE EXTENSION llm_ext;
		CREATE FUNCTION prompt(id int, n_shared int, n_own int) RETURNS json
		LANGUAGE sql IMMUTABLE AS $$
			SELECT to_json(ARRAY(SELECT 3 + i % 4000 FROM generate_series(1, n_shared) i) ||
						   ARRAY(SELECT 3 + (id * 7919 + i * 3571) % 4000
								 FROM generate_series(1, n_own) i)) $$;
		CREATE FUNCTION answer(prompt json, n_out int) RETURNS int
		LANGUAGE sql VOLATILE AS $$
			SELECT (llm_completion(json_build_object('prompt', prompt, 'max_tokens', n_out,
				'temperature', 0, 'ignore_eos', true)) #>> '{usage,completion_tokens}')::int $$;
	END
	until [ "$(sql -c "SELECT state FROM llm.models")" = ready ]; do
		[ "$(sql -c "SELECT count(*) FROM llm.models WHERE state = 'failed'")" = 0 ] || {
			sql -c 'SELECT error FROM llm.models'
			exit 1
		}
		sleep 0.2
	done
	sql -c "SELECT format('%s, loaded in %s ms', facts->>'device', facts->>'load_ms') FROM llm.executors"
	sql -c "SELECT format('%-12s %8s MB', what, bytes / 1000000) FROM llm.executor_memory"
}

# line NAME ROWS IN OUT START
line() {
	awk -v name="$1" -v n="$2" -v from="$3" -v to="$4" -v start="$5" \
		-v end="$EPOCHREALTIME" 'BEGIN { s = end - start
		printf "%-28s %6d rows %5d/%-5d %9.2f s %10.1f tok/s\n", name, n, from, to,
			s, n * to / s }'
}

# table NAME ROWS SHARED OWN: rows with prompts
table() {
	sql -c "CREATE TABLE $1 AS SELECT id, prompt(id, $3, $4) AS prompt, 0 AS n
		FROM generate_series(1, $2) id" -c "ANALYZE $1"
}

# sessions NAME SESSIONS EACH IN OUT: so many sessions ask one by one
sessions() {
	local name=$1 n=$2 each=$3 from=$4 to=$5 start i
	local -a pids=()
	table "s_$from" $((n * each)) 0 "$from"
	start=$EPOCHREALTIME
	for ((i = 0; i < n; i++)); do
		sql -c "DO \$\$ DECLARE r record; BEGIN FOR r IN SELECT prompt FROM s_$from
			WHERE id % $n = $i LOOP PERFORM answer(r.prompt, $to); END LOOP; END \$\$" &
		pids+=($!)
	done
	wait "${pids[@]}"
	line "$name, $n sessions" $((n * each)) "$from" "$to" \
		"$start"
	sql -c "DROP TABLE s_$from"
}

# update NAME ROWS SHARED OWN OUT
update() {
	local start
	table rows "$2" "$3" "$4"
	start=$EPOCHREALTIME
	# an aggregate checks that all rows were answered
	sql -c "UPDATE rows SET n = (llm_completion(json_build_object('prompt', prompt,
		'max_tokens', $5, 'temperature', 0, 'ignore_eos', true)) #>> '{usage,completion_tokens}')::int" \
		-c "SELECT CASE WHEN bool_and(n = $5) THEN '' ELSE 'rows without an answer' END FROM rows"
	line "UPDATE, $1" "$2" $(($3 + $4)) "$5" \
		"$start"
	sql -c 'DROP TABLE rows'
}

tree_bin=
start_server
prepare_rows
if [[ $jobs == *' sessions '* ]]; then
	sessions 'one by one' $((256 / scale > 0 ? 256 / scale : 1)) 4 128 128
	sessions 'one by one' $((256 / scale > 0 ? 256 / scale : 1)) 1 1000 1000
fi
if [[ $jobs == *' update '* ]]; then
	update 'nothing in common' $((4096 / scale)) 0 1000 1000
fi
if [[ $jobs == *' short '* ]]; then
	update '1,000 tokens shared' $((20000 / scale)) 1000 30 8
fi
