# 037_writing_rows.pl
#	Calls of statements that write: as many rows are written as without
#	batching, in the same order, whoever runs the statement.
#
# The executor repeats its prompt.
#
# test/037_writing_rows.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $fake = llm_fake_executor();
my $node = llm_node('main', conf =>
  "llm_ext.executor_path = '$fake'\nmax_prepared_transactions = 2");

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

# The same with batching and without it.
sub compare_script
{
	my ($what, $script) = @_;
	my ($out, $err) = run_script($script);
	my ($out_plain, $err_plain) =
	  run_script("SET llm_ext.enable_batching = off;\n$script");
	is("$out\n$err", "$out_plain\n$err_plain", $what);
	return ($out, $err);
}

# Until a session waits for another transaction.
sub wait_for_lock
{
	wait_for(
		sub {
			one_value("SELECT count(*) FROM pg_stat_activity "
				  . "WHERE wait_event = 'transactionid'") > 0;
		},
		'a session that waits for a row');
}

$node->safe_psql('postgres', <<'END');
CREATE TABLE t (id int PRIMARY KEY, x text, s text, n int, v int);
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i;
CREATE FUNCTION f(a text) RETURNS text PARALLEL RESTRICTED LANGUAGE sql AS $$
	SELECT llm_generate(a, NULL,
		'{"temperature": 0, "max_tokens": 4, "add_special_tokens": false}') $$;
ANALYZE t;
END

# --------------------------------------------------- RETURNING: how far

# PL/pgSQL asks for two rows, to see whether there is more than one, and no
# more are written: each write gives a notice.
my $spi = <<'END';
BEGIN;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN RAISE NOTICE ''row %'', new.id; RETURN new; END';
CREATE TRIGGER tell BEFORE UPDATE ON t FOR EACH ROW WHEN (new.n = 2) EXECUTE FUNCTION tell();
DO $$
DECLARE r record;
BEGIN
	UPDATE t SET n = 1 WHERE id = 7 RETURNING id, f(x) INTO STRICT r;
	RAISE NOTICE 'one row: %', r;
	UPDATE t SET n = 1 WHERE id < 0 RETURNING id, f(x) INTO r;
	RAISE NOTICE 'no row: %', r;
	BEGIN
		UPDATE t SET n = 2 RETURNING id, f(x) INTO r;
	EXCEPTION WHEN too_many_rows THEN RAISE NOTICE '%', sqlerrm;
	END;
	FOR r IN UPDATE t SET n = 3 WHERE id < 20 RETURNING id, f(x) LOOP
		EXIT WHEN r.id = 3;
	END LOOP;
	RAISE NOTICE 'left a loop at %', r;
END $$;
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;
ROLLBACK;
END
my ($out, $err) = compare_script('RETURNING INTO and loops', $spi);
like($out, qr/^3\|19$/m, 'a loop writes all its rows');
like($err, qr/one row: \(7,v7v7\)/, 'one row has its answer');
is(() = $err =~ /NOTICE:  row/g, 2, 'no more rows are written than are asked for');

($out, $err) = compare_script('a cursor over a statement that writes', <<'END');
BEGIN;
CREATE FUNCTION some_rows() RETURNS SETOF text LANGUAGE sql AS
	'UPDATE t SET n = 6 WHERE id < 30 RETURNING f(x)';
SELECT * FROM some_rows() LIMIT 2;
SELECT count(*) FROM t WHERE n = 6;
COPY (DELETE FROM t WHERE id < 4 RETURNING f(x), n) TO STDOUT;
PREPARE p(int) AS UPDATE t SET n = $1 WHERE id = $1 RETURNING id, f(x || $1);
EXECUTE p(10); EXECUTE p(11); EXECUTE p(12); EXECUTE p(13); EXECUTE p(14); EXECUTE p(15); EXECUTE p(16);
ROLLBACK;
END

# ------------------------------------------------- RETURNING: what it sees

# A volatile function sees the rows that are written so far.
compare_script('volatile functions keep their order', <<'END');
BEGIN;
CREATE SEQUENCE q;
CREATE FUNCTION written() RETURNS bigint LANGUAGE plpgsql AS
	'BEGIN RETURN (SELECT count(*) FROM t WHERE n = 8); END';
CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN new.s := nextval(''q''); RETURN new; END';
CREATE TRIGGER number BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION number();
UPDATE t SET n = 8 WHERE id < 30 RETURNING id, f(x), written(), s, nextval('q'), f(s || written());
ROLLBACK;
END

# The rows of a statement that fails are not there, nor are its requests.
($out, $err) = run_script(<<'END');
UPDATE t SET n = 9 RETURNING f((100 / (id - 500))::text);
SELECT count(*) FROM t WHERE n = 9;
END
like($err, qr/division by zero/, 'an error in RETURNING');
is($out, '0', 'ends the statement');
ok(wait_for_idle($node), 'all slots are given back');

# ------------------------------------------------------ foreign tables

SKIP:
{
	skip 'no postgres_fdw', 3
	  if one_value("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'") == 0;
	my ($host, $port) = ($node->host, $node->port);
	my $user = one_value('SELECT current_user');
	$node->safe_psql('postgres', <<END);
CREATE EXTENSION postgres_fdw;
CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER self OPTIONS (user '$user');
CREATE TABLE far (id int, x text, s text);
INSERT INTO far SELECT id, x FROM t WHERE id <= 40;
CREATE FOREIGN TABLE ft (id int, x text, s text) SERVER self OPTIONS (table_name 'far');
CREATE TABLE mixed (id int, x text, s text) PARTITION BY RANGE (id);
CREATE TABLE near PARTITION OF mixed FOR VALUES FROM (1) TO (20);
CREATE TABLE far2 (s text, x text, id int);
CREATE FOREIGN TABLE away PARTITION OF mixed FOR VALUES FROM (20) TO (100)
	SERVER self OPTIONS (table_name 'far2');
INSERT INTO mixed SELECT id, x FROM t WHERE id <= 40;
END
	# the first update runs on the other server, the second one here
	($out) = run_script(<<'END');
EXPLAIN (COSTS OFF) UPDATE ft SET s = 'a' WHERE id < 9 RETURNING id, f(x);
EXPLAIN (COSTS OFF) UPDATE ft SET s = f(x) WHERE id < 9 RETURNING id, f(s);
END
	is(() = $out =~ /^Custom Scan \(LlmBatch\)/mg, 2, 'foreign tables are batched');
	like($out, qr/Foreign Update on ft/, 'also where the other server updates');
	compare_script('with the same rows', <<'END');
BEGIN;
UPDATE ft SET s = 'a' WHERE id < 9 RETURNING id, f(x), ft, tableoid::regclass;
UPDATE ft SET s = f(x) WHERE id < 9 RETURNING id, f(s), ft;
INSERT INTO ft SELECT id + 100, x FROM t WHERE id < 9 RETURNING f(x || id), ft;
DELETE FROM ft WHERE id > 100 RETURNING f(x || id), ft;
DELETE FROM ft USING t WHERE t.id = ft.id AND ft.id < 5 RETURNING f(ft.x || t.id), t;
UPDATE mixed SET s = 'b' WHERE id IN (18, 19, 20, 21) RETURNING f(x), mixed, tableoid::regclass;
INSERT INTO mixed SELECT id, x FROM t WHERE id IN (18, 19, 20, 21) RETURNING f(x), mixed, tableoid::regclass;
ROLLBACK;
END
}

# ----------------------------------------------------------- rechecks

# Rows that somebody else changes meanwhile are checked again, then returned.
$node->safe_psql('postgres', "UPDATE t SET n = id, s = NULL");
$node->safe_psql('postgres', <<'END');
BEGIN;
UPDATE t SET x = 'new', n = n + (id = 3)::int * 1000 WHERE id IN (2, 3);
PREPARE TRANSACTION 'writer';
END
my $waiter = start_sql($node, <<'END');
UPDATE t SET s = f(x) WHERE n <= 5 RETURNING id, f(x || '+'), s;
END
wait_for_lock();
$node->safe_psql('postgres', "COMMIT PREPARED 'writer'");
is( (finish_sql($waiter))[1],
	"1|v1+v|v1v1\n2|new+new+|newnewnewnew\n4|v4+v|v4v4\n5|v5+v|v5v5",
	'rows that were changed meanwhile')
  or diag(one_value('SELECT id, x, s, n FROM t WHERE id < 6 ORDER BY id'));
# MERGE decides anew for them: another action, a row that is not matched any
# more, another argument.
my $merge = <<'END';
MERGE INTO t USING source q ON t.id = q.id
	WHEN MATCHED AND t.n < 0 THEN UPDATE SET s = f(q.y || 'negative')
	WHEN MATCHED THEN UPDATE SET s = f(t.x || q.y)
	WHEN NOT MATCHED THEN INSERT (id, s) VALUES (q.id + 2000, f(q.y || 'new'));
END
$node->safe_psql('postgres', <<'END');
CREATE TABLE source AS SELECT i AS id, 'w' || i AS y FROM generate_series(995, 1002) i;
ANALYZE source;
END
my @merged;
foreach my $setting ('on', 'off')
{
	$node->safe_psql('postgres', <<'END');
UPDATE t SET x = 'v' || id, n = id, s = NULL;
DELETE FROM t WHERE id > 1000;
BEGIN;
UPDATE t SET n = -1 WHERE id = 996;
UPDATE t SET x = 'other' WHERE id = 997;
UPDATE t SET v = 1 WHERE id = 998;
DELETE FROM t WHERE id = 999;
PREPARE TRANSACTION 'writer';
END
	$waiter = start_sql($node, "SET llm_ext.enable_batching = $setting;\n$merge");
	wait_for_lock();
	$node->safe_psql('postgres', "COMMIT PREPARED 'writer'");
	(undef, undef, $err) = finish_sql($waiter);
	is($err, '', "MERGE with rows that are changed meanwhile, batching $setting");
	push @merged, one_value('SELECT id, x, s, n FROM t WHERE id >= 995 ORDER BY id');
	$node->safe_psql('postgres', 'INSERT INTO t (id) VALUES (999)');
}
is($merged[0], $merged[1], 'leaves the same');
like(
	$merged[0],
	qr/^996\|v996\|w996\|-1\n997\|other\|otherw99\|.*^2999\|\|w999\|/ms,
	'with actions and arguments chosen anew');
ok(wait_for_idle($node), 'no slot stays in use');

$node->stop;
done_testing();
