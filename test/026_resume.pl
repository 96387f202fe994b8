# 026_resume.pl
#	The real executor is killed while 32 requests run: all finish, and every
#	answer is the one that is given when nothing happens.
#
# Half of the requests are greedy, half are drawn with a seed: a request that
# is resumed goes on at the same position of the same random sequence.
#
# test/026_resume.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_sessions = 32;
my $node = llm_node('main');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE cases AS
	SELECT id,
		   (ARRAY['Hello!', 'Who are you?', 'What can you do?', 'Thank you!'])[1 + id % 4]
		   || repeat(' Please answer.', id % 5) AS question,
		   CASE id % 2
			   WHEN 0 THEN jsonb_build_object('temperature', 0, 'max_tokens', 100,
											  'ignore_eos', true)
			   ELSE jsonb_build_object('temperature', 0.7, 'seed', id, 'max_tokens', 100,
									   'ignore_eos', true)
		   END AS options
	FROM generate_series(1, 32) id;
	CREATE TABLE alone AS
	SELECT id, llm_ask(question, options => options) AS answer FROM cases ORDER BY id;
	CREATE TABLE killed (id int, answer text);
});

sub start_sessions
{
	return map {
		start_sql($node, "INSERT INTO killed SELECT id, "
			  . "llm_ask(question, options => options) FROM cases WHERE id = $_")
	} 1 .. $n_sessions;
}

my $postmaster = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $scheduler = scheduler_pid($node);
my @sessions = start_sessions();
foreach my $round (1 .. 2)
{
	my $least = 20 * $round;
	wait_for(
		sub {
			return $node->safe_psql('postgres',
				"SELECT count(*) FROM llm.activity WHERE state = 'running' "
				  . "AND output_tokens >= $least") >= 16;
		},
		'requests to run');
	my $pid = executor_pid($node)
	  // die "no executor among the processes of the scheduler: "
	  . join(', ', map { "$_ " . (process_name($_) // 'gone') }
		  child_pids($scheduler));
	kill 'KILL', $pid;
	wait_until_gone($pid);
}
my $n_failed = 0;
foreach my $session (@sessions)
{
	my ($status, $out, $err) = finish_sql($session);
	$n_failed++ if $err ne '';
	diag($err) if $err ne '';
}
is($n_failed, 0, 'no statement fails');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM killed JOIN alone USING (id, answer)'),
	$n_sessions,
	'every answer is unchanged');
diag($node->safe_psql('postgres',
	'SELECT id, a.answer, k.answer FROM killed k JOIN alone a USING (id) '
	  . 'WHERE a.answer IS DISTINCT FROM k.answer LIMIT 2'))
  unless $n_sessions == $node->safe_psql('postgres',
	'SELECT count(*) FROM killed JOIN alone USING (id, answer)');
is($node->safe_psql('postgres', 'SELECT sum(restarts) FROM llm.executors'),
	'2', 'two executors were killed');
is(scheduler_pid($node), $scheduler, 'the scheduler is the same');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'),
	$postmaster, 'the server was not restarted');
wait_for_idle($node);
# what the view shows is up to a second old
wait_for(
	sub {
		return $node->safe_psql('postgres',
			'SELECT sum(kv_blocks_used) FROM llm.executors') eq '0';
	},
	'all blocks to be free',
	10);
pass('no block of the KV cache is held');

# Answers under a grammar: killed in their middle, and where the cache is too
# small for all of them, so that sequences are put off and computed again.
my $dir = llm_model_dir();
$node->safe_psql('postgres', <<END);
SELECT llm_load_model('$dir', 'tight', '{"kv_cache_memory_bytes": 8388608, "max_model_len": 512}');
CREATE VIEW guided AS SELECT id, 'Say something, ' || id || '.' AS question,
	jsonb_build_object('guided_regex', '([a-z]{3,9} ){30}', 'temperature', 0.9,
		'seed', id, 'max_tokens', 300) AS options
FROM generate_series(1, 40) id;
CREATE TABLE undisturbed AS
SELECT id, llm_ask(question, options => options) AS answer FROM guided;
CREATE TABLE disturbed (LIKE undisturbed);
END
my $batch = start_sql($node, 'INSERT INTO disturbed SELECT id, '
	  . 'llm_ask(question, options => options) FROM guided');
wait_for(
	sub {
		return $node->safe_psql('postgres',
			"SELECT count(*) FROM llm.activity WHERE state = 'running' "
			  . "AND output_tokens >= 10") >= 16;
	},
	'guided answers to run');
my $serving = $node->safe_psql('postgres', "SELECT pid FROM llm.executors WHERE model = 'demo'");
kill 'KILL', $serving;
wait_until_gone($serving);
my (undef, undef, $batch_error) = finish_sql($batch);
is($batch_error, '', 'a statement with a grammar survives its executor');
my $same = "SELECT count(*), bool_and(answer ~ '^([a-z]{3,9} ){30}\$') FROM undisturbed u "
  . 'JOIN disturbed USING (id, answer)';
is($node->safe_psql('postgres', $same), '40|t',
	'guided answers are unchanged, and of their form');
$node->safe_psql('postgres', <<END);
TRUNCATE disturbed;
INSERT INTO disturbed
SELECT id, llm_ask(question, options => options || '{"model": "tight"}') FROM guided;
END
is($node->safe_psql('postgres', $same), '40|t', 'also those that were put off');
ok( wait_for(
		sub {
			return $node->safe_psql('postgres',
				"SELECT preemptions > 0 FROM llm.executors WHERE model = 'tight'") eq 't';
		},
		'the view to show it'),
	'some were');
$node->stop;
done_testing();
