# 029_adapters.pl
#	Adapters are rows: COMMIT publishes them and ROLLBACK discards them while
#	sessions chat, a dump keeps them, a standby serves them; and an executor's
#	death costs no answer.
#
# test/029_adapters.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_sessions = 32;
# tokens of an answer that is still under way when somebody has looked twice
my $n_long = 1500;
my $vectors = "$FindBin::RealBin/vectors/adapter";
my $primary = llm_node('primary', standby => 1);

sub request
{
	my ($adapter, $max_tokens) = @_;
	return "json_build_object('messages', '[{\"role\": \"user\", \"content\": "
	  . "\"Hello!\"}]'::json, 'adapter', '$adapter', 'temperature', 0, "
	  . "'max_tokens', $max_tokens, 'ignore_eos', true)";
}

sub answer
{
	my ($adapter, $max_tokens) = @_;
	return 'SELECT llm_completion('
	  . request($adapter, $max_tokens // 6)
	  . ") #>> '{choices,0,message,content}'";
}

# ---- two versions, and what each answers
$primary->safe_psql('postgres', <<END);
SELECT llm_register_adapter('a', '$vectors/demo_one');
SELECT llm_register_adapter('a', '$vectors/demo_two', '{"activate": false}');
CREATE TABLE expected (version int, answer text);
END
for my $version (1, 2)
{
	$primary->safe_psql('postgres',
		"INSERT INTO expected SELECT $version, (" . answer("a\@$version") . ')');
}
is( $primary->safe_psql('postgres',
		'SELECT count(DISTINCT answer) FROM expected'),
	'2',
	'the versions answer differently');

# ---- sessions chat while versions come and go
my $loop = 'DO $$ DECLARE r jsonb; BEGIN FOR i IN 1..4 LOOP r := llm_completion('
  . request('a', 6)
  . "); IF r #>> '{choices,0,message,content}' IS DISTINCT FROM (SELECT answer "
  . "FROM expected WHERE version = (r #>> '{adapter,version}')::int) THEN "
  . "RAISE EXCEPTION 'mixed versions: %', r; END IF; END LOOP; END \$\$";
my @sessions = map { start_sql($primary, $loop) } 1 .. $n_sessions;
for (1 .. 4)
{
	$primary->safe_psql('postgres',
		"BEGIN; SELECT llm_activate_adapter('a', 2); ROLLBACK");
	$primary->safe_psql('postgres', "SELECT llm_activate_adapter('a', 2)");
	$primary->safe_psql('postgres', "SELECT llm_rollback_adapter('a')");
}
my @failures = grep { $_ ne '' } map { (finish_sql($_))[2] } @sessions;
is("@failures", '', 'no request of any session fails or mixes versions');
is( $primary->safe_psql('postgres', answer('a')),
	$primary->safe_psql(
		'postgres', 'SELECT answer FROM expected WHERE version = 1'),
	'the last rollback counts');

# ---- a dropped version's requests finish
my $long = answer('a@2', $n_long);
my $whole = $primary->safe_psql('postgres', $long);
my $runner = start_sql($primary, $long);
wait_for(
	sub {
		return $primary->safe_psql('postgres',
			'SELECT count(*) FROM llm.activity WHERE output_tokens > 2') eq '1';
	},
	'a request to run');
$primary->safe_psql('postgres', "SELECT llm_drop_adapter('a', 2)");
my ($status, $out, $err) = finish_sql($runner);
is($out, $whole, 'a request in flight keeps the version that is dropped');
($status, $out, $err) = $primary->psql('postgres', $long);
like($err, qr/adapter "a" has no version 2/, 'the next one does not find it');
$primary->safe_psql('postgres',
	"SELECT llm_register_adapter('a', '$vectors/demo_two')");
is($primary->safe_psql('postgres', answer('a@3', $n_long)),
	$whole, 'the same tensors answer alike under another number');

# ---- the executor dies in the middle
$runner = start_sql($primary, answer('a@3', $n_long));
wait_for(
	sub {
		return $primary->safe_psql('postgres',
			'SELECT count(*) FROM llm.activity WHERE output_tokens > 2') eq '1';
	},
	'a request to run');
kill 'KILL', executor_pid($primary);
($status, $out, $err) = finish_sql($runner);
is($out, $whole, 'a request with an adapter goes on in the next executor');

# ---- a lost file is made again
my $folder = $primary->data_dir . '/pgsql_tmp_llm_ext_adapters';
my @files = glob "$folder/*.safetensors";
is(scalar @files, 2, 'each version has a file');
unlink @files;
kill 'KILL', executor_pid($primary);
is($primary->safe_psql('postgres', answer('a@3', $n_long)),
	$whole, 'files are made again from the rows');

# ---- dump and restore
my $dump = "${PostgreSQL::Test::Utils::tmp_check}/adapters.sql";
my $rows = "SELECT md5(string_agg(t::text, ',' ORDER BY adapter, version, position)) "
  . 'FROM llm.adapter_tensors t';
$primary->safe_psql('postgres', <<END);
SELECT llm_grant_adapter('a', 'public');
SELECT llm_set_route('acme', 'a\@1');
END
$primary->safe_psql('postgres', 'CREATE DATABASE copy');
$primary->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
$primary->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'copy', '-f', $dump ],
	'restore');
is($primary->safe_psql('copy', $rows),
	$primary->safe_psql('postgres', $rows), 'a dump keeps the tensors');
for my $table (qw(names versions grants routes))
{
	my $all = "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) "
	  . "FROM llm.adapter_$table t";
	is($primary->safe_psql('copy', $all),
		$primary->safe_psql('postgres', $all), "and the $table");
}
is($primary->safe_psql('copy', answer('a', $n_long)),
	$whole, 'the copy answers with it');

# ---- a standby
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', "SELECT llm_activate_adapter('a', 1)");
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
wait_for_model($standby);
is( $standby->safe_psql('postgres', answer('a')),
	$primary->safe_psql(
		'postgres', 'SELECT answer FROM expected WHERE version = 1'),
	'a standby serves the version that its primary activated');
$primary->safe_psql('postgres', "SELECT llm_activate_adapter('a', 3)");
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
is($standby->safe_psql('postgres', answer('a', $n_long)),
	$whole, 'and the next one, too');
for my $call (
	"llm_register_adapter('b', '$vectors/demo_one')",
	"llm_activate_adapter('a', 1)",
	"llm_drop_adapter('a')")
{
	($status, $out, $err) = $standby->psql('postgres', "SELECT $call");
	like($err, qr/in a read-only transaction/, "it refuses $call");
}

# ---- PEFT gets back what it wrote, and a model with the adapter inside it
my $exported = "${PostgreSQL::Test::Utils::tmp_check}/exported";
my $merged = "${PostgreSQL::Test::Utils::tmp_check}/merged";
$primary->safe_psql('postgres', "SELECT llm_export_adapter('a\@1', '$exported')");
$primary->safe_psql('postgres',
	"SELECT llm_register_adapter('back', '$exported')");
is( $primary->safe_psql('postgres',
		"SELECT count(DISTINCT digest) FROM llm.adapter_versions "
		  . "WHERE (adapter, version) IN (('a', 1), ('back', 1))"),
	'1',
	'an export is the same adapter');
$primary->safe_psql('postgres', <<END);
SELECT llm_merge_adapter('a\@1', '$merged', '{"dtype": "float32", "max_shard_bytes": 8000000}');
SELECT llm_load_model('$merged', 'merged');
END
is( $primary->safe_psql('postgres',
		"SELECT llm_ask('Hello!', '', '{\"model\": \"merged\", \"temperature\": 0, "
		  . '"max_tokens": 6, "ignore_eos": true}\')'),
	$primary->safe_psql(
		'postgres', 'SELECT answer FROM expected WHERE version = 1'),
	'the merged model answers like the adapter');# on a GPU the merged weights are rounded to bfloat16
my $near = ($ENV{LLM_TEST_DEVICE} || '') eq 'cuda' ? 0.2 : 0.05;
my $drift = $primary->safe_psql('postgres',
	"SELECT count(*), bool_and(same_token), max(max_difference) BETWEEN 0 AND $near "
	  . "FROM llm_merge_drift('a\@1', 'merged')");
is($drift, '3|t|t', 'and its log-probabilities are near')
  or diag($primary->safe_psql('postgres',
		"SELECT max(max_difference) FROM llm_merge_drift('a\@1', 'merged')"));

done_testing();
