# 031_batching_random.pl
#	Statements made at random give the same with batching as without it: rows,
#	order, errors, what tables hold afterwards; and never more requests.
#
# The executor repeats its prompt, so that thousands of calls take seconds.
# LLM_TEST_SEED and LLM_TEST_STATEMENTS choose other statements, and more.
#
# test/031_batching_random.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{LLM_TEST_SEED} || 1;
my $n_statements = $ENV{LLM_TEST_STATEMENTS} || 400;
my $fake = llm_fake_executor();
my $node = llm_node('main', conf => "llm_ext.executor_path = '$fake'\nautovacuum = off");

$node->safe_psql('postgres', <<'END');
CREATE TABLE d1 (id int PRIMARY KEY, x text, g int, flag bool, n int);
INSERT INTO d1 SELECT i, 'v' || i, i % 7, i % 3 = 0,
	CASE WHEN i % 5 <> 0 THEN i % 9 END FROM generate_series(1, 40) i;
CREATE TABLE d2 (id int, y text);
INSERT INTO d2 SELECT i % 40 + 1, 'w' || i FROM generate_series(1, 60) i;
CREATE TABLE part (id int, x text, g int, flag bool, n int) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (20);
CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (20) TO (100);
INSERT INTO part SELECT * FROM d1;
CREATE TABLE u (id int PRIMARY KEY, x text, g int, flag bool, n int, s text, s2 text);
INSERT INTO u SELECT *, 'old', NULL FROM d1;
-- partitions whose columns lie elsewhere, and a trigger that changes rows
CREATE TABLE pu (id int, x text, g int, flag bool, n int, s text) PARTITION BY LIST (g);
CREATE TABLE pu1 (s text, gone int, id int, n int, g int, flag bool, x text);
ALTER TABLE pu1 DROP COLUMN gone;
ALTER TABLE pu ATTACH PARTITION pu1 FOR VALUES IN (0, 2, 4, 6);
CREATE TABLE pu2 PARTITION OF pu DEFAULT;
INSERT INTO pu SELECT *, 'old' FROM d1;
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.id % 9 = 0 THEN RETURN NULL; END IF;
	new.s := concat(new.s, '!');
	RETURN new;
END $$;
CREATE TRIGGER change BEFORE INSERT OR UPDATE ON pu FOR EACH ROW EXECUTE FUNCTION change();
-- inherited, with a column more; views of both kinds
CREATE TABLE iu (id int, x text, g int, flag bool, n int, s text);
CREATE TABLE iu1 (more int) INHERITS (iu);
INSERT INTO iu SELECT *, 'old' FROM d1 WHERE id % 2 = 0;
INSERT INTO iu1 SELECT *, 'old', id FROM d1 WHERE id % 2 = 1;
CREATE TABLE base (id int, x text, g int, flag bool, n int, s text);
INSERT INTO base SELECT *, 'old' FROM d1;
CREATE VIEW vu AS SELECT id, x, g, flag, n, s, x || g AS y FROM base WHERE id < 35;
CREATE VIEW wu AS SELECT id, x, g, flag, n, s FROM base;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF tg_op = 'DELETE' THEN
		DELETE FROM base WHERE id = old.id;
		RETURN old;
	ELSIF tg_op = 'INSERT' THEN
		INSERT INTO base SELECT new.*;
		RETURN new;
	END IF;
	new.s := concat(new.s, '?');
	UPDATE base SET s = new.s WHERE id = old.id;
	RETURN new;
END $$;
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON wu
	FOR EACH ROW EXECUTE FUNCTION instead();
-- how far the statement has come, which a volatile function sees
CREATE FUNCTION progress() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN RETURN (SELECT count(*) FROM u WHERE s = 'old') +
	(SELECT count(*) FROM pu WHERE s = 'old'); END $$;
CREATE TABLE log (seq serial, line text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log (line) VALUES (concat_ws(' ', tg_op, new.id, new.s));
	RETURN new;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION note();
CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql AS $$
	SELECT llm_generate(a, NULL,
		'{"temperature": 0, "max_tokens": 6, "add_special_tokens": false}') $$;
-- too long a prompt is an error of the row
CREATE FUNCTION f_or_null(a text) RETURNS text LANGUAGE sql AS $$
	SELECT llm_generate(a, NULL, '{"temperature": 0, "max_tokens": 6,
		"add_special_tokens": false, "on_error": "null"}') $$;
CREATE FUNCTION twice(a text) RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN RETURN a || a; END $$;
CREATE FUNCTION twice_volatile(a text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN a || a; END $$;
ANALYZE;
END

# ------------------------------------------------------------ at random

srand($seed);

sub pick
{
	return $_[ int(rand(@_)) ];
}

# In a frame with the columns id, x, g, flag, n of the table named so.
my $table;

sub text_expr
{
	my ($depth) = @_;
	return pick("$table.x", "$table.x || $table.g", "$table.n::text",
		"'word'", "twice($table.x)", "'k' || $table.id % 4")
	  if $depth <= 0;
	my $inner = sub { return text_expr($depth - 1) };
	return pick(
		sub { 'f(' . $inner->() . ')' },
		sub { 'f(' . $inner->() . ')' },
		sub { 'f(' . $inner->() . ')' },
		sub { 'f_or_null(' . $inner->() . ')' },
		sub { 'upper(' . $inner->() . ')' },
		sub { $inner->() . ' || ' . $inner->() },
		sub {
			'CASE WHEN ' . bool_expr($depth - 1) . ' THEN ' . $inner->()
			  . ' WHEN ' . bool_expr($depth - 1) . ' THEN ' . $inner->()
			  . pick('', ' ELSE ' . $inner->()) . ' END';
		},
		sub {
			"CASE $table.g WHEN 1 THEN " . $inner->()
			  . ' WHEN 2 THEN ' . $inner->() . ' ELSE ' . $inner->() . ' END';
		},
		sub { "CASE WHEN $table.n > 0 THEN f((100 / $table.n)::text) END" },
		sub { "f((60 / ($table.n + " . int(rand(12)) . "))::text)" },
		sub { 'coalesce(' . $inner->() . ', ' . $inner->() . ')' },
		sub { "nullif(" . $inner->() . ", 'v3')" },
		sub { 'greatest(' . $inner->() . ", 'v2')" },
		sub { '(ARRAY[' . $inner->() . ', ' . $inner->() . "])[1 + $table.id % 2]" },
		sub { 'twice_volatile(' . $inner->() . ')' },
		sub { 'f(twice_volatile(' . $inner->() . '))' },
		sub {
			"f((SELECT string_agg(d2.y, ' ' ORDER BY d2.y) FROM d2 "
			  . "WHERE d2.id = $table.id))";
		},
		sub { "f(nullif($table.x, 'v7'))" },
	)->();
}

sub bool_expr
{
	my ($depth) = @_;
	return pick("$table.flag", "$table.g < 4", "$table.n IS NULL",
		"$table.id % 2 = 0", 'true', "$table.n > 3")
	  if $depth <= 0;
	return pick(
		sub { bool_expr($depth - 1) . ' AND ' . bool_expr($depth - 1) },
		sub { '(' . bool_expr($depth - 1) . ' OR ' . bool_expr($depth - 1) . ')' },
		sub { 'NOT (' . bool_expr($depth - 1) . ')' },
		sub { 'length(' . text_expr($depth) . ') % 2 = 0' },
		sub { text_expr($depth) . pick(" LIKE '%1%'", " <> 'x'", ' IS NOT NULL') },
		sub { text_expr($depth) . " IN ('v1', 'v2v2v2', 'w')" },
	)->();
}

sub where
{
	return pick('', ' WHERE ' . bool_expr(2), ' WHERE ' . bool_expr(1));
}

sub limit
{
	return pick('', '', ' LIMIT ' . int(rand(20)),
		' OFFSET ' . int(rand(30)) . ' LIMIT 5',
		' FETCH FIRST 3 ROWS WITH TIES');
}

sub select_rows
{
	$table = pick('d1', 'd1', 'part');
	return "SELECT $table.id, " . text_expr(2) . ' AS s, ' . text_expr(1)
	  . " AS s2 FROM $table" . where() . " ORDER BY $table.id" . limit();
}

my @queries = (
	\&select_rows,
	\&select_rows,
	\&select_rows,
	sub {
		$table = 'd1';
		return 'SELECT d1.id, d2.y, ' . text_expr(2) . ' FROM d1 '
		  . pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN')
		  . ' d2 ON d1.id = d2.id'
		  . ' ORDER BY 1, 2';
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id, d2.y FROM d1 ' . pick('JOIN', 'LEFT JOIN')
		  . ' d2 ON d1.id = d2.id AND ' . bool_expr(2) . ' ORDER BY 1, 2';
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.g, string_agg(' . text_expr(2) . ", ',' ORDER BY d1.id)"
		  . pick('', ' FILTER (WHERE ' . bool_expr(1) . ')')
		  . ', count(*) FROM d1' . where() . ' GROUP BY d1.g'
		  . pick('', ' HAVING max(' . text_expr(1) . ") <> 'zz'")
		  . ' ORDER BY d1.g';
	},
	sub {
		return "SELECT g, f(string_agg(x, ' ' ORDER BY id)) FROM d1 "
		  . 'GROUP BY ' . pick('g', 'ROLLUP (g)') . ' ORDER BY g';
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id, ' . text_expr(1) . ', '
		  . pick('max', 'min', 'first_value') . '(' . text_expr(1)
		  . ') OVER (PARTITION BY d1.g ORDER BY d1.id) FROM d1'
		  . where() . ' ORDER BY d1.id';
	},
	sub {
		return 'SELECT q.id, q.s, length(q.s), f(q.s) FROM ('
		  . select_rows() . ') q WHERE length(q.s) > 2 ORDER BY q.id'
		  . pick('', ' LIMIT 4');
	},
	sub { return 'WITH c AS ' . pick('', 'MATERIALIZED ') . '('
		  . select_rows() . ') SELECT a.id, f(b.s) FROM c a JOIN c b USING (id) '
		  . 'ORDER BY 1, 2'; },
	sub { return '(' . select_rows() . ') UNION ' . pick('', 'ALL ')
		  . '(' . select_rows() . ') ORDER BY 1, 2, 3'; },
	sub {
		$table = 'd1';
		return 'SELECT d1.id, l.s, l.t FROM d1 ' . pick('', 'LEFT ')
		  . 'JOIN LATERAL (SELECT ' . text_expr(2) . ' AS s, ' . text_expr(1)
		  . " AS t) l ON " . pick('true', "l.s > 'v2'") . where()
		  . ' ORDER BY d1.id' . limit();
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id, w FROM d1, '
		  . pick('unnest', 'LATERAL unnest') . "(string_to_array("
		  . text_expr(2) . ", '1')) WITH ORDINALITY AS w(w, o) ORDER BY d1.id, o";
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id, unnest(ARRAY[' . text_expr(1) . ', '
		  . text_expr(1) . ']) FROM d1' . where() . ' ORDER BY d1.id, 2';
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id FROM d1 WHERE ' . pick('', 'NOT ')
		  . 'EXISTS (SELECT FROM d2 WHERE d2.id = d1.id AND f(d2.y) '
		  . pick("> 'w3'", "<> f(d1.x)") . ') ORDER BY 1';
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id FROM d1 WHERE ' . text_expr(1)
		  . pick(' IN ', ' NOT IN ')
		  . '(SELECT f(y) FROM d2 WHERE y IS NOT NULL) ORDER BY 1';
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id, (SELECT f(max(y)) FROM d2 WHERE d2.id = d1.id), '
		  . text_expr(1) . ' FROM d1 ORDER BY d1.id' . limit();
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id FROM d1' . where() . ' ORDER BY '
		  . text_expr(2) . ', d1.id' . pick('', ' LIMIT 5');
	},
	sub {
		$table = 'd1';
		return 'SELECT DISTINCT ' . text_expr(1) . ' AS s FROM d1 ORDER BY s';
	},
	sub { return 'SELECT d1, f(x), ctid, tableoid::regclass FROM d1 ORDER BY id'; },
	sub {
		$table = 'a';
		return 'SELECT a.id, b.id FROM d1 a JOIN d1 b ON b.id = a.n WHERE '
		  . bool_expr(2) . ' ORDER BY 1, 2';
	},
);

# In VALUES, with the columns of $table where that is set.
sub value_expr
{
	my ($depth, $lateral) = @_;
	return pick("'a'", "'b' || 'c'", 'NULL', "'k" . int(rand(4)) . "'",
		"twice('q')", '(SELECT max(y) FROM d2)',
		$lateral ? ("$table.x", "$table.n::text") : ())
	  if $depth <= 0;
	my $inner = sub { return value_expr($depth - 1, $lateral) };
	return pick(
		sub { 'f(' . $inner->() . ')' },
		sub { 'f(' . $inner->() . ')' },
		sub { 'f(' . $inner->() . ')' },
		sub { 'upper(' . $inner->() . ')' },
		sub { $inner->() . ' || ' . $inner->() },
		sub { 'coalesce(' . $inner->() . ', ' . $inner->() . ')' },
		sub { "CASE WHEN length(" . $inner->() . ") % 2 = 0 THEN " . $inner->() . ' ELSE ' . $inner->() . ' END' },
		sub { 'twice_volatile(' . $inner->() . ')' },
		sub { 'f(twice_volatile(' . $inner->() . '))' },
		sub { 'progress()::text' },
		$inner,
	)->();
}

# Rows that resemble each other, or do not.
sub values_rows
{
	my ($lateral) = @_;
	my $alike = rand() < 0.5;
	my $n = 2 + int(rand(5));
	return 'VALUES ' . join ', ', map {
		my $first = $alike ? "f('v$_' || 'x')" : value_expr(2, $lateral);
		"($_ + 500, $first, " . ($alike ? "'w'" : value_expr(1, $lateral)) . ')'
	} 1 .. $n;
}

# What the statement returns of the rows of $table that it has written.
sub returning
{
	my @columns = map {
		pick(sub { text_expr(2) },
			sub { text_expr(1) },
			sub { "$table.id" },
			sub { "$table.s" },
			sub { "f($table.s)" },
			sub { $table },
			sub { "f($table\::text)" },
			sub { $table =~ /^[vw]u/ ? "$table.id" : "$table.tableoid::regclass" },
			sub { 'progress()' },
			sub { text_expr(1) . ' || progress()' })->()
	} 1 .. 1 + int(rand(4));
	return ' RETURNING ' . join(', ', @columns);
}

# A table to write to, with the columns of the others and s.
sub target
{
	return $table = pick(qw(u u pu pu iu vu wu));
}

push @queries, (
	sub { return 'SELECT a, b, c FROM (' . values_rows() . ') v (a, b, c)'; },
	sub {
		return 'SELECT a, f(b), length(b), v FROM (' . values_rows()
		  . ") v (a, b, c) WHERE a <> 502 AND b > 'a'" . limit();
	},
	sub {
		$table = 'd1';
		return 'SELECT d1.id, v.b FROM d1, LATERAL (' . values_rows(1)
		  . ') v (a, b, c) ORDER BY d1.id, v.a';
	});

my @changes = (
	sub {
		my $t = target();
		return "UPDATE $t SET s = " . text_expr(1) . where() . returning();
	},
	sub {
		my $t = target();
		return "UPDATE $t SET s = $t.x, g = $t.g + 1" . where() . returning();
	},
	sub {
		my $t = target();
		return "UPDATE $t SET s = d2.y FROM d2 WHERE d2.id = $t.id "
		  . "AND d2.y < 'w3' AND " . bool_expr(1) . returning() . ', f(d2.y), d2';
	},
	sub { my $t = target(); return "DELETE FROM $t" . where() . returning(); },
	sub {
		my $t = target();
		return "DELETE FROM $t USING d2 WHERE d2.id = $t.id" . returning()
		  . ', f(d2.y)';
	},
	sub {
		my $t = target();
		my $rows = select_rows();
		$table = $t;
		return "INSERT INTO $t (id, x, g, n, s) SELECT q.id + 100, q.s2, "
		  . "q.id % 5, q.id % 3, q.s FROM ($rows) q" . returning();
	},
	sub {
		my $rows = select_rows();
		$table = 'u';
		return "INSERT INTO u (id, x, s) SELECT q.id + 30, q.s2, q.s FROM ($rows) q "
		  . 'ON CONFLICT (id) DO UPDATE SET s = excluded.s || '
		  . pick('u.x', 'f(u.x)') . returning();
	},
	sub {
		my $t = target();
		return "INSERT INTO $t (id, x, s) " . values_rows()
		  . pick('', returning());
	},
	sub {
		my $t = target();
		return "INSERT INTO $t (id, x, s) " . values_rows()
		  . pick('', returning());
	},
	sub {
		my $t = target();
		my $change = "UPDATE $t SET s = 'new'" . where() . " RETURNING $t.id, "
		  . text_expr(1) . ' AS s, ' . text_expr(1) . ' AS s2';
		return "WITH c AS ($change) SELECT id, f(s || 'z'), s2 FROM c ORDER BY id";
	},
	sub { $table = 'u'; return 'UPDATE u SET s = ' . text_expr(2) . where(); },
	sub {
		$table = 'u';
		return 'UPDATE u SET (s, s2) = (' . text_expr(1) . ', ' . text_expr(1)
		  . ')' . where() . ' RETURNING id, s, f(s2)';
	},
	sub {
		$table = 'u';
		return 'UPDATE u SET s = d2.y || ' . text_expr(1)
		  . " FROM d2 WHERE d2.id = u.id AND d2.y < 'w3' AND " . bool_expr(2);
	},
	sub { return 'UPDATE u SET s = q.s FROM (' . select_rows()
		  . ') q WHERE q.id = u.id'; },
	sub { return 'INSERT INTO u (id, s, s2) SELECT q.id + '
		  . pick(0, 30, 100) . ', q.s, f(q.s2) FROM (' . select_rows()
		  . ') q ON CONFLICT ' . pick('DO NOTHING',
			'(id) DO UPDATE SET s = excluded.s',
			'(id) DO UPDATE SET s = f(excluded.s) || u.x'); },
	sub { $table = 'u'; return 'DELETE FROM u' . where()
		  . pick('', ' RETURNING id, f(x)'); },
	sub { return 'MERGE INTO u USING (' . select_rows()
		  . ') q ON u.id = q.id + ' . pick(0, 20)
		  . ' WHEN MATCHED AND u.flag THEN UPDATE SET s = q.s'
		  . ' WHEN MATCHED THEN ' . pick('DELETE', 'UPDATE SET s2 = f(q.s)')
		  . ' WHEN NOT MATCHED THEN INSERT (id, s) VALUES (q.id + 50, q.s)'; },
	sub {
		my $t = pick(qw(u u pu iu));
		my $clauses = join '', map {
			my $last = $_ == 2;
			my $both = sub {
				join ' || ', map { $table = $_; text_expr(1) } $t, 'q';
			};
			my $condition = sub { $table = pick($t, 'q'); return bool_expr(pick(0, 1)) };
			' WHEN MATCHED' . ($last ? '' : ' AND ' . $condition->()) . ' THEN '
			  . pick('DELETE', 'DO NOTHING', 'UPDATE SET s = ' . $both->(),
				'UPDATE SET s = ' . $both->(), 'UPDATE SET x = ' . $both->() . ", s = 'plain'")
		} 0 .. 2;
		$table = 'q';
		$clauses .= ' WHEN NOT MATCHED AND ' . bool_expr(pick(0, 1))
		  . " THEN INSERT (id, g, s) VALUES (q.id + 100, q.g, " . text_expr(2) . ')'
		  if rand() < 0.5;
		$clauses .= ' WHEN NOT MATCHED THEN '
		  . pick('DO NOTHING', 'INSERT (id, x, s) VALUES (q.id + 100, q.x, ' . text_expr(2) . ')')
		  if rand() < 0.7;
		return "MERGE INTO $t USING d1 q ON $t.id = q.id + " . pick(0, 20) . $clauses;
	},
	sub { return 'WITH c AS (UPDATE u SET s = f(x) WHERE id < 9 RETURNING *) '
		  . "SELECT id, f(s || 'z') FROM c ORDER BY id"; },
	sub { return 'CREATE TABLE made AS ' . select_rows() . ";\n"
		  . 'SELECT * FROM made ORDER BY id'; },
);

# The statements of one case, and whether they may stop early.
sub make_case
{
	if (rand() < 0.25)
	{
		my $change = pick(@changes)->();
		my $others = $change =~ /\b([pi]u)\b/ ? "SELECT * FROM $1 ORDER BY id;\n"
		  : $change =~ /\b[vw]u\b/ ? "SELECT * FROM base ORDER BY id;\n" : '';
		return "BEGIN;\n$change;\n$others"
		  . "SELECT * FROM u ORDER BY id;\nSELECT line FROM log ORDER BY seq;\n"
		  # plans follow what tables hold, dead rows included
		  . "ROLLBACK;\nVACUUM u, pu, iu, iu1, base, log;\n";
	}
	my $query = pick(@queries)->();
	return "$query;\n" if rand() < 0.8;
	my $fetches = join '',
	  map { 'FETCH ' . (1 + int(rand(12))) . " FROM c;\n" } 1 .. 3;
	return "BEGIN;\nDECLARE c " . pick('NO SCROLL ', '')
	  . "CURSOR FOR $query;\n${fetches}MOVE 3 FROM c;\nFETCH 2 FROM c;\nROLLBACK;\n"
	  if rand() < 0.6;
	return "BEGIN;\nDECLARE c SCROLL CURSOR FOR $query;\n$fetches"
	  . "FETCH BACKWARD 3 FROM c;\nFETCH ABSOLUTE 1 FROM c;\n"
	  . "FETCH LAST FROM c;\nROLLBACK;\n";
}

my @cases = map { make_case() } 1 .. $n_statements;

# ------------------------------------------------------------------ runs

# Run all cases in one session: what each printed, and its requests.
sub run_cases
{
	my ($setting) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$setting->[0].sql";
	my $count = "\\echo =count=\nSELECT value FROM llm.metrics "
	  . "WHERE name = 'requests';\n\\echo =case=\n";
	my $script = "\\pset format unaligned\n\\pset null NULL\n"
	  . "SET client_min_messages = warning;\n$setting->[1]\n$count";

	$script .= "$_$count" foreach @cases;
	append_to_file($file, $script);
	$node->safe_psql('postgres', "VACUUM FULL $_") foreach qw(u pu iu iu1 base log);
	$node->safe_psql('postgres', 'ANALYZE');
	my $connection = $node->connstr('postgres');
	my $output = `psql -X -q -t -d "$connection" -f "$file" 2>&1`;
	my (@printed, @requests);
	my $before = 0;
	foreach my $part (split /^=case=\n/m, $output)
	{
		my ($printed, $n) = $part =~ /\A(.*)^=count=\n(\d+)\n\z/ms
		  or die "unexpected output: $part";
		# file and line differ
		$printed =~ s/^psql:\S+: //mg;
		push @printed, $printed;
		push @requests, $n - $before;
		$before = $n;
	}
	shift @printed;
	shift @requests;
	return (\@printed, \@requests);
}

my ($plain, $plain_requests) =
  run_cases([ 'plain', 'SET llm_ext.enable_batching = off;' ]);
my @settings = (
	[ 'batched', '' ],
	[ 'narrow', "SET llm_ext.batch_rows = 3;\nSET work_mem = '64kB';" ],
	[ 'torture', 'SET llm_ext.debug_wrap_plans = on;' ]);

my $n_errors = grep { /ERROR:/ } @$plain;
my $n_asking = grep { $_ > 0 } @$plain_requests;
cmp_ok($n_asking, '>', 0.7 * $n_statements, 'most statements ask the model');
cmp_ok($n_errors, '<', 0.4 * $n_statements, 'most statements succeed');
note("$n_errors of $n_statements fail, $n_asking ask the model");

foreach my $setting (@settings)
{
	my ($printed, $requests) = run_cases($setting);
	my ($n_different, $n_more) = (0, 0);

	foreach my $i (0 .. $#cases)
	{
		# calls of rows that OFFSET skips are not made: nor do they fail
		next if $cases[$i] =~ /OFFSET/ && $plain->[$i] =~ /ERROR:/;
		# and what is read ahead of a LIMIT may fail before the LIMIT is met
		next if $setting->[0] eq 'torture' && $cases[$i] =~ /LIMIT|FETCH|EXISTS/
		  && $printed->[$i] =~ /ERROR:/;
		if ($printed->[$i] ne $plain->[$i])
		{
			$n_different++;
			diag("$setting->[0]:\n$cases[$i]-- plain:\n$plain->[$i]"
				  . "-- $setting->[0]:\n$printed->[$i]")
			  if $n_different <= 3;
		}

		# what may stop early may have asked ahead
		next if $cases[$i] =~ /LIMIT|FETCH|EXISTS| IN \(SELECT/;
		next if $plain->[$i] =~ /ERROR:/;
		next if $requests->[$i] <= $plain_requests->[$i];
		$n_more++;
		diag("$setting->[0]: $requests->[$i] requests instead of "
			  . "$plain_requests->[$i]:\n$cases[$i]")
		  if $n_more <= 3;
	}
	is($n_different, 0, "$setting->[0]: all statements give the same");
	is($n_more, 0, "$setting->[0]: no statement asks for more");
}
ok(wait_for_idle($node), 'no slot stays in use');

$node->stop;
done_testing();
