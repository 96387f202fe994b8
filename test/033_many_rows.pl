# 033_many_rows.pl
#	Ten thousand rows: one that cannot be answered, and cancels in the middle.
#
# The executor repeats its prompt.  What the README promises of one bad row
# among many is held against each way to be bad and each on_error.
#
# test/033_many_rows.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_rows = 10000;
my $bad = 6789;
my $fake = llm_fake_executor();
my $dir = llm_model_dir();
my $node = llm_node('main',
	model => "$dir?max_model_len=200",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'demo'");

sub one_value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# The statement in a session of its own: what it printed and complained about.
sub run_script
{
	my ($script) = @_;
	my (undef, $out, $err) =
	  $node->psql('postgres', $script, on_error_stop => 0);
	$err =~ s/^psql:\S+: //mg;
	return ($out, $err);
}

$node->safe_psql('postgres', <<END);
CREATE TABLE t (id int PRIMARY KEY, x text, o jsonb, s text);
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, $n_rows) i;
END

# Make row $bad what it shall be, and all others what they were.
sub poison
{
	my ($set) = @_;
	$node->safe_psql('postgres', <<END);
TRUNCATE t;
INSERT INTO t SELECT i, 'v' || i,
	'{"temperature": 0, "max_tokens": 1, "add_special_tokens": false}'
	FROM generate_series(1, $n_rows) i;
UPDATE t SET $set WHERE id = $bad;
END
	return;
}

my $update = 'UPDATE t SET s = llm_generate(x, NULL, o)';
my $outcome = "SELECT count(s), bool_and((s IS NULL) = (id = $bad)) FROM t";

# [ what is wrong, how, the error, whether on_error null makes it a NULL ]
my @poisons = (
	[ 'a text longer than the context', "x = repeat('long ', 1000)",
		qr/more tokens than the model's context of 200/, 1 ],
	[ 'a request that cannot end in time', 'o = o || \'{"timeout_ms": 1, "model": "slow"}\'',
		qr/timed out|timeout/, 1 ],
	[ 'an option of another type', 'o = o || \'{"max_tokens": "many"}\'',
		qr/max_tokens/, 0 ],
	[ 'an option that does not exist', 'o = o || \'{"no_such_key": 1}\'',
		qr/no_such_key/, 0 ]);

one_value("SELECT llm_load_model('$dir?delay_ms=200', 'slow')");

poison('x = NULL');
foreach my $on_error ('error', 'null')
{
	my ($out, $err) =
	  run_script("SET llm_ext.on_error = '$on_error'; $update; $outcome");
	is($err, '', "a NULL among $n_rows rows, on_error $on_error: no complaint");
	is($out, $n_rows - 1 . '|t', 'it alone has a NULL');
}
foreach my $poison (@poisons)
{
	my ($what, $set, $error, $may_be_null) = @$poison;

	poison($set);
	my ($out, $err) =
	  run_script("SET llm_ext.on_error = error; $update; SELECT count(s) FROM t");
	like($err, $error, "$what, on_error error: the statement fails");
	is(() = $err =~ /ERROR: /g, 1, 'with one error');
	is($out, '0', 'and changes nothing');
	($out, $err) = run_script("SET llm_ext.on_error = 'null'; $update; $outcome");
	like($err, $error, "$what, on_error null: it is named");
	if ($may_be_null)
	{
		is(() = $err =~ /WARNING: /g, 1, 'in one warning');
		is($out, $n_rows - 1 . '|t', 'and its row alone has a NULL');
	}
	else
	{
		is($out, '0|f', 'and the statement fails all the same');
	}
}
ok(wait_for_idle($node), 'all slots were given back');

# A budget that is used up is nobody's NULL.
poison('x = x');
my (undef, $complaint) = run_script(
	"SET llm_ext.max_tokens_per_statement = 5000; SET llm_ext.on_error = 'null'; $update");
like($complaint, qr/ERROR:.*the statement used more than 5000 tokens/,
	'too many tokens end the statement under on_error null, too');

# --------------------------------------------------------------- cancel

$node->safe_psql('postgres',
	'UPDATE t SET o = o || \'{"model": "slow", "max_tokens": 100, "ignore_eos": true}\'');
foreach my $round (1 .. 5)
{
	my $session = start_sql($node, "\\set ON_ERROR_STOP 0\n$update;\n"
		  . "SELECT count(s), count(*) FROM t;\n"
		  . "SELECT llm_generate('next', NULL, '{\"model\": \"demo\", \"max_tokens\": 1}') IS NOT NULL;\n");
	wait_for(
		sub { one_value('SELECT count(*) FROM llm.activity') >= 200 },
		'a full window');
	cancel_sql($session);
	my (undef, $out, $err) = finish_sql($session);
	like($err, qr/canceling statement due to user request/, "cancel $round");
	is($out, "0|$n_rows\nt", 'no row is changed, and the next statement works');
	ok(wait_for_idle($node), 'all slots are free');
}
ok( wait_for(
		sub {
			return one_value(
				'SELECT sum(running + waiting + kv_blocks_used) FROM llm.executors'
			) eq '0';
		},
		'the executors to be idle'),
	'the executors hold nothing');

$node->stop;
done_testing();
