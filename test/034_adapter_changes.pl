# 034_adapter_changes.pl
#	Changes of adapters in transactions of every kind, two at a time, and by
#	users who mean no good.
#
# test/034_adapter_changes.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $vectors = "$FindBin::RealBin/vectors/adapter";
my $node = llm_node('main', conf => 'max_prepared_transactions = 2');

sub sql { return $node->safe_psql('postgres', join(';', @_)) }

# What psql says on standard error.
sub error_of
{
	my ($status, $out, $err) = $node->psql('postgres', join(';', @_));
	return $err;
}

sub answer
{
	my ($adapter, $max_tokens) = @_;
	return "SELECT llm_ask('Hello!', '$adapter', '{\"temperature\": 0, "
	  . "\"ignore_eos\": true, \"max_tokens\": "
	  . ($max_tokens // 6) . "}')";
}

sub active { return sql("SELECT active FROM llm.adapter_names WHERE name = '$_[0]'") }

for my $name ('a', 'b')
{
	sql("SELECT llm_register_adapter('$name', '$vectors/demo_one')",
		"SELECT llm_register_adapter('$name', '$vectors/demo_two', '{\"activate\": false}')");
}
my %says = map { $_ => sql(answer("a\@$_")) } 1, 2;
isnt($says{1}, $says{2}, 'the versions answer differently');

# ---- parts of transactions
my $seen = sql(
	'BEGIN',
	"SELECT llm_activate_adapter('a', 2)",
	'SAVEPOINT s',
	"SELECT llm_register_adapter('a', '$vectors/demo_one')",
	"SELECT llm_register_adapter('c', '$vectors/demo_one')",
	'ROLLBACK TO s',
	"SELECT 'sees ' || (" . answer('a') . ')',
	'COMMIT');
like($seen, qr/^sees \Q$says{2}\E$/m, 'what a savepoint undoes is not used');
is( sql("SELECT string_agg(adapter || version, ' ' ORDER BY adapter, version) "
		  . 'FROM llm.adapter_versions'),
	'a1 a2 b1 b2',
	'and leaves no version');
is(sql(answer('a')), $says{2}, 'the rest of the transaction counts');
like(error_of(answer('c')), qr/adapter "c" does not exist/, 'no adapter, either');
sql('DO $$ BEGIN BEGIN '
	  . "PERFORM llm_activate_adapter('a', 1); RAISE 'x'; "
	  . 'EXCEPTION WHEN raise_exception THEN NULL; END; END $$');
is(active('a'), '2', 'nor does a block that failed');

# ---- two-phase commit
sql('BEGIN', "SELECT llm_activate_adapter('a', 1)",
	"SELECT llm_register_adapter('p', '$vectors/demo_two')",
	"PREPARE TRANSACTION 'publish'");
is(sql(answer('a')), $says{2}, 'a prepared transaction publishes nothing');
$node->stop('immediate');
$node->start;
wait_for_model($node);
is(sql(answer('a')), $says{2}, 'also after a crash');
sql("COMMIT PREPARED 'publish'");
is(sql(answer('a')), $says{1}, 'COMMIT PREPARED does');
is(sql(answer('p')), $says{2}, 'with all that it registered');

# ---- two at a time
my $drop = start_sql($node,
	"BEGIN; SELECT llm_drop_adapter('p'); SELECT pg_advisory_lock(1); "
	  . 'DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) '
	  . 'LOOP PERFORM pg_sleep(0.01); END LOOP; END $$; COMMIT');
wait_for(
	sub { sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") eq '1' },
	'a session to drop an adapter');
is(sql(answer('p')), $says{2}, 'others use it until then');
like(error_of("SELECT llm_activate_adapter('p', 1)"),
	qr/adapter "p" does not exist/, 'a change of it waits, and finds it gone');
is((finish_sql($drop))[2], '', 'and the drop is not disturbed');

# each has changed one and then wants the other's
my @sessions = map {
	my ($mine, $other, $key) = @$_;
	start_sql($node,
		"BEGIN; SELECT llm_activate_adapter('$mine', 2); SELECT pg_advisory_lock($key); "
		  . 'DO $$ BEGIN WHILE (SELECT count(*) FROM pg_locks '
		  . "WHERE locktype = 'advisory') < 2 LOOP PERFORM pg_sleep(0.01); "
		  . "END LOOP; END \$\$; SELECT llm_activate_adapter('$other', 2); COMMIT")
} [ 'a', 'b', 1 ], [ 'b', 'a', 2 ];
my @errors = grep { $_ ne '' } map { (finish_sql($_))[2] } @sessions;
is(scalar @errors, 1, 'of two that wait for each other one fails')
  or diag("@errors");
like($errors[0], qr/deadlock detected/, 'as a deadlock');
is(active('a') . active('b'), '22', 'and the other one counts');

# ---- a request in flight outlives its adapter
my $whole = sql(answer('a', 1500));
my $runner = start_sql($node, answer('a', 1500));
wait_for(
	sub { sql('SELECT count(*) FROM llm.activity WHERE output_tokens > 2') eq '1' },
	'a request to run');
sql("SELECT llm_drop_adapter('a')");
is(sql("SELECT count(*) FROM llm.adapter_tensors WHERE adapter = 'a'"),
	'0', 'an adapter that is in use can be dropped');
my ($status, $out, $err) = finish_sql($runner);
is($out, $whole, 'and the request gets its answer');
like(error_of(answer('a')), qr/adapter "a" does not exist/, 'the next one does not');

# ---- users who mean no good
sql(
	'CREATE ROLE mallory',
	'GRANT CREATE ON SCHEMA public TO mallory',
	'GRANT CREATE, TEMPORARY ON DATABASE postgres TO mallory',
	'SELECT llm_grant_model(name, \'public\') FROM llm.models WHERE is_default',
	'GRANT EXECUTE ON FUNCTION llm_register_adapter(text, json, bytea, jsonb) TO mallory');
sql(<<'END');
SET ROLE mallory;
CREATE FUNCTION public.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN true; END $$;
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.trap);
CREATE FUNCTION public.cardinality(integer[]) RETURNS integer LANGUAGE plpgsql AS
	$$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN 0; END $$;
END
my $trap = <<'END';
SET ROLE mallory;
CREATE TEMP TABLE adapter_names (name text, owner regrole, active int);
CREATE TEMP TABLE adapter_versions (adapter text, version int, rank int);
CREATE FUNCTION pg_temp.array_remove(integer[], integer) RETURNS integer[] LANGUAGE plpgsql AS
	$$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN NULL; END $$;
SET search_path = pg_temp, public, pg_catalog;
END
for my $i (1 .. 3)
{
	sql("SELECT llm_register_adapter('m', '$vectors/demo_one', "
		  . "'{\"activate\": false}')");
}
sql("UPDATE llm.adapter_names SET owner = 'mallory' WHERE name = 'm'");
for my $call (
	"llm_activate_adapter('m', 1)", "llm_activate_adapter('m', 2)",
	"llm_rollback_adapter('m')", "llm_split_adapter('m', 2, 10)",
	"llm_drop_adapter('m', 3)", "llm_grant_adapter('m', 'public')",
	"llm_revoke_adapter('m', 'public')", "llm_drop_adapter('m')")
{
	is(error_of("$trap SELECT $call"), '', "its owner may call $call");
}
is(sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"),
	'f', 'and a search path gives no rights');
for my $call (
	"llm_activate_adapter('b', 1)", "llm_rollback_adapter('b')",
	"llm_drop_adapter('b')", "llm_split_adapter('b', 1, 10)",
	"llm_grant_adapter('b', 'mallory')")
{
	like(error_of("SET ROLE mallory; SELECT $call"),
		qr/must be owner of adapter "b"|permission denied/, "not $call");
}
like(error_of('SET ROLE mallory; ' . answer('b')),
	qr/permission denied for adapter "b"/, 'nor a use');

# names are data wherever they go
my $odd = q{o''; DROP TABLE llm.adapter_names; --};
sql("SELECT llm_register_adapter('$odd', '$vectors/demo_one', '{\"description\": \"\\\\o''\\\"\"}')");
is(sql(answer($odd)), $says{1}, 'a name may hold anything printable');
is(sql("SELECT count(*) > 0 FROM llm_check_adapter('$odd', '{}')"), 't',
	'and is checked under it');
for my $path ('/etc', '/dev/null', '/proc/self', "$vectors/../adapter/none", '/etc/passwd')
{
	like(error_of("SELECT llm_register_adapter('bad', '$path')"),
		qr/could not open file|not a directory|Not a directory/i, "no adapter in $path");
}
is(sql("SELECT count(*) FROM llm.adapter_names WHERE name = 'bad'"), '0',
	'and none half registered');

$node->stop;
done_testing();
