# 038_train_beside.pl
#	A job that yields to serving: it pauses while there are requests, which an
#	executor that is stopped keeps for as long as a test needs them.
#
# test/038_train_beside.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = llm_node('main', conf => <<END);
llm_ext.executor_timeout = 1h
END
my $options = '"max_steps": 3, "num_threads": 1, "per_device_train_batch_size": 8, '
  . '"logging_steps": 1';
my $forever = '"yield_to_serving": true, "max_yield_ms": 2147483647';
my $sign = $node->data_dir . '/pgsql_tmp_llm_ext/requests';
my $server = executor_pid($node);

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub submit
{
	my ($adapter, $more) = @_;
	return sql("SELECT llm_finetune('$adapter', 'SELECT messages FROM talk', "
		  . "'{$options, $more}')");
}

sub wait_state
{
	my ($job) = @_;
	return sql("SELECT llm_finetune_wait($job, '150 s')");
}

# How many requests there are, as jobs see it.
sub n_requests
{
	return unpack('L', slurp_file($sign));
}

# A request that nobody answers until its executor goes on.
sub start_request
{
	kill 'STOP', $server;
	my $request = start_sql($node, "SELECT llm_ask('What is your name?', "
		  . "options => '{\"max_tokens\": 4}') IS NOT NULL");
	wait_for(sub { return n_requests() == 1 }, 'the sign to show the request');
	return $request;
}

sub finish_request
{
	my ($request) = @_;
	kill 'CONT', $server;
	my ($status, $out, $err) = finish_sql($request);
	is($out, 't', 'the request is answered') or diag($err);
	wait_for(sub { return n_requests() == 0 }, 'the sign to show none');
	return;
}

# Until a job has paused, after what the log held before.
sub wait_for_pause
{
	my ($offset) = @_;
	return wait_for(
		sub {
			return substr(slurp_file($node->logfile), $offset) =~
			  /the job pauses while requests are served/;
		},
		'the job to pause');
}

sub log_size
{
	return length slurp_file($node->logfile);
}

sql(<<'END');
CREATE TABLE talk (id int PRIMARY KEY, messages jsonb);
INSERT INTO talk SELECT i, jsonb_build_array(
	jsonb_build_object('role', 'user', 'content', 'What is your name?'),
	jsonb_build_object('role', 'assistant', 'content', 'I am Ada.'))
FROM generate_series(1, 16) i;
END

# ---- nobody asks
wait_for(sub { return n_requests() == 0 }, 'the sign to show no requests');
my $job = submit('alone', $forever);
is(wait_state($job), 'done', 'a job that yields to nobody ends');
unlike(slurp_file($node->logfile), qr/the job pauses/, 'and never pauses');

# ---- somebody does
my $offset = log_size();
my $request = start_request();
$job = submit('patient', $forever);
wait_for_pause($offset);
is(sql("SELECT state, coalesce(step, 0) FROM llm.finetune_progress WHERE job = $job"),
	'training|0', 'a job pauses before its first step');
finish_request($request);
is(wait_state($job), 'done', 'and goes on when the request has its answer');
is(sql("SELECT md5(string_agg(md5(data), ',' ORDER BY position)) "
		  . "FROM llm.adapter_tensors WHERE adapter = 'patient'"),
	sql("SELECT md5(string_agg(md5(data), ',' ORDER BY position)) "
		  . "FROM llm.adapter_tensors WHERE adapter = 'alone'"),
	'with the same tensors, bit by bit');

# ---- and never gets an answer
$offset = log_size();
$request = start_request();
$job = submit('bounded', '"yield_to_serving": true, "max_yield_ms": 1');
is(wait_state($job), 'done', 'a job advances however long a request is there');
like(substr(slurp_file($node->logfile), $offset),
	qr/the job pauses/, 'although it pauses');
is(n_requests(), 1, 'which it still is');

# ---- a pause ends with a cancel
$offset = log_size();
$job = submit('cancelled', $forever);
wait_for_pause($offset);
my $trainer = sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $job");
is(sql("SELECT llm_finetune_cancel($job)"), 't', 'a job that pauses is cancelled');
is(wait_state($job), 'cancelled', 'and is');
wait_until_gone($trainer);
finish_request($request);

# ---- a job that does not yield
$offset = log_size();
$request = start_request();
$job = submit('rude', '"yield_to_serving": false');
is(wait_state($job), 'done', 'a job that does not yield ends beside a request');
unlike(substr(slurp_file($node->logfile), $offset),
	qr/the job pauses/, 'without a pause');
finish_request($request);

# ---- options
my ($status, $out, $err) = $node->psql('postgres',
	"SELECT llm_finetune('x', 'SELECT 1', '{\"yield_to_serving\": 1}')");
like($err, qr/option "yield_to_serving" must be true or false/, 'options are checked');

$node->stop;
done_testing();
