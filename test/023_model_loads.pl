# 023_model_loads.pl
#	Loading, replacing and unloading models: what fails leaves what was there.
#
# test/023_model_loads.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd ();
use File::Copy qw(copy);
use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fake = llm_fake_executor();
my $good = llm_model_dir();

# a copy that can be damaged; readable by the server, which is us
my $dir = Cwd::abs_path(PostgreSQL::Test::Utils::tempdir()) . '/model';
mkdir $dir or die "could not create $dir: $!";
foreach my $file (glob "$good/*.json $good/*.jinja")
{
	copy($file, $dir) or die "could not copy $file: $!";
}

my $node = llm_node('main',
	model => "$dir?delay_ms=5",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'main'\n"
	  . 'llm_ext.max_models = 3');

sub answer
{
	my ($model, $max_tokens) = @_;
	return 'SELECT llm_completion(json_build_object('
	  . ($model ? "'model', '$model', " : '')
	  . "'prompt', json_build_array(1, 2, 3), 'max_tokens', $max_tokens, "
	  . "'ignore_eos', true, 'return_token_ids', true))"
	  . " #>> '{choices,0,token_ids}'";
}

sub models
{
	return $node->safe_psql('postgres',
		"SELECT string_agg(name || ' ' || state || CASE WHEN is_default THEN ' default' "
		  . "ELSE '' END, ', ' ORDER BY name) FROM llm.models");
}

# fails(sql, pattern, name)
sub fails
{
	my ($sql, $pattern, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	return like($err, $pattern, $name);
}

is(models(), 'main ready default', 'the configured model is the default');

# ---- loads that fail leave the old model alone
fails("SELECT llm_load_model('$dir?load=fail', 'main')",
	qr/cannot load ".*load=fail"\nHINT:  It was told to fail/,
	'the error of a load is raised');
fails("SELECT llm_load_model('$dir?load=crash', 'main')",
	qr/the executor was terminated by signal 6 .* while it loaded the model/,
	'an executor that dies while it loads is an error');
fails("SET statement_timeout = '300ms'; SELECT llm_load_model('$dir?load=hang', 'main')",
	qr/statement timeout/, 'a load can be cancelled');
fails("SELECT llm_load_model('$good', 'main', '{\"dtype\": \"int3\"}')",
	qr/option "dtype" does not know the value "int3"/,
	'options are checked before anything is started');
fails("SELECT llm_load_model('$good', 'main', '{\"max_modle_len\": 7}')",
	qr/unknown model option "max_modle_len"/, 'unknown options are named');
is($node->safe_psql('postgres', answer('main', 4)),
	'[1, 2, 3, 1]', 'the old model has been serving all along');
is(models(), 'main ready default', 'and is alone');
fails("SELECT llm_load_model('$dir?load=fail', 'other')",
	qr/cannot load/, 'a first load may fail as well');
is(models(), 'main ready default', 'and leaves no trace');
wait_for(sub { return scalar(executor_pids($node)) == 1 }, 'failed executors to end');
pass('no executor is left of it');

# ---- a time limit
$node->safe_psql('postgres', q{ALTER SYSTEM SET llm_ext.load_timeout = '1s'});
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
fails("SELECT llm_load_model('$dir?load=hang', 'other')",
	qr/did not load within 1 seconds/, 'a load that hangs ends at llm_ext.load_timeout');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET llm_ext.load_timeout');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');

# ---- one load per name at a time
my $loader = start_sql($node, "SELECT llm_load_model('$dir?load_ms=1500&delay_ms=5', 'slow')");
wait_for(sub { return models() =~ /slow loading/ }, 'the load to begin');
fails("SELECT llm_load_model('$dir', 'slow')",
	qr/model "slow" is being loaded already/, 'a second load has to wait its turn');
my $early = start_sql($node, answer('slow', 2));
my ($status, $out, $err) = finish_sql($loader);
is($out, 'slow', 'the first one succeeds');
($status, $out, $err) = finish_sql($early);
is($out, '[1, 2]', 'who asked for the model meanwhile has waited');

# ---- replacing while requests run
my $runner = start_sql($node, answer('main', 300));
wait_for(
	sub {
		return $node->safe_psql('postgres',
			"SELECT count(*) FROM llm.activity WHERE state = 'running'") eq '1';
	},
	'a request to run');
my ($old_pid) = $node->safe_psql('postgres',
	"SELECT executor_pid FROM llm.activity");
$node->safe_psql('postgres', "SELECT llm_load_model('$good', 'main')");
is( $node->safe_psql('postgres',
		"SELECT state FROM llm.executors WHERE pid = $old_pid"),
	'draining',
	'the old executor drains');
is($node->safe_psql('postgres', answer('main', 1)), '[1]', 'the new one serves');
($status, $out, $err) = finish_sql($runner);
is(length($out), length('[' . join(', ', (1, 2, 3) x 100) . ']'),
	'the request that was running finishes');
wait_until_gone($old_pid, 10);
pass('then the old executor ends');

# ---- as many as may be
$node->safe_psql('postgres', "SELECT llm_load_model('$good', 'third')");
fails("SELECT llm_load_model('$good', 'fourth')",
	qr/3 models are loaded already\nHINT:  .*llm_ext\.max_models/,
	'the table of models is bounded');

# ---- choosing and unloading
$node->safe_psql('postgres', "SELECT llm_default_model('third')");
is($node->safe_psql('postgres', answer('', 2)), '[1, 2]', 'another default');
$node->safe_psql('postgres', "SELECT llm_unload_model('third')");
fails(answer('third', 1), qr/model "third" is not loaded/, 'an unloaded model is unknown');
fails(answer('', 1), qr/there is no default model/, 'a default is not guessed');
fails("SELECT llm_unload_model('third')", qr/model "third" is not loaded/,
	'unloading twice');
$node->safe_psql('postgres', "SELECT llm_default_model('main')");
$runner = start_sql($node, answer('slow', 800));
wait_for(
	sub {
		return $node->safe_psql('postgres',
			"SELECT count(*) FROM llm.activity WHERE model = 'slow'") eq '1';
	},
	'a request to run');
$node->safe_psql('postgres', "SELECT llm_unload_model('slow')");
($status, $out, $err) = finish_sql($runner);
like($out, qr/^\[1, 2, 3/, 'what runs on an unloaded model finishes');

# ---- llm_ext.model changes
$node->safe_psql('postgres', "ALTER SYSTEM SET llm_ext.model = '$good?load=fail'");
$node->safe_psql('postgres', 'ALTER SYSTEM SET llm_ext.model_name = next');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
wait_for(sub { return models() =~ /next failed/ }, 'the load to fail');
is($node->safe_psql('postgres', answer('', 2)), '[1, 2]',
	'a new llm_ext.model that cannot be loaded leaves the old one');
fails(answer('next', 1), qr/model "next" could not be loaded: cannot load/,
	'its error is kept');
$node->safe_psql('postgres', "ALTER SYSTEM SET llm_ext.model = '$good'");
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
wait_for(sub { return models() eq 'next ready default' },
	'the new model to take over');
pass('a new llm_ext.model takes the place of the old one');

# ---- a model that cannot be started again
$node->safe_psql('postgres', "SELECT llm_load_model('$dir', 'main')");
unlink "$dir/config.json" or die "could not remove: $!";
my ($victim) = $node->safe_psql('postgres',
	"SELECT pid FROM llm.executors WHERE model = 'main'");
kill 'KILL', $victim;
wait_until_gone($victim);
$runner = start_sql($node, answer('main', 2));
($status, $out, $err) = finish_sql($runner);
like($err, qr/the executor of model "main" could not be restarted: .*config\.json/,
	'requests fail when five restarts have failed');
fails(answer('main', 1), qr/could not be restarted/, 'later ones fail at once');
$node->safe_psql('postgres', "SELECT llm_load_model('$good', 'main')");
is($node->safe_psql('postgres', answer('main', 2)), '[1, 2]',
	'loading it anew repairs it');

wait_for_idle($node);
$node->stop;

# ---- no executor to run
$node->append_conf('postgresql.conf', "llm_ext.executor_path = '/nowhere/llm_executor'");
$node->start;
wait_for(sub { return models() =~ /next failed/ }, 'the load to fail');
fails(answer('', 1), qr{could not run the executor "/nowhere/llm_executor"},
	'a missing program is named');
$node->stop;

# ---- not preloaded
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
fails(answer('', 1), qr/llm_ext is not in shared_preload_libraries/,
	'without shared_preload_libraries functions say so');
fails('SELECT * FROM llm.activity', qr/llm_ext is not in shared_preload_libraries/,
	'views, too');
is( $node->safe_psql('postgres', "LOAD 'llm_ext'; SHOW llm_ext.request_timeout"),
	'0', 'the settings of a session are there');
$node->stop;
done_testing();
