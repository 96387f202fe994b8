# 020_executor_death.pl
#	Executors that die: requests resume with unchanged answers, a harmful one
#	is failed alone, and a model that cannot be started again says so.
#
# The executor without a model answers by repeating the prompt, so a right
# answer is known however often it was interrupted.
#
# test/020_executor_death.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $fake = llm_fake_executor();
my $dir = llm_model_dir();
my $node = llm_node('main',
	model => "$dir?delay_ms=10",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'main'");

# An answer of the executor without a model.
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION answer(prompt int[], max_tokens int, model text DEFAULT 'main')
	RETURNS text LANGUAGE sql VOLATILE AS $$
		SELECT llm_completion(json_build_object('model', model, 'prompt', prompt,
			   'max_tokens', max_tokens, 'ignore_eos', true,
			   'return_token_ids', true))
			   #>> '{choices,0,token_ids}'
	$$;
	CREATE FUNCTION expected(prompt int[], max_tokens int) RETURNS text
	LANGUAGE sql IMMUTABLE AS $$
		SELECT json_agg(prompt[1 + (i - 1) % cardinality(prompt)] ORDER BY i)::jsonb::text
		FROM generate_series(1, max_tokens) i
	$$;
	CREATE TABLE answers (id int, ok boolean);
});

sub metric
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT value FROM llm.metrics WHERE name = '$name'");
}

# So many sessions, each with one request of 300 tokens.
sub start_sessions
{
	my ($n_sessions, $model) = @_;
	my @sessions;

	$node->safe_psql('postgres', 'TRUNCATE answers');
	foreach my $id (1 .. $n_sessions)
	{
		push @sessions, start_sql($node, <<END);
INSERT INTO answers SELECT $id,
	answer(ARRAY[$id, 7, 100 + $id], 300, '$model')::jsonb =
	expected(ARRAY[$id, 7, 100 + $id], 300)::jsonb;
END
	}
	return @sessions;
}

sub n_running
{
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM llm.activity WHERE state = 'running' AND output_tokens > 20");
}

sub finish_all
{
	my $n_failed = 0;
	foreach my $session (@_)
	{
		my ($status, $out, $err) = finish_sql($session);
		$n_failed++ if $status != 0;
		diag($err) if $status != 0;
	}
	return $n_failed;
}

is($node->safe_psql('postgres', 'SELECT answer(ARRAY[5, 6, 7], 8)'),
	$node->safe_psql('postgres', 'SELECT expected(ARRAY[5, 6, 7], 8)'),
	'the executor without a model answers');

# ---- killed in the middle, twice
my $postmaster = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $scheduler = scheduler_pid($node);
my @sessions = start_sessions(32, 'main');
wait_for(sub { return n_running() == 32 }, '32 requests to run');
foreach my $round (1 .. 2)
{
	my $pid = executor_pid($node);
	kill 'KILL', $pid;
	wait_until_gone($pid);
	wait_for(
		sub {
			return $node->safe_psql('postgres',
				"SELECT count(*) FROM llm.executors WHERE state = 'ready'") eq '1';
		},
		'an executor to be ready again');
	sleep 0.5;
}
is(finish_all(@sessions), 0, 'no statement fails when executors are killed');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM answers WHERE ok'),
	'32',
	'all answers are unchanged');
is(metric('executor_deaths'), '2', 'two deaths were counted');
cmp_ok(metric('requests_resumed'), '>=', 32, 'requests were resumed');
is(scheduler_pid($node), $scheduler, 'the scheduler is still the same');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'),
	$postmaster, 'the server was not restarted');
is( $node->safe_psql('postgres',
		'SELECT restarts FROM llm.executors'),
	'2',
	'the view counts restarts');

# ---- a request that kills executors, among others
$node->safe_psql('postgres',
	"SET llm_ext.debug_crash_token = 999; "
	  . "SELECT llm_load_model('$dir?delay_ms=10', 'poisoned')");
@sessions = start_sessions(8, 'poisoned');
my $poison = start_sql($node, "SELECT answer(ARRAY[1, 999, 3], 10, 'poisoned')");
my ($status, $out, $err) = finish_sql($poison);
like($err, qr/the executor died twice while serving this request/,
	'a request that kills its executor fails with its own error');
is(finish_all(@sessions), 0, 'the requests beside it do not');
is($node->safe_psql('postgres', 'SELECT count(*) FROM answers WHERE ok'),
	'8', 'and have the right answers');
cmp_ok(
	$node->safe_psql('postgres',
		"SELECT restarts FROM llm.executors WHERE model = 'poisoned'"),
	'<=', 3, 'three deaths are enough to find out');
is( $node->safe_psql('postgres',
		"SELECT answer(ARRAY[4], 3, 'poisoned')"),
	$node->safe_psql('postgres', 'SELECT expected(ARRAY[4], 3)'),
	'the model serves on');
$node->safe_psql('postgres', "SELECT llm_unload_model('poisoned')");

# ---- nonsense on the channel
$node->safe_psql('postgres',
	"SELECT llm_load_model('$dir?garbage=77', 'garbage')");
($status, $out, $err) =
  $node->psql('postgres', "SELECT answer(ARRAY[77], 3, 'garbage')");
like($err, qr/the executor died twice/,
	'an executor that breaks the protocol is taken for dead');
is($node->safe_psql('postgres', "SELECT answer(ARRAY[7], 1, 'garbage')"),
	'[7]', 'and its successor serves');
$node->safe_psql('postgres', "SELECT llm_unload_model('garbage')");

# ---- an executor that hangs
$node->safe_psql('postgres', "SELECT llm_load_model('$dir?hang=77', 'hanging')");
($status, $out, $err) = $node->psql('postgres',
	"SET llm_ext.request_timeout = '300ms'; SELECT answer(ARRAY[77], 3, 'hanging')");
like($err, qr/did not finish within its time limit/,
	'a request ends at its deadline though the executor hangs');
($status, $out, $err) = $node->psql('postgres',
	"SET statement_timeout = '300ms'; SELECT answer(ARRAY[7], 3, 'hanging')");
like($err, qr/statement timeout/, 'and at the statement timeout');
my ($hanging) = grep { process_name($_) =~ /hanging/ } executor_pids($node);
kill 'KILL', $hanging;
wait_until_gone($hanging);
is($node->safe_psql('postgres', "SELECT answer(ARRAY[7], 1, 'hanging')"),
	'[7]', 'a new executor serves');

# ---- one that hangs is noticed
$node->safe_psql('postgres', "ALTER SYSTEM SET llm_ext.executor_timeout = '1s'");
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
($status, $out, $err) =
  $node->psql('postgres', "SELECT answer(ARRAY[77], 3, 'hanging')");
like($err, qr/the executor died twice while serving this request/,
	'a request that hangs its executor is failed');
is($node->safe_psql('postgres', "SELECT answer(ARRAY[7], 1, 'hanging')"),
	'[7]', 'and a new executor serves again');

# ---- nothing is left
wait_for_idle($node);
is(metric('request_slots_free'), metric('request_slots'), 'every slot is free');
$node->stop;
done_testing();
