# 022_queue.pl
#	More requests than slots: waiting, refusing, and never hanging.
#
# test/022_queue.pl
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
my $node = llm_node('main',
	model => "$dir?delay_ms=2",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'main'\n"
	  . 'llm_ext.max_requests = 8');

sub request
{
	my ($n, $max_tokens) = @_;
	return "SELECT count(*) FROM json_array_elements(llm_completion("
	  . "json_build_object('prompt', json_build_array(1, 2, 3), 'n', $n,"
	  . "'max_tokens', $max_tokens, 'ignore_eos', true))::json->'choices')";
}

sub metric
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT value FROM llm.metrics WHERE name = '$name'");
}

# ---- sessions that want more slots than there are, all at once: each holds
# some while it waits for more
my @sessions =
  map { start_sql($node, request(12, 20) . ";\n" . request(12, 20) . ';') } 1 .. 10;
my $n_right = 0;
foreach my $session (@sessions)
{
	my ($status, $out, $err) = finish_sql($session);
	$n_right++ if $out eq "12\n12";
	diag($err) if $err ne '';
}
is($n_right, 10, 'sessions that share too few slots all finish');
is(metric('request_slots_free'), '8', 'every slot is free again');

# ---- refusing
my $holder = start_sql($node, request(8, 90000));
wait_for(sub { return metric('request_slots_free') eq '0' }, 'all slots to be taken');
my ($status, $out, $err) = $node->psql('postgres',
	'SET llm_ext.queue_wait = off; \set VERBOSITY verbose' . "\n" . request(1, 2));
like($err, qr/53000: +too many requests in flight/, 'refused when it should not wait');
like($err, qr/llm_ext\.max_requests/, 'the hint names the setting');
is(metric('requests_refused'), '1', 'the refusal is counted');

# ---- waiting can be cancelled, and times out
($status, $out, $err) =
  $node->psql('postgres', "SET statement_timeout = '200ms'; " . request(1, 2));
like($err, qr/statement timeout/, 'statement_timeout ends the wait for a slot');
($status, $out, $err) = $node->psql('postgres',
	"SET llm_ext.request_timeout = '200ms'; " . request(1, 2));
like($err, qr/timed out while it waited for room/, 'so does the request timeout');
my $waiter = start_sql($node, request(1, 2));
session_pid($waiter);
cancel_sql($waiter);
($status, $out, $err) = finish_sql($waiter);
like($err, qr/canceling statement/, 'and cancelling');

# ---- who waits gets the slot when it is free
$waiter = start_sql($node, request(1, 2));
session_pid($waiter);
cancel_sql($holder);
finish_sql($holder);
($status, $out, $err) = finish_sql($waiter);
is($out, '1', 'a waiting session goes on when slots are free');

# ---- one session's share
($status, $out, $err) = $node->psql('postgres',
	'SET llm_ext.max_requests_per_backend = 3; ' . request(7, 5));
is($out, '7', 'more requests than a session may have wait for each other');
($status, $out, $err) = $node->psql('postgres',
	'SET llm_ext.max_requests_per_backend = 3; SET llm_ext.queue_wait = off; '
	  . request(7, 500));
like($err, qr/in this session/, 'or are refused');
like($err, qr/llm_ext\.max_requests_per_backend/, 'with the setting to raise');

# ---- long prompts stream through the ring, long answers wait for their reader
is( $node->safe_psql(
		'postgres', q{
	SELECT sum(length(llm_completion(json_build_object('prompt',
			   (SELECT json_agg(1 + i % 900) FROM generate_series(1, 20000) i),
			   'n', 3, 'max_tokens', 4000, 'ignore_eos', true))::text)) > 0
	FROM generate_series(1, 2)}),
	't',
	'prompts and answers larger than a ring pass');

# ---- tokens that arrive while others are being read
$node->safe_psql('postgres', "SELECT llm_load_model('$dir', 'fast')");
my $long = q{
	SELECT count(*) FILTER (WHERE choice->>'token_ids' = expected)
	FROM generate_series(1, 30) i,
		 json_array_elements((llm_completion(json_build_object('model', 'fast',
			'prompt', json_build_array(1, 2, 3, i, 5), 'n', 3, 'max_tokens', 4000,
			'ignore_eos', true, 'return_token_ids', true))::json)->'choices') choice,
		 LATERAL (SELECT '[' || rtrim(repeat('1, 2, 3, ' || i || ', 5, ', 800), ', ')
				  || ']' AS expected) e};
@sessions = map { start_sql($node, $long) } 1 .. 4;
is(join(' ', map { (finish_sql($_))[1] } @sessions),
	'90 90 90 90', 'long answers at full speed are complete and in order');

# ---- settings that are wrong
($status, $out, $err) = $node->psql('postgres', "SET llm_ext.no_such_thing = 1");
like($err, qr/invalid configuration parameter name/, 'the prefix is reserved');
($status, $out, $err) =
  $node->psql('postgres', "ALTER SYSTEM SET llm_ext.device = 'tpu'");
like($err, qr/invalid value for parameter "llm_ext.device"/, 'values are checked');

wait_for_idle($node);
is(metric('request_slots_free'), '8', 'every slot is free at the end');
$node->stop;
done_testing();
