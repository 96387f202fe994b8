# 011_cancel.pl
#	A thousand requests cancelled at random moments leak no slot, no cache
#	block and no descriptor.
#
# test/011_cancel.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_sessions = 8;
my $n_rounds = 125;
my $node = llm_node('main');

sub one_value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

one_value(q{SELECT llm_ask('Hello!')});
my $scheduler = scheduler_pid($node);
my $executor = executor_pid($node);
my $scheduler_files = n_open_files($scheduler);
my $executor_files = n_open_files($executor);
my $slots_free = one_value(
	"SELECT value FROM llm.metrics WHERE name = 'request_slots_free'");

# Timeouts of 1 to 60 ms meet requests in every state.
srand(42);
my @sessions;
foreach my $session (1 .. $n_sessions)
{
	my $sql = "\\set ON_ERROR_STOP 0\n";
	foreach my $round (1 .. $n_rounds)
	{
		my $timeout = 1 + int(rand(60));
		my $words = 1 + int(rand(40));
		$sql .= "SET statement_timeout = $timeout;\n"
		  . "SELECT length(llm_ask(repeat('word ', $words), options => "
		  . "'{\"ignore_eos\": true, \"max_tokens\": 700}'));\n";
	}
	push @sessions, start_sql($node, $sql);
}
my $n_cancelled = 0;
my $n_other = 0;
foreach my $session (@sessions)
{
	my ($status, $out, $err) = finish_sql($session);
	foreach my $line (split /\n/, $err)
	{
		next unless $line =~ /ERROR: /;
		# A timeout that strikes while its statement commits, be it the SET,
		# is called a request of the user by PostgreSQL.
		if ($line =~ /canceling statement due to (statement timeout|user request)/)
		{
			$n_cancelled++;
		}
		else
		{
			$n_other++;
			diag($line);
		}
	}
}
cmp_ok($n_cancelled, '>=', 0.9 * $n_sessions * $n_rounds,
	'nearly all requests were cancelled');
is($n_other, 0, 'no other error was seen');

ok(wait_for_idle($node), 'no slot stays in use');
is( one_value(
		"SELECT value FROM llm.metrics WHERE name = 'request_slots_free'"),
	$slots_free,
	'all slots are free');
ok( wait_for(
		sub {
			return one_value(
				'SELECT sum(running + waiting + kv_blocks_used) FROM llm.executors'
			) eq '0';
		},
		'the executor to be idle'),
	'the executor holds no request and no cache block');
is(scheduler_pid($node), $scheduler, 'the scheduler is the same process');
is(executor_pid($node), $executor, 'the executor is the same process');
is(n_open_files($scheduler), $scheduler_files,
	'the scheduler leaked no descriptor');
is(n_open_files($executor), $executor_files,
	'the executor leaked no descriptor');
is( one_value(
		q{SELECT llm_ask('Hello!', options => '{"temperature": 0}') IS NOT NULL}
	),
	't',
	'the next request is answered');

$node->stop;
done_testing();
