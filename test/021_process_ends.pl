# 021_process_ends.pl
#	Ends of processes: the scheduler, backend processes, the server.  Errors
#	are clean, the next statement works, nobody and nothing is left behind.
#
# test/021_process_ends.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fake = llm_fake_executor();
my $dir = llm_model_dir();
my @segments_before = shared_segments();
my $node = llm_node('main',
	model => "$dir?delay_ms=5",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'main'\n"
	  . "restart_after_crash = on");

my $endless = q{SELECT llm_completion('{"prompt": [1, 2, 3], "max_tokens": 90000,
	"n": 4, "ignore_eos": true}')};
my $short = q{SELECT llm_completion('{"prompt": [1, 2, 3], "max_tokens": 4,
	"return_token_ids": true}') #>> '{choices,0,token_ids}'};

sub n_running
{
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM llm.activity WHERE state = 'running'");
}

sub start_running
{
	my ($n_sessions) = @_;
	my @sessions = map { start_sql($node, $endless) } 1 .. $n_sessions;
	wait_for(sub { return n_running() == 4 * $n_sessions }, 'requests to run');
	return @sessions;
}

is($node->safe_psql('postgres', $short), '[1, 2, 3, 1]', 'the model answers');

# ---- a session that is terminated, cancelled, or loses its client
my ($session) = start_running(1);
my $pid = session_pid($session);
my $wait_event = $node->pg_version >= 17 ? 'LlmTokens' : 'Extension';
wait_for(
	sub {
		return $node->safe_psql('postgres',
			"SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") eq
		  $wait_event;
	},
	"the wait event $wait_event");
pass('the wait is shown by name where the server has names');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
my ($status, $out, $err) = finish_sql($session);
like($err, qr/terminating connection/, 'a session can be terminated');
wait_for_idle($node, 10);
pass('and its slots are given back');

($session) = start_running(1);
cancel_sql($session);
($status, $out, $err) = finish_sql($session);
like($err, qr/canceling statement due to user request/,
	'a statement can be cancelled');
wait_for_idle($node, 10);
pass('and its slots are given back');

($session) = start_running(1);
$pid = session_pid($session);
kill_client($session);
wait_until_gone($pid, 20);
wait_for_idle($node, 10);
pass('a session notices that its client has gone');

# ---- an aborted subtransaction
is( $node->safe_psql(
		'postgres', qq{
	SET statement_timeout = 0;
	DO \$\$
	BEGIN
		FOR i IN 1 .. 50 LOOP
			BEGIN
				PERFORM llm_completion('{"prompt": [1, 2, 3], "max_tokens": 90000,
					"timeout_ms": 20}');
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		END LOOP;
	END \$\$;
	SELECT count(*) FROM llm.activity}),
	'0',
	'caught errors hold no slots');

# ---- the scheduler is terminated
my $scheduler = scheduler_pid($node);
my @executors = executor_pids($node);
my @sessions = start_running(3);
my $postmaster_start =
  $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
kill 'TERM', $scheduler;
foreach my $i (0 .. $#sessions)
{
	($status, $out, $err) = finish_sql($sessions[$i]);
	like($err, qr/the scheduler was restarted/,
		"session $i gets a clean error when the scheduler ends");
}
is($node->safe_psql('postgres', $short),
	'[1, 2, 3, 1]', 'the next statement waits for the new one and works');
isnt(scheduler_pid($node), $scheduler, 'there is a new scheduler');
wait_until_gone($_, 10) foreach @executors;
pass('the executors ended with the old one');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'),
	$postmaster_start, 'the server was not restarted');
wait_for_idle($node, 10);

# ---- what was loaded by hand comes back as well
$node->safe_psql('postgres', "SELECT llm_load_model('$dir', 'second')");
$scheduler = scheduler_pid($node);
kill 'TERM', $scheduler;
wait_until_gone($scheduler);
is( $node->safe_psql('postgres',
		q{SELECT llm_completion('{"model": "second", "prompt": [7, 8],
		"max_tokens": 3, "return_token_ids": true}') #>> '{choices,0,token_ids}'}
	),
	'[7, 8, 7]',
	'a new scheduler serves what the old one did');

# ---- open files of the scheduler after many starts of executors
$scheduler = scheduler_pid($node);
my $n_files = n_open_files($scheduler);
foreach my $i (1 .. 20)
{
	$node->safe_psql('postgres',
		"SELECT llm_load_model('$dir', 'second'); SELECT llm_unload_model('second')");
}
wait_for(sub { return executor_pids($node) == 1 }, 'replaced executors to end');
cmp_ok(n_open_files($scheduler), '<=', $n_files, 'no descriptor is leaked');

# ---- a backend process is killed: the server restarts itself
($session) = start_running(1);
@executors = executor_pids($node);
kill 'KILL', session_pid($session);
finish_sql($session);
$node->poll_query_until('postgres', 'SELECT true');
wait_for_model($node);
is($node->safe_psql('postgres', $short),
	'[1, 2, 3, 1]', 'the model is served again after a crash restart');
wait_until_gone($_, 10) foreach @executors;
pass('the executors of before are gone');

# ---- the scheduler is killed: likewise
@executors = executor_pids($node);
$scheduler = scheduler_pid($node);
kill 'KILL', $scheduler;
wait_until_gone($scheduler);
wait_until_gone($_, 10) foreach @executors;
$node->poll_query_until('postgres', 'SELECT true');
wait_for_model($node);
is($node->safe_psql('postgres', $short),
	'[1, 2, 3, 1]', 'the model is served again after the scheduler was killed');

# ---- the server is stopped during generation
foreach my $mode ('fast', 'immediate')
{
	@sessions = start_running(2);
	my $last_scheduler = scheduler_pid($node);
	@executors = executor_pids($node);
	is(scalar @executors, 1, 'one executor');
	$node->stop($mode);
	finish_sql($_) foreach @sessions;
	wait_until_gone($last_scheduler, 10);
	wait_until_gone($_, 10) foreach @executors;
	pass("no process is left after stop -m $mode");
	is_deeply([ shared_segments() ],
		\@segments_before, 'no shared memory is left either');
	$node->start;
	wait_for_model($node);
	is($node->safe_psql('postgres', $short),
		'[1, 2, 3, 1]', 'the next start serves');
}

my @images = glob $node->data_dir . '/pgsql_tmp_llm_ext/model-*';
is(scalar @images, 1, 'only the image of the model that is served is kept');
$node->stop;
done_testing();
