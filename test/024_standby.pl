# 024_standby.pl
#	A hot standby serves like its primary, through promotion; and without
#	writing anything.
#
# test/024_standby.pl
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
my $primary = llm_node('primary',
	model => "$dir?delay_ms=5",
	standby => 1,
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'main'");

$primary->backup('base');
my @images =
  glob $primary->backup_dir . '/base/pgsql_tmp_llm_ext*';
is(scalar @images, 0, 'a base backup leaves the model images out');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
wait_for_model($standby);

sub answer
{
	my ($max_tokens) = @_;
	return "SELECT llm_completion(json_build_object('prompt', "
	  . "json_build_array(1, 2, 3), 'max_tokens', $max_tokens, 'ignore_eos', true,"
	  . "'return_token_ids', true)) #>> '{choices,0,token_ids}'";
}

is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
	't', 'the standby is one');
is($standby->safe_psql('postgres', answer(4)), '[1, 2, 3, 1]', 'it answers');
is( $standby->safe_psql(
		'postgres', 'SELECT count(*) FROM llm.executors'),
	'1',
	'with an executor of its own');

# ---- an executor dies, a request is cancelled: as on a primary
my $runner = start_sql($standby, answer(200));
wait_for(
	sub {
		return $standby->safe_psql('postgres',
			'SELECT count(*) FROM llm.activity WHERE output_tokens > 5') eq '1';
	},
	'a request to run');
kill 'KILL', executor_pid($standby);
my ($status, $out, $err) = finish_sql($runner);
like($out, qr/^\[1, 2, 3, 1/, 'a killed executor is survived');
($status, $out, $err) = $standby->psql('postgres',
	"SET statement_timeout = '200ms'; " . answer(90000));
like($err, qr/statement timeout/, 'a statement times out');

# ---- models can be loaded, though nothing can be written
is( $standby->safe_psql(
		'postgres', "SELECT llm_load_model('$dir', 'second')"),
	'second',
	'a model can be loaded');

# ---- promotion: the same scheduler goes on
my $scheduler = scheduler_pid($standby);
$runner = start_sql($standby, answer(300));
wait_for(
	sub {
		return $standby->safe_psql('postgres',
			'SELECT count(*) FROM llm.activity WHERE output_tokens > 5') eq '1';
	},
	'a request to run');
$standby->promote;
($status, $out, $err) = finish_sql($runner);
like($out, qr/^\[1, 2, 3, 1/, 'a request runs through a promotion');
is(scheduler_pid($standby), $scheduler, 'the scheduler is the same');
is( $standby->safe_psql(
		'postgres',
		"CREATE TABLE t AS " . answer(2) . " AS a; SELECT a FROM t"),
	'[1, 2]',
	'and now answers can be stored');

wait_for_idle($standby);
$standby->stop;
$primary->stop;
done_testing();
