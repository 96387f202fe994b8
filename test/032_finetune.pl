# 032_finetune.pl
#	Jobs that train adapters: what is published serves at once, whatever dies
#	in between costs nothing but steps, and what ends early leaves nothing.
#
# test/032_finetune.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = llm_node('main', standby => 1, conf => <<END);
llm_ext.max_finetune_jobs = 1
restart_after_crash = on
END
my $folder = $node->data_dir . '/pgsql_tmp_llm_ext_jobs';

# Steps enough for a test that looks twice, also on a fast machine, and a
# checkpoint at every second.
my $options = '"max_steps": 14, "num_threads": 1, "per_device_train_batch_size": 8, '
  . '"save_steps": 2, "logging_steps": 1, "learning_rate": 0.003, '
  . '"lora_dropout": 0.1, "lr_scheduler_type": "constant"';
# Who is asked about Bob gets better until Ada is known.
my $eval_query = q{SELECT replace(messages::text, 'Ada', 'Bob')::jsonb AS messages FROM talk WHERE id = 1};
my $best = "$options, " . '"eval_steps": 1, "load_best_model_at_end": true, "eval_query": "'
  . ($eval_query =~ s/'/''/gr) . '"';
my $endless = '"max_steps": 1000000, "save_steps": 2, "logging_steps": 1';
my $query = 'SELECT messages FROM talk ORDER BY id';

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub submit
{
	my ($adapter, $job_options, $job_query) = @_;
	$job_query ||= $query;
	return sql("SELECT llm_finetune('$adapter', \$q\$$job_query\$q\$, "
		  . "'{$job_options}')");
}

sub wait_state
{
	my ($job) = @_;
	return sql("SELECT llm_finetune_wait($job, '150 s')");
}

sub job_error
{
	my ($job) = @_;
	return sql("SELECT error FROM llm.finetune_progress WHERE job = $job");
}

# Until a condition on the job's row of the view holds.
sub wait_job
{
	my ($job, $condition) = @_;
	return wait_for(
		sub {
			my ($status, $out) = $node->psql('postgres',
				"SELECT coalesce($condition, false), state, error "
				  . "FROM llm.finetune_progress WHERE job = $job");
			die "job $job ended: $out"
			  if defined $out && $out =~ /failed|cancelled|done/;
			return defined $out && $out =~ /^t/;
		},
		"job $job: $condition");
}

sub tensors
{
	my ($adapter) = @_;
	return sql("SELECT md5(string_agg(md5(data), ',' ORDER BY position)) "
		  . "FROM llm.adapter_tensors WHERE adapter = '$adapter'");
}

# Nothing is left of jobs: no folder, no rows to go on from, no process.
sub is_clean
{
	my ($what) = @_;
	my @workers;

	wait_for(sub { return !glob "$folder/*" }, 'the folders of jobs to go');
	is(sql('SELECT count(*) FROM llm.finetune_data'),
		'0', "$what leaves no data");
	wait_for(
		sub {
			return sql("SELECT count(*) FROM pg_stat_activity "
				  . "WHERE backend_type = 'llm_ext job'") eq '0';
		},
		'the workers of jobs to end');
	return;
}

sql(<<'END');
CREATE TABLE talk (id int PRIMARY KEY, messages jsonb);
INSERT INTO talk SELECT i, jsonb_build_array(
	jsonb_build_object('role', 'user', 'content', 'What is your name?'),
	jsonb_build_object('role', 'assistant', 'content', 'I am Ada.'))
FROM generate_series(1, 16) i;
END

# ---- a job that nothing happens to
my $before = sql("SELECT llm_ask('What is your name?', options => '{\"temperature\": 0}')");
my $job = submit('whole', $options);
is(wait_state($job), 'done', 'a job ends');
is(sql("SELECT count(*), min(step), max(step) FROM llm.finetune_log WHERE job = $job"),
	'14|1|14', 'each step is logged');
my $answer = sql("SELECT llm_ask('What is your name?', 'whole', '{\"temperature\": 0}')");
is($answer, 'I am Ada.', 'the next statement has the trained answer');
isnt($answer, $before, 'which is another than before');
is_clean('a job that is done');
my $whole = tensors('whole');

# ---- the state of the best evaluation
$job = submit('best', $best);
is(wait_state($job), 'done', 'a job that is evaluated ends');
is(sql("SELECT trained_step BETWEEN 1 AND 13 AND eval_loss = (SELECT min(eval_loss) FROM llm.finetune_log WHERE job = $job) "
	  . "FROM llm.finetune_jobs WHERE id = $job"),
	't', 'with the best evaluation, which is not the last')
  or diag(sql("SELECT step, eval_loss FROM llm.finetune_log WHERE job = $job ORDER BY step"));
my $best_step = sql("SELECT trained_step FROM llm.finetune_jobs WHERE id = $job");
my $best_tensors = tensors('best');
isnt($best_tensors, $whole, 'and not the tensors of the last step');

# ---- what is no better than the active version, which the job did not begin with
$job = submit('whole', '"max_steps": 1, "publish_if_better": true, '
	  . q{"eval_query": "SELECT messages FROM talk WHERE id = 1"});
is(wait_state($job), 'done', 'a job that is worse than the active version ends');
like(job_error($job), qr/^not published: the held-out loss is \S+, and \S+ with what was active/,
	'and says that it is not published');
is(sql("SELECT string_agg(version::text, ',') FROM llm.adapters WHERE name = 'whole'"),
	'1', 'the adapter is as it was');

# ---- a transaction that is rolled back
sql("BEGIN; SELECT llm_finetune('never', '$query'); ROLLBACK");
sql("BEGIN; SAVEPOINT s; SELECT llm_finetune('never', '$query'); ROLLBACK TO s; COMMIT");
is(sql("SELECT count(*) FROM llm.finetune_jobs WHERE adapter = 'never'"),
	'0', 'ROLLBACK leaves nothing');
is_clean('ROLLBACK');

# ---- the executor dies
$job = submit('executor_dies', $options);
wait_job($job, 'checkpoint_step >= 2');
my $executor = sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $job");
kill 'KILL', $executor;
is(wait_state($job), 'done', 'a job survives its executor');
like($node->logfile && slurp_file($node->logfile),
	qr/the executor of fine-tuning job $job died/, 'which did die');
is(tensors('executor_dies'), $whole, 'and trains the same tensors, bit by bit');
is(sql("SELECT count(*), max(step) FROM llm.finetune_log WHERE job = $job"),
	'14|14', 'and has one row for each step');

# ---- the worker dies, and the server with it
$job = submit('worker_dies', $options);
wait_job($job, 'checkpoint_step >= 2');
my $worker = sql("SELECT worker_pid FROM llm.finetune_progress WHERE job = $job");
$executor = sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $job");
# the rows change with the query's result, which was read long ago
sql("UPDATE talk SET messages = jsonb_set(messages, '{1,content}', '\"I am Bob.\"')");
kill 'KILL', $worker;
wait_until_gone($worker);
wait_until_gone($executor);
$node->poll_query_until('postgres', 'SELECT true')
  or die 'the server did not come back';
wait_for_model($node);
is(wait_state($job), 'done', 'a job survives its worker');
is(tensors('worker_dies'), $whole,
	'and goes on with the rows that it had read, bit by bit');
is_clean('a job that was resumed');
sql("UPDATE talk SET messages = jsonb_set(messages, '{1,content}', '\"I am Ada.\"')");

# ---- the server is stopped
for my $mode ('fast', 'immediate')
{
	# a crash when the best state is known, and the last is not
	my $is_best = $mode eq 'immediate';
	my $after = !$is_best ? 2 : $best_step > 12 ? 12 : $best_step;
	$job = submit("stop_$mode", $is_best ? $best : $options);
	wait_job($job, "checkpoint_step >= $after");
	$executor =
	  sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $job");
	$node->stop($mode);
	wait_until_gone($executor);
	$node->start;
	wait_for_model($node);
	is(wait_state($job), 'done', "a job survives a stop, $mode");
	is(tensors("stop_$mode"), $is_best ? $best_tensors : $whole,
		'and trains the same tensors');
}

# ---- no room for the executor's files: it may not write any more
SKIP:
{
	skip 'there is no prlimit', 8 if system('prlimit --version >/dev/null 2>&1') != 0;
	my $fill = sub {
		my ($running) = @_;
		my $pid = sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $running");
		system_or_bail('prlimit', '--pid', $pid, '--fsize=100:100');
	};
	$job = submit('full', $options);
	wait_job($job, 'checkpoint_step >= 2');
	$fill->($job);
	is(wait_state($job), 'failed', 'a job that cannot write a checkpoint fails');
	like(job_error($job), qr/could not write ".*checkpoint"/, 'with the file');
	sql("SELECT llm_finetune_resume($job)");
	is(wait_state($job), 'done', 'and goes on when there is room');
	is(tensors('full'), $whole, 'as if nothing had been');
	$job = submit('never_full', $options =~ s/"max_steps": 14(.*)"save_steps": 2/"max_steps": 30$1"save_steps": 0/r);
	wait_job($job, 'step >= 1');
	$fill->($job);
	is(wait_state($job), 'failed', 'a job that cannot write its adapter fails');
	like(job_error($job), qr/could not write ".*adapter.safetensors"/, 'with the file');
	is(sql("SELECT count(*) FROM llm.adapters WHERE name = 'never_full'"),
		'0', 'and publishes nothing');
	sql("SELECT llm_finetune_cancel($job)");
	is_clean('a failed job without room');
}

# ---- cancel, in each state
$job = submit('cancelled', $endless);
wait_job($job, 'checkpoint_step >= 2');
my $queued = submit('queued', $endless);
is(sql("SELECT state FROM llm.finetune_progress WHERE job = $queued"),
	'queued', 'a second job waits');
is(sql("SELECT llm_finetune_cancel($queued)"), 't', 'it can be cancelled');
is(wait_state($queued), 'cancelled', 'and is, before it began');
$executor = sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $job");
is(sql("SELECT llm_finetune_cancel($job)"), 't', 'so can a running one');
is(wait_state($job), 'cancelled', 'and is');
wait_until_gone($executor);
is(sql("SELECT llm_finetune_cancel($job)"), 'f', 'but not twice');
my $reading = submit('cancelled', $endless,
	"SELECT messages, pg_sleep(600) FROM talk");
wait_job($reading, "state = 'reading'");
sql("SELECT llm_finetune_cancel($reading)");
is(wait_state($reading), 'cancelled', 'a query that is read is cancelled');
is(sql("SELECT count(*) FROM llm.adapters WHERE name IN ('cancelled', 'queued')"),
	'0', 'no adapter comes of any of them');
is_clean('a cancelled job');

# ---- failures
$job = submit('failed', $options,
	'SELECT messages, 1 / (8 - id) FROM talk');
is(wait_state($job), 'failed', 'a query that fails midway fails the job');
like(job_error($job), qr/division by zero/, 'with its error');
$job = submit('failed', $options, 'SELECT messages FROM talk WHERE id < 0');
is(wait_state($job), 'failed', 'a query without rows fails the job');
$job = submit('whole', $options);
wait_job($job, 'step >= 1');
sql("SELECT llm_drop_adapter('whole')");
is(wait_state($job), 'failed', 'a job of a dropped adapter fails');
like(job_error($job), qr/adapter "whole" was dropped while the job ran/,
	'and says why');
is(sql("SELECT count(*) FROM llm.adapters WHERE name = 'whole'"),
	'0', 'the adapter stays dropped');
sql("SELECT llm_finetune_cancel($job)");
is_clean('a failed job that is cancelled');

# ---- other roles
sql(<<END);
CREATE ROLE tuner LOGIN;
CREATE ROLE other LOGIN;
GRANT SELECT ON talk TO tuner;
SELECT llm_grant_model('demo', 'tuner');
GRANT EXECUTE ON FUNCTION llm_finetune TO tuner, other;
ALTER TABLE talk ENABLE ROW LEVEL SECURITY;
CREATE POLICY first_rows ON talk TO tuner USING (id <= 4);
END
my $as_tuner = sub {
	my ($statement) = @_;
	return $node->psql('postgres', $statement, extra_params => [ '-U', 'tuner' ]);
};
my ($status, $out, $err) = $node->psql('postgres',
	"SELECT llm_finetune('x', '$query')", extra_params => [ '-U', 'other' ]);
like($err, qr/permission denied for model "demo"/, 'the model must be granted');
(undef, $out, $err) = $as_tuner->("SELECT llm_finetune('executor_dies', '$query')");
like($err, qr/must be owner of adapter "executor_dies"/,
	'the adapter must be one\'s own');
(undef, $job) = $as_tuner->(
	"SELECT llm_finetune('mine', '$query', '{\"max_steps\": 2}')");
is(wait_state($job), 'done', 'another role trains');
is(sql("SELECT n_rows FROM llm.finetune_jobs WHERE id = $job"),
	'4', 'on the rows that it may see');
is(($as_tuner->('SELECT count(*) FROM llm.finetune_progress'))[1],
	'1', 'and sees its own jobs');
is(($as_tuner->("SELECT llm_finetune_wait(1, '1 s')"))[0],
	3, 'but none of others');

# ---- a standby
$node->backup('copy');
ok(!-e $node->backup_dir . '/copy/pgsql_tmp_llm_ext_jobs',
	'backups have no folders of jobs');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
wait_for_model($standby);
(undef, $out, $err) =
  $standby->psql('postgres', "SELECT llm_finetune('x', '$query')");
like($err, qr/cannot execute llm_finetune\(\) (during recovery|in a read-only)/,
	'a standby refuses');
$standby->stop;

# ---- the extension goes while a job runs
$job = submit('last', $endless);
wait_job($job, 'step >= 1');
$executor = sql("SELECT executor_pid FROM llm.finetune_progress WHERE job = $job");
sql('DROP EXTENSION llm_ext CASCADE');
wait_until_gone($executor);
wait_for(sub { return !glob "$folder/*" }, 'the folder of the job to go');
pass('DROP EXTENSION ends a job, and nothing is left');

$node->stop;
done_testing();
