# 036_faults.pl
#	A device that fails: what has no memory is tried again and then an error of
#	its request, what cannot be trusted ends the executor, and requests go on.
#	Without a GPU, llm_ext.device = auto means the CPU, and one line says so.
#
# Builds with asserts make operations fail as a file says
# (src/engine/executor/executor_faults.c).
#
# test/036_faults.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $order = PostgreSQL::Test::Utils::tempdir() . '/fault';
$ENV{LLM_DEBUG_FAULTS} = $order;
# recorded passes would call no operation
my $node = llm_node('main', conf => 'llm_ext.enforce_eager = on');
my $question = q{SELECT llm_ask('Tell me a story.', options =>
	'{"temperature": 0, "max_tokens": %d, "ignore_eos": true}')};

sub metric
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT value FROM llm.metrics WHERE name = '$name'");
}

# The next step takes the order away.
sub order
{
	my ($what) = @_;

	append_to_file("$order.new", "$what\n");
	rename "$order.new", $order or die "could not rename $order.new: $!";
	return;
}

sub order_is_taken
{
	return wait_for(sub { return !-e $order }, 'the order to be taken');
}

sub log_position
{
	return -s $node->logfile;
}

# Answers of eight sessions at once, one of them with a fault in the middle.
sub answers_with
{
	my ($fault) = @_;
	my @sessions = map { start_sql($node, sprintf($question, 60)) } 1 .. 8;
	my @outcomes;

	wait_for(
		sub {
			return $node->safe_psql('postgres',
				"SELECT count(*) FROM llm.activity WHERE state = 'running' AND output_tokens > 2") > 0;
		},
		'requests to run');
	order($fault);
	foreach my $session (@sessions)
	{
		my ($status, $out, $err) = finish_sql($session);
		push @outcomes, $status == 0 ? $out : "error: $err";
	}
	order_is_taken() if !-e $order;
	return @outcomes;
}

my $expected = $node->safe_psql('postgres', sprintf($question, 60));
my $executor = executor_pid($node);

# ---- short once: the step is made again
foreach my $operation ('step_upload', 'linear')
{
	my @outcomes = answers_with("$operation 5 1 no_memory");

	is(scalar(grep { $_ ne $expected } @outcomes),
		0, "no answer changes where $operation is short of memory once")
	  or diag(join "\n", @outcomes);
}
is(executor_pid($node), $executor, 'the executor is still the same');

# ---- short twice in a row: an error of the requests
order('linear 0 2 no_memory');
my ($status, $out, $err) = $node->psql('postgres', sprintf($question, 20));
isnt($status, 0, 'a request that finds no memory twice fails');
like($err, qr/linear fails as was ordered/, 'with the device\'s reason');
is($node->safe_psql('postgres', sprintf($question, 60)),
	$expected, 'and the next one is answered as before');
is(executor_pid($node), $executor, 'by the same executor');

# ---- a device that cannot be trusted
my $n_deaths = 0;
foreach my $operation ('linear', 'sample', 'sample_wait')
{
	my @outcomes = answers_with("$operation 3 1 internal");

	is(scalar(grep { $_ ne $expected } @outcomes),
		0, "all requests go on after $operation failed")
	  or diag(join "\n", @outcomes);
	$n_deaths++;
	is(metric('executor_deaths'), $n_deaths, 'on a new executor');
}
isnt(executor_pid($node), $executor, 'the executor is another');
like(slurp_file($node->logfile),
	qr/executor gives up: sample_wait fails as was ordered/,
	'the log says why');
is($node->safe_psql('postgres', 'SELECT restarts FROM llm.executors'),
	$n_deaths, 'the view counts restarts');

# ---- nothing is left
wait_for_idle($node);
is(metric('request_slots_free'), metric('request_slots'), 'every slot is free');

# ---- where memory goes
my $lines = $node->safe_psql('postgres',
	'SELECT string_agg(what, \',\' ORDER BY line) FROM llm.executor_memory');
like($lines, qr/^((others|withheld),.*|)weights,activations,.*kv_cache(,unused)?$/,
	'the memory plan is shown line by line');
is( $node->safe_psql('postgres',
		q{SELECT m.bytes = (e.facts->>'kv_cache_bytes')::bigint
		  FROM llm.executor_memory m JOIN llm.executors e USING (executor)
		  WHERE m.what = 'kv_cache'}),
	't', 'the cache has what its line says');
$node->stop;

# ---- no GPU: one line
delete $ENV{LLM_DEBUG_FAULTS};
$ENV{CUDA_VISIBLE_DEVICES} = '';
my $alone = llm_node('alone', conf => "llm_ext.device = 'auto'");
is($alone->safe_psql('postgres', 'SELECT device LIKE \'cpu%\' FROM llm.executors'),
	't', 'where no GPU is seen, device = auto means the CPU');
my @said = slurp_file($alone->logfile) =~ /models run on the CPU: .+/g;
is(scalar(@said), 1, 'the log says so in one line')
  or diag(join "\n", @said);
$alone->append_conf('postgresql.conf', "llm_ext.device = 'cuda'");
$alone->restart;
wait_for(
	sub {
		return $alone->safe_psql('postgres',
			'SELECT count(*) FROM llm.models WHERE state = \'failed\'') eq '1';
	},
	'the load to fail');
($status, $out, $err) = $alone->psql('postgres', sprintf($question, 2));
isnt($status, 0, 'device = cuda does not fall back');
like($err, qr/GPU|CUDA|driver/i, 'and the error says what is missing');
$alone->stop;
done_testing();
