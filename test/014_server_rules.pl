# 014_server_rules.pl
#	What a server expects of an extension: other encodings, interrupts that
#	are no cancel, rights that are taken away, dumps.
#
# test/014_server_rules.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = llm_node('main');

sub sql
{
	return $node->safe_psql($_[1] || 'postgres', $_[0]);
}

# ---- a database whose encoding lacks most of what a model can say
sql(    "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 "
	  . "LOCALE 'C'");
sql('CREATE EXTENSION llm_ext', 'latin');
is( sql("SELECT llm_detokenize(llm_tokenize('na' || chr(239) || 've')) = "
		  . "'na' || chr(239) || 've'", 'latin'),
	't', 'texts are converted both ways');
is( sql("SELECT llm_completion('{\"messages\": [{\"role\": \"user\", "
		  . "\"content\": \"\\u4e2d\"}], \"max_tokens\": 1}') IS NOT NULL",
		'latin'),
	't',
	'an escaped character reaches the model, whether the encoding has it or not');
# every token once, the halves of characters among them
is( sql("SELECT count(*) FROM (SELECT llm_completion(json_build_object("
		  . "'prompt', 'x', 'max_tokens', 1, 'ignore_eos', true, 'logprobs', 1, "
		  . "'logit_bias', json_build_object(i, 100), 'on_error', 'null')) r "
		  . "FROM generate_series(0, 300, 3) i) s WHERE r IS NOT NULL", 'latin') > 90,
	1,
	'bytes that are no character are no error');
my ($status, $out, $err) = $node->psql('latin',
	"SELECT llm_render('[{\"role\": \"user\", \"content\": \"\\u4e2d\"}]')");
like($err, qr/encoding "LATIN1" lacks/, 'other characters are');
($status, $out, $err) =
  $node->psql('latin', "SELECT llm_load_model('/x', 'd' || chr(233))");
like($err, qr/ASCII characters/, 'model names mean the same in all encodings');

# ---- interrupts that are no cancel
is( sql("SET client_connection_check_interval = '2ms'; "
		  . "SELECT cardinality(llm_tokenize(repeat('x ', 1000000)))") > 1000000,
	1,
	'a check of the connection does not stop tokenization');
($status, $out, $err) = $node->psql('postgres',
	"SET statement_timeout = 200; "
	  . "SELECT length(llm_detokenize(array_fill(300, ARRAY[20000000])))");
like($err, qr/statement timeout/, 'detokenization can be cancelled');

# ---- rights
sql("CREATE ROLE reader; CREATE ROLE gone");
my $ask = "SELECT llm_ask('Hello!', options => '{\"max_tokens\": 1}') IS NOT NULL";
# a session that goes on when this test says so
sql('CREATE TABLE go_on (step int); GRANT SELECT ON go_on TO PUBLIC');
sub wait_for_step
{
	return "DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM go_on WHERE step = $_[0]) "
	  . "LOOP PERFORM pg_sleep(0.02); END LOOP; END \$\$;\n";
}
my $session = start_sql($node,
	"SET ROLE reader;\nBEGIN;\nSELECT 'begun';\n"
	  . wait_for_step(1) . "$ask;\nSELECT 'asked';\n"
	  . wait_for_step(2) . "$ask;\n");
wait_for(sub { return sql_output($session) =~ /begun/; }, 'a transaction');
sql("SELECT llm_grant_model('demo', 'reader'); INSERT INTO go_on VALUES (1)");
wait_for(sub { return sql_output($session) =~ /asked|ERROR/; }, 'an answer');
sql("SELECT llm_revoke_model('demo', 'reader'); INSERT INTO go_on VALUES (2)");
($status, $out, $err) = finish_sql($session);
is($out, "begun\nt\nasked", 'a grant is seen by the next statement');
like($err, qr/permission denied for model "demo"/,
	'so is a revocation, within a transaction too');

# ---- dumps
sql("SELECT llm_grant_model('demo', 'reader'), llm_grant_model('demo', 'gone'), "
	  . "llm_grant_model('demo', 'public'); DROP ROLE gone");
my ($dump) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
my ($grants) = $dump =~ /^COPY llm\.model_grants .*?;\n(.*?)^\\\.$/ms;
is( join(' ', sort split /\n/, $grants),
	"demo\t- demo\treader",
	'grants to roles that are gone are not restored');
sql('CREATE DATABASE other');
sql('CREATE EXTENSION llm_ext', 'other');
sql('DROP EXTENSION llm_ext', 'other');
is( sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'llm'", 'other'),
	'0', 'dropping the extension leaves nothing');
sql('CREATE EXTENSION llm_ext', 'other');

# ---- streams outlive what they came from
sql("SELECT llm_grant_model('demo', 'public'); CREATE ROLE talker");
$session = start_sql($node,
	"SET ROLE talker;\nBEGIN;\nDECLARE talk CURSOR FOR SELECT llm_chat_stream("
	  . "'[{\"role\": \"user\", \"content\": \"Hello!\"}]', options => "
	  . "'{\"temperature\": 0, \"max_tokens\": 300, \"ignore_eos\": true}');\n"
	  . "MOVE 1 FROM talk;\nSELECT 'begun';\n"
	  . wait_for_step(3)
	  . "MOVE ALL FROM talk;\nSELECT 'ended';\nCOMMIT;\n");
wait_for(sub { return sql_output($session) =~ /begun/; }, 'a stream');
sql('DROP ROLE talker');
my $unload = start_sql($node, "SELECT llm_unload_model('demo')");
sql('INSERT INTO go_on VALUES (3)');
($status, $out, $err) = finish_sql($session);
is("$out|$err", "begun\nended|",
	'a stream ends well when its role and its model are gone');
($status, $out, $err) = finish_sql($unload);
is($err, '', 'the model is unloaded');
wait_for_idle($node);

$node->stop;
done_testing();
