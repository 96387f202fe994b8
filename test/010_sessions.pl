# 010_sessions.pl
#	Many sessions at once: every greedy answer equals the one given alone.
#
# test/010_sessions.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_sessions = 64;
my $node = llm_node('main');

# Different lengths and stop conditions, one per session.
$node->safe_psql(
	'postgres', q{
	CREATE TABLE cases AS
	SELECT id,
		   (ARRAY['Hello!', 'Who are you?', 'What can you do?', 'Thank you!',
				  'What is the sentiment of this review? The battery died after a day.',
				  'What is the topic of this review? Delivery took three weeks.'])[1 + id % 6]
		   || repeat(' Please answer.', id % 5) AS question,
		   CASE id % 4
			   WHEN 0 THEN jsonb_build_object('temperature', 0, 'max_tokens', 1 + id)
			   WHEN 1 THEN jsonb_build_object('temperature', 0, 'max_tokens', 40,
											  'ignore_eos', true)
			   WHEN 2 THEN jsonb_build_object('temperature', 0, 'max_tokens', 40,
											  'stop', jsonb_build_array('e', '.'))
			   ELSE jsonb_build_object('temperature', 0, 'max_tokens', 40,
									   'repetition_penalty', 1.3,
									   'presence_penalty', 0.5)
		   END AS options
	FROM generate_series(1, 64) id;
	CREATE TABLE alone AS
	SELECT id, llm_ask(question, options => options) AS answer FROM cases ORDER BY id;
	CREATE TABLE together (id int, round int, answer text);
});

my @sessions;
for my $id (1 .. $n_sessions)
{
	my $sql = '';
	foreach my $round (1 .. 3)
	{
		$sql .= "INSERT INTO together SELECT id, $round, "
		  . "llm_ask(question, options => options) FROM cases WHERE id = $id;\n";
	}
	push @sessions, start_sql($node, $sql);
}
my $n_failed = 0;
foreach my $session (@sessions)
{
	my ($status, $out, $err) = finish_sql($session);
	$n_failed++ if $status != 0;
	diag($err) if $status != 0;
}
is($n_failed, 0, "$n_sessions sessions ended without an error");
is( $node->safe_psql('postgres', 'SELECT count(*) FROM together'),
	3 * $n_sessions,
	'every question was answered');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM together t JOIN alone a USING (id) '
		  . 'WHERE t.answer IS DISTINCT FROM a.answer'),
	'0',
	'every answer equals the one given alone');
is($node->safe_psql('postgres', 'SELECT count(*) FROM llm.activity'),
	'0', 'no slot is in use');

$node->stop;
done_testing();
