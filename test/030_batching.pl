# 030_batching.pl
#	Batched execution where a statement does not simply run to its end:
#	cursors, errors, cancels, rechecks, rights, cached plans, parallel plans.
#
# The executor repeats its prompt.  What would run side by side without bounds
# is bounded here by small numbers, which are then compared exactly.
#
# test/030_batching.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $fake = llm_fake_executor();
my $dir = llm_model_dir();
my $node = llm_node('main',
	model => "$dir?max_model_len=800",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'demo'");

sub one_value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub n_requests
{
	return one_value("SELECT value FROM llm.metrics WHERE name = 'requests'");
}

# Run a script in one session: what it prints, errors included, and requests.
sub run_script
{
	my ($script) = @_;
	my $before = n_requests();
	my ($status, $out, $err) =
	  $node->psql('postgres', $script, on_error_stop => 0);
	$err =~ s/^psql:\S+: //mg;
	return ($out, $err, n_requests() - $before);
}

$node->safe_psql('postgres', <<'END');
CREATE TABLE t (id int PRIMARY KEY, x text, s text, v int NOT NULL DEFAULT 0);
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i;
CREATE FUNCTION f(a text) RETURNS text PARALLEL RESTRICTED LANGUAGE sql AS $$
	SELECT llm_generate(a, NULL,
		'{"temperature": 0, "max_tokens": 4, "add_special_tokens": false}') $$;
ANALYZE t;
END

# --------------------------------------------------------------- demand

my ($out, $err, $n) = run_script(<<'END');
BEGIN;
DECLARE c CURSOR FOR SELECT id, f(x) IS NOT NULL FROM t ORDER BY id;
FETCH 5 FROM c;
ROLLBACK;
END
is($err, '', 'a cursor over calls');
is(scalar(split /\n/, $out), 5, 'it returns what was asked for');
is($n, 5, 'and asks the model for no more');

(undef, undef, $n) = run_script('SELECT f(x) FROM t ORDER BY id LIMIT 7');
is($n, 7, 'a LIMIT is not read over');
(undef, undef, $n) = run_script('SELECT f(x) FROM t ORDER BY id OFFSET 100 LIMIT 7');
is($n, 7, 'rows that OFFSET skips are not asked for');
(undef, undef, $n) =
  run_script("SELECT id FROM t WHERE f(x) > '' ORDER BY id LIMIT 1");
cmp_ok($n, '<=', 8, 'a LIMIT over a filter begins with a small window');
(undef, undef, $n) =
  run_script("SELECT f(x) FROM t WHERE id % 10 = 0 AND f(x) > ''");
is($n, 100, 'cheap filters go first, and equal calls are made once');
(undef, undef, $n) = run_script("SELECT f('same') FROM t");
is($n, 1, 'one request answers all equal calls');
(undef, undef, $n) = run_script(<<'END');
SELECT llm_generate('same', NULL, '{"temperature": 1, "max_tokens": 2}') FROM t LIMIT 20
END
is($n, 20, 'but only where the answers must be equal');

($out, $err) = run_script(<<'END');
SET enable_seqscan = off;
SELECT id, f(x) IS NOT NULL FROM t WHERE f((60 / (id - 5))::text) IS NOT NULL
ORDER BY id FETCH FIRST 3 ROWS WITH TIES;
END
is("$out$err", "1|t\n2|t\n3|t", 'the error of a row behind the LIMIT never comes');

($out) = run_script(<<'END');
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, f(x) FROM t WHERE id < 20 ORDER BY id;
FETCH 3 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH ABSOLUTE 15 FROM c;
FETCH BACKWARD ALL FROM c;
MOVE ABSOLUTE 0 FROM c;
FETCH NEXT FROM c;
ROLLBACK;
END
is( join(' ', map { (split /\|/)[0] } split /\n/, $out),
	join(' ', 1 .. 3, 2, 15, reverse(1 .. 14), 1),
	'a scrolling cursor goes both ways');

# --------------------------------------------------------------- errors

my $failing = q{llm_generate(repeat('long ', CASE WHEN id = 30 THEN 2000 ELSE 1 END),
	NULL, '{"max_tokens": 2, "on_error": "ON_ERROR"}')};
(my $erring = $failing) =~ s/ON_ERROR/error/;
(my $forgiving = $failing) =~ s/ON_ERROR/null/;
($out, $err) = run_script(<<END);
BEGIN;
DECLARE c CURSOR FOR SELECT id, $erring IS NULL FROM t ORDER BY id;
FETCH 29 FROM c;
FETCH 1 FROM c;
ROLLBACK;
END
is(scalar(split /\n/, $out), 29, 'rows before one that fails are returned');
like($err, qr/more tokens than the model's context/, 'then its error is raised');
($out, $err) = run_script("SELECT count(*), count(r) FROM "
	  . "(SELECT $forgiving AS r FROM t WHERE id <= 50 OFFSET 0) q");
is($out, '50|49', 'on_error null: the row is NULL');
is(() = $err =~ /WARNING/g, 1, 'with one warning');
($out, $err) = run_script(<<'END');
BEGIN;
DECLARE c CURSOR FOR SELECT id, f((1 / (id - 3))::text) FROM t ORDER BY id;
FETCH 2 FROM c;
FETCH 1 FROM c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT id, f(f((1 / (id - 3))::text)) FROM t ORDER BY id;
FETCH 1 FROM c;
FETCH 1 FROM c;
FETCH 1 FROM c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT id, llm_generate(x, NULL,
	CASE WHEN id = 4 THEN '{"no_such_key": 1}' ELSE '{"max_tokens": 1}' END::jsonb)
	IS NULL FROM t ORDER BY id;
FETCH 1 FROM c;
FETCH 2 FROM c;
FETCH 2 FROM c;
ROLLBACK;
END
is(scalar(split /\n/, $out), 7, 'errors of arguments wait for their row, too');
is(() = $err =~ /division by zero/g, 2, 'in calls and in calls of calls');
like($err, qr/no_such_key/, 'and those of options');

($out, $err) = run_script(<<END);
DO \$\$
DECLARE n int := 0;
BEGIN
	FOR i IN 1 .. 20 LOOP
		BEGIN
			PERFORM $erring FROM t;
		EXCEPTION WHEN program_limit_exceeded THEN n := n + 1;
		END;
	END LOOP;
	RAISE NOTICE 'caught %', n;
	UPDATE t SET s = f(x) WHERE id <= 10;
END \$\$;
SELECT count(s) FROM t;
UPDATE t SET s = NULL;
END
like($err, qr/caught 20/, 'errors are caught in subtransactions');
is($out, '10', 'and the session goes on');
ok(wait_for_idle($node), 'all slots were given back');

# ------------------------------------------- cursors that are left behind

($out, $err) = run_script(<<'END');
BEGIN;
DECLARE c CURSOR FOR SELECT id, f(x) FROM t ORDER BY id;
MOVE 100 FROM c;
SAVEPOINT s;
DECLARE d CURSOR FOR SELECT id, f(x || 'd') FROM t ORDER BY id;
MOVE 10 FROM d;
ROLLBACK TO s;
FETCH 1 FROM c;
CLOSE c;
COMMIT;
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT id, f(x) IS NOT NULL FROM t WHERE id < 50 ORDER BY id;
FETCH 1 FROM h;
COMMIT;
MOVE 20 FROM h;
FETCH 1 FROM h;
CLOSE h;
END
is($err, '', 'cursors with savepoints and beyond the transaction');
like($out, qr/^101\|.*\n1\|t\n22\|t$/, 'they return their rows');
ok(wait_for_idle($node), 'all slots were given back');

# ------------------------------------------------------- plans that are kept

($out, $err) = run_script(<<'END');
PREPARE p(int) AS SELECT count(*), min(f(x)) IS NOT NULL FROM t WHERE id <= $1;
EXECUTE p(1); EXECUTE p(2); EXECUTE p(3); EXECUTE p(4); EXECUTE p(5); EXECUTE p(6); EXECUTE p(7);
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE p(8);
SET llm_ext.enable_batching = off;
EXPLAIN (COSTS OFF) EXECUTE p(8);
END
is(() = $out =~ /\|t/g, 7, 'a prepared statement');
is(() = $out =~ /LlmBatch/g, 1, 'its plan follows the setting');

$node->safe_psql('postgres', <<'END');
CREATE FUNCTION own(a text, b text, c jsonb) RETURNS text
	AS '$libdir/llm_ext', 'llm_generate' LANGUAGE c;
CREATE ROLE nobody_special;
GRANT SELECT, UPDATE ON t TO nobody_special;
SELECT llm_grant_model('demo', 'nobody_special');
END
($out) = run_script(q{EXPLAIN SELECT own(x, NULL, '{"max_tokens": 1}') FROM t});
like($out, qr/LlmBatch/, 'functions are known by their code, not their names');
$node->safe_psql('postgres',
	'ALTER FUNCTION own(text, text, jsonb) SECURITY DEFINER');
($out) = run_script(q{EXPLAIN SELECT own(x, NULL, '{"max_tokens": 1}') FROM t});
unlike($out, qr/LlmBatch/, 'what runs as another user is not batched');
$node->safe_psql('postgres', <<'END');
ALTER FUNCTION own(text, text, jsonb) SECURITY INVOKER;
REVOKE EXECUTE ON FUNCTION own(text, text, jsonb) FROM PUBLIC;
END
($out, $err) = run_script(<<'END');
SET ROLE nobody_special;
SELECT own(x, NULL, '{"max_tokens": 1}') FROM t;
END
like($err, qr/permission denied for function own/, 'the right to call is checked');

# ----------------------------------------------------------- row security

$node->safe_psql('postgres', <<'END');
CREATE TABLE secret (id int, owner text, x text);
INSERT INTO secret SELECT i, CASE WHEN i % 2 = 0 THEN 'nobody_special' ELSE 'other' END,
	'x' || i FROM generate_series(1, 40) i;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secret USING (f(x) > '' AND owner = current_user);
GRANT SELECT ON secret TO nobody_special;
CREATE FUNCTION leak(a text) RETURNS bool COST 0.0001 LANGUAGE plpgsql AS $$
BEGIN RAISE NOTICE 'leak %', a; RETURN true; END $$;
CREATE VIEW barrier WITH (security_barrier) AS
	SELECT * FROM secret WHERE f(x) > '' AND id % 4 = 0;
GRANT SELECT ON barrier TO nobody_special;
END
($out, $err) = run_script(<<'END');
SET ROLE nobody_special;
SELECT count(*), count(f(x || '!')) FROM secret WHERE leak(x);
SELECT count(*) FROM secret a JOIN secret b USING (id) WHERE leak(a.x || b.x) AND f(b.x) > '';
END
is($out, "20|20\n20", 'row security with calls');
is(() = $err =~ /leak x\d*[13579]\b/g, 0, 'nothing leaks through it');
($out, $err) = run_script(<<'END');
SET ROLE nobody_special;
SELECT count(*) FROM barrier WHERE leak(x) AND f(x || '?') > '';
END
is($out, '10', 'a security barrier with calls');
is(() = $err =~ /leak/g, 10, 'only its rows are seen');

# ------------------------------------------------------------- rechecks

# Another session changes a row that this one is about to update.
my $writer = start_sql($node, <<'END');
BEGIN;
UPDATE t SET x = 'changed', v = 1 WHERE id = 500;
SELECT pg_sleep(3);
COMMIT;
END
wait_for(sub { one_value("SELECT count(*) FROM pg_locks l JOIN pg_class c "
		  . "ON c.oid = l.relation WHERE relname = 't' AND mode = 'RowExclusiveLock'") }, 'the writer');
session_pid($writer);
sleep 0.3;
($out, $err) = run_script(<<'END');
UPDATE t SET s = f(x) || v WHERE v < 5 AND f(x) <> 'nothing';
SELECT s = llm_generate('changed', NULL,
	'{"temperature": 0, "max_tokens": 4, "add_special_tokens": false}') || '1',
	v FROM t WHERE id = 500;
SELECT count(s) FROM t;
UPDATE t SET s = NULL, x = 'v' || id, v = 0;
END
finish_sql($writer);
is($out, "t|1\n1000", 'a row that was changed meanwhile is answered anew');

# ------------------------------------------------------- what runs where

($out, $err) = run_script(<<'END');
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*), count(DISTINCT r) FROM (SELECT f(x) r FROM t WHERE id % 2 = 0 OFFSET 0) q;
EXPLAIN (COSTS OFF) SELECT f(x) FROM t WHERE id % 2 = 0;
END
like($out, qr/^500\|/, 'calls above a parallel scan');
like($out, qr/LlmBatch.*Gather/s, 'stay in the leader');

($out, $err) = run_script(<<'END');
SET work_mem = '64kB';
SELECT count(*), sum(length(w)) FROM (
	SELECT f(x) r, repeat(x, 4000) w FROM t OFFSET 0) q WHERE r > '';
END
like($out, qr/^1000\|/, 'wide rows wait in files');

# --------------------------------------------------------------- cancel

one_value("SELECT llm_load_model('$dir?delay_ms=30', 'slow')");
is( one_value(<<'END'), '40', 'a node may wait for what another one has asked');
SET enable_hashjoin = off;
SELECT count(*) FROM
	(SELECT id, llm_generate(x, NULL, '{"model": "slow", "temperature": 0, "max_tokens": 2}') r
		FROM t WHERE id <= 40 OFFSET 0) a
	JOIN (SELECT id, llm_generate(x, NULL, '{"model": "slow", "temperature": 0, "max_tokens": 2}') r
		FROM t WHERE id <= 40 OFFSET 0) b USING (id, r);
END
my $slow = q{llm_generate(x, NULL, '{"model": "slow", "max_tokens": 500,
	"ignore_eos": true}')};
my $session = start_sql($node, "UPDATE t SET s = $slow;");
wait_for(
	sub { one_value("SELECT count(*) FROM llm.activity WHERE model = 'slow'") >= 200 },
	'a full window');
is(one_value("SELECT string_agg(DISTINCT priority, ',') FROM llm.activity"),
	'batch', 'rows of a statement are of class batch');
cancel_sql($session);
my ($status, undef, $complaint) = finish_sql($session);
like($complaint, qr/canceling statement due to user request/, 'cancelled');
ok(wait_for_idle($node, 5), 'all slots are given back at once');

$session = start_sql($node, "SELECT $slow FROM t;");
wait_for(
	sub { one_value("SELECT count(*) FROM llm.activity WHERE model = 'slow'") >= 200 },
	'a full window');
kill_client($session);
ok(wait_for_idle($node, 20), 'also where the client is gone');

# More windows than slots: nobody waits for ever.
my @sessions = map {
	start_sql($node, "SET llm_ext.batch_rows = 512; "
		  . "SELECT count(f(f(x || $_))) FROM t;")
} 1 .. 6;
is(join(' ', map { (finish_sql($_))[1] } @sessions),
	join(' ', (1000) x 6), 'sessions that ask for more than there is');
($out, $err) = run_script(<<'END');
SET llm_ext.queue_wait = off;
SELECT count(f(f(x))) FROM t;
END
is($out, '1000', 'a window keeps to the room that is left');
ok(wait_for_idle($node), 'no slot stays in use');

$node->stop;
done_testing();
