#!/usr/bin/env bash
# bench_rows.sh
#	Rows of one statement, beside the engine driven directly, and cancels.
#
# In turns: one UPDATE over all rows, the same requests sent to an executor
# without a server between (rows_relay.c: what the UPDATE asked was taken down
# before), and one UPDATE with batch_rows = 1.  Printed are the rounds, and the
# medians' ratios.  Then an UPDATE of 10,000 rows that is cancelled at moments
# by chance: from pg_cancel_backend to the statement's end inside its session,
# beside the length of a step.
#
# The server is a private one with the demo model, in a temporary folder.  From
# the environment: ROWS (2000), ROUNDS (9; batch_rows = 1 in every third),
# CANCELS (30).  It takes a minute or two on a quiet machine.
#
# test/bench/bench_rows.sh
set -euo pipefail
umask 022
cd "$(dirname "$0")/../.."
. tools/cluster.sh

rows=${ROWS:-2000}
rounds=${ROUNDS:-9}
cancels=${CANCELS:-30}

make -s "CC=${CC:-cc}" all build/release/test/bench/rows_relay
work=$(mktemp -d /tmp/llm_ext-bench-rows.XXXXXX)
choose_run_as
chmod 755 "$work"

clean_up() {
	as_server_user "$tree_bin/pg_ctl" -D "$work/data" -m immediate -s stop \
		>/dev/null 2>&1 || true
	rm -rf "$work"
}
trap clean_up EXIT

make_server_tree "$work/server"
install_extension release
mkdir "$work/data" "$work/relay"
cp -R models/demo "$work/model"
cp build/release/test/bench/rows_relay build/release/llm_executor "$work/relay"
chmod -R go+rX "$work"
[ "$(id -u)" != 0 ] || chown "$(server_user):" "$work/data" "$work/relay"
as_server_user "$tree_bin/initdb" -D "$work/data" -U postgres -A trust -N \
	-E UTF8 --locale=C.UTF-8 >/dev/null
as_server_user tee -a "$work/data/postgresql.conf" >/dev/null <<-END
	listen_addresses = ''
	unix_socket_directories = '$work/data'
	shared_preload_libraries = 'llm_ext'
	llm_ext.model = '$work/model'
	jit = off
	autovacuum = off
END

start_server() {
	as_server_user "$tree_bin/pg_ctl" -D "$work/data" -l "$work/data/log" -s -w \
		-o "$1" start </dev/null
}

stop_server() {
	as_server_user "$tree_bin/pg_ctl" -D "$work/data" -m fast -s -w stop
}

query() {
	as_server_user "$tree_bin/psql" -X -A -t -q -v ON_ERROR_STOP=1 \
		-h "$work/data" -U postgres -d postgres "$@"
}

wait_for_model() {
	local state
	until state=$(query -c "SELECT state FROM llm.models"); [ "$state" = ready ]; do
		[ "$state" != failed ] || cluster_fail "the model could not be loaded"
		sleep 0.2
	done
}

classify="llm_classify(body, ARRAY['praise', 'bug', 'question'])"

# ---- what the UPDATE asks ----

start_server "-c llm_ext.executor_path=$work/relay/rows_relay"
query <<-END
	CREATE EXTENSION llm_ext;
	CREATE TABLE reviews (id int PRIMARY KEY, body text, label text);
	INSERT INTO reviews SELECT i, 'Order ' || i || ': the '
		|| (ARRAY['lamp', 'kettle', 'radio', 'chair', 'knife'])[1 + i % 5] || ' '
		|| (ARRAY['broke after a day', 'is a joy to use', 'does not switch on',
			'came in the wrong color', 'works as it should',
			'is too loud for my room', 'can be washed by hand?'])[1 + i % 7]
		FROM generate_series(1, $rows) i;
	CREATE TABLE many AS SELECT i AS id, 'word ' || i AS body, NULL::text AS s
		FROM generate_series(1, 10000) i;
	CREATE TABLE cancelled (sent timestamptz, ended timestamptz, idle timestamptz);
	VACUUM ANALYZE;
END
wait_for_model
query -c "UPDATE reviews SET label = $classify"
stop_server

# ---- in turns ----

start_server ''
wait_for_model
coproc engine { exec "${run_as[@]}" "$work/relay/rows_relay" --replay "$work/relay/llm_executor" \
	"$work/relay/requests.log" 256; }
engine_pid=$!

# processor time of a process in ms
cpu_ms() {
	awk '{ print ($14 + $15) * 10 }' "/proc/$1/stat" # in ticks of 10 ms
}

# time_update BATCH_ROWS: sets update_us, and the processes' time
time_update() {
	local scheduler before after
	scheduler=$(pgrep -P "$(head -n 1 "$work/data/postmaster.pid")" -f 'llm_ext scheduler')
	before=$(cpu_ms "$scheduler")
	read -r update_us session_ms < <(query <<-END
		SET llm_ext.batch_rows = $1;
		CREATE TEMP TABLE t AS SELECT clock_timestamp() AS start,
			(regexp_match(pg_read_file('/proc/self/stat'), '\\) (.*)'))[1] AS stat;
		UPDATE reviews SET label = $classify;
		SELECT (extract(epoch FROM clock_timestamp() - start) * 1e6)::bigint || ' '
			|| 10 * (split_part(now_stat, ' ', 12)::int + split_part(now_stat, ' ', 13)::int
			- split_part(stat, ' ', 12)::int - split_part(stat, ' ', 13)::int)
		FROM t, (SELECT (regexp_match(pg_read_file('/proc/self/stat'), '\\) (.*)'))[1]
			AS now_stat) s;
	END
	)
	after=$(cpu_ms "$scheduler")
	scheduler_ms=$((after - before))
}

time_engine() {
	echo >&"${engine[1]}"
	read -r engine_us <&"${engine[0]}"
}

median() {
	sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}

echo "$rows rows, $(nproc) CPUs, load $(cut -d ' ' -f 1 /proc/loadavg)"
time_update 256
time_engine
for round in $(seq "$rounds"); do
	time_engine
	echo "$engine_us" >>"$work/engine"
	time_update 256
	echo "$update_us" >>"$work/update"
	printf 'round %d: engine %7.0f ms, update %7.0f ms (session %d ms, scheduler %d ms of CPU)' \
		"$round" "$((engine_us / 1000))" "$((update_us / 1000))" "$session_ms" "$scheduler_ms"
	awk -v e="$engine_us" -v u="$update_us" 'BEGIN { printf ", %.1f %%", 100 * e / u }'
	echo "$engine_us $update_us" | awk '{ print 1000 * $1 / $2 }' >>"$work/ratios"
	if [ $((round % 3)) = 1 ]; then
		time_update 1
		echo "$update_us" >>"$work/one"
		printf ', batch_rows 1 %7.0f ms' "$((update_us / 1000))"
	fi
	echo
done
awk -v r="$(median <"$work/ratios")" -v u="$(median <"$work/update")" \
	-v o="$(median <"$work/one")" 'BEGIN {
	printf "UPDATE has %.1f %% of the engine'\''s speed, and is %.2f times as fast as batch_rows = 1\n", r / 10, o / u }'
kill "$engine_pid" 2>/dev/null || true

# ---- cancels ----

query >/dev/null <<-END
	CREATE PROCEDURE be_cancelled(n int) LANGUAGE plpgsql AS \$\$
	BEGIN
		FOR i IN 1 .. n LOOP
			BEGIN
				UPDATE many SET s = llm_generate(body, NULL,
					'{"max_tokens": 64, "ignore_eos": true, "temperature": 0}');
				RAISE 'it was not cancelled';
			EXCEPTION WHEN query_canceled THEN
				UPDATE cancelled SET ended = clock_timestamp() WHERE ended IS NULL;
			END;
			WHILE EXISTS (SELECT FROM llm.activity) LOOP END LOOP;
			UPDATE cancelled SET idle = clock_timestamp() WHERE idle IS NULL;
			COMMIT;
		END LOOP;
	END \$\$;
	CREATE PROCEDURE cancel(n int) LANGUAGE plpgsql AS \$\$
	DECLARE victim int;
	BEGIN
		SELECT pid INTO victim FROM pg_stat_activity WHERE application_name = 'victim';
		FOR i IN 1 .. n LOOP
			WHILE (SELECT count(*) FROM llm.activity) < 256 LOOP
				PERFORM pg_sleep(0.002);
			END LOOP;
			PERFORM pg_sleep(0.05 + 0.3 * (i * 7919 % 101) / 100);
			INSERT INTO cancelled VALUES (clock_timestamp());
			COMMIT;
			PERFORM pg_cancel_backend(victim);
			WHILE EXISTS (SELECT FROM cancelled WHERE idle IS NULL) LOOP
				PERFORM pg_sleep(0.01);
				COMMIT;
			END LOOP;
		END LOOP;
	END \$\$;
END
steps() {
	sleep 1.5 # they are counted once a second
	query -c 'SELECT steps FROM llm.executors'
}

n_steps=$(steps)
step_ms=$(query <<-END
	\timing on
	UPDATE many SET s = llm_generate(body, NULL,
		'{"max_tokens": 64, "ignore_eos": true, "temperature": 0}') WHERE id <= 512;
	END
)
step_ms=$(awk -v n="$n_steps" -v m="$(steps)" '{ gsub(",", ""); print $2 / (m - n) }' <<<"$step_ms")
echo "a step of this statement takes $step_ms ms on average"
query -c "SET application_name = 'victim'" -c "CALL be_cancelled($cancels)" &
sessions=$!
query -c "SELECT pg_sleep(0.5)" -c "CALL cancel($cancels)" >/dev/null
wait "$sessions"
query -c "
	SELECT format('%s cancels of 10,000 rows: session free after %s ms (median), %s (90 %%), %s (most); '
		|| 'slots after %s, %s, %s',
		count(*), round(e[1]::numeric, 1), round(e[2]::numeric, 1), round(e[3]::numeric, 1),
		round(i[1]::numeric, 1), round(i[2]::numeric, 1), round(i[3]::numeric, 1))
	FROM cancelled, (
		SELECT percentile_cont(ARRAY[0.5, 0.9, 1]) WITHIN GROUP
				(ORDER BY extract(epoch FROM ended - sent) * 1e3) e,
			percentile_cont(ARRAY[0.5, 0.9, 1]) WITHIN GROUP
				(ORDER BY extract(epoch FROM idle - sent) * 1e3) i
		FROM cancelled) p GROUP BY e, i"
