# 035_accounts.pl
#	Tokens are counted exactly, whatever becomes of the statement, and over
#	restarts; budgets and limits end statements; llm_enrich in two sessions
#	does each row once, and stops when it is cancelled.
#
# test/035_accounts.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = llm_node('main');

# requests|prompt|output of a role, over all lines
sub usage_of
{
	my ($role) = @_;
	return $node->safe_psql(
		'postgres', qq{
		SELECT sum(requests), sum(prompt_tokens), sum(output_tokens)
		FROM llm.usage WHERE usename = '$role'});
}

# The scheduler counts before an answer's end is seen, but shows it in turns.
sub usage_becomes
{
	my ($role, $expected, $name) = @_;
	wait_for(sub { usage_of($role) eq $expected }, "usage $expected, has "
		  . usage_of($role));
	pass($name);
}

my ($status, $out, $err);

$node->safe_psql(
	'postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	GRANT CREATE ON SCHEMA public TO alice;
	SELECT llm_grant_model('demo', 'public');
});

# -- exact counts --

my $usage = $node->safe_psql(
	'postgres',
	q{SELECT u->>'prompt_tokens', u->>'completion_tokens'
	  FROM (SELECT llm_completion('{"prompt": "once upon a time",
		"temperature": 0, "max_tokens": 12, "ignore_eos": true}')->'usage' AS u) s},
	extra_params => [ '-U', 'alice' ]);
my ($n_prompt, $n_output) = split /\|/, $usage;
is($n_output, 12, 'an answer of 12 tokens');
usage_becomes('alice', "1|$n_prompt|12", 'an answer is counted');

$node->safe_psql(
	'postgres',
	q{BEGIN;
	  SELECT llm_generate('once upon a time', options =>
		'{"temperature": 0, "max_tokens": 12, "ignore_eos": true}');
	  ROLLBACK;},
	extra_params => [ '-U', 'alice' ]);
usage_becomes('alice', '2|' . 2 * $n_prompt . '|24',
	'so is that of a transaction that was rolled back');

$node->safe_psql(
	'postgres',
	q{SELECT llm_embed('once upon a time')},
	extra_params => [ '-U', 'alice' ]);
usage_becomes('alice', '3|' . 3 * $n_prompt . '|24',
	'an embedding has a prompt and no output');

my $session = start_sql(
	$node,
	q{SELECT llm_generate('once upon a time', options =>
		'{"temperature": 0, "max_tokens": 1900, "ignore_eos": true}');},
	user => 'alice');
wait_for(
	sub {
		$node->safe_psql('postgres',
			'SELECT count(*) FROM llm.activity WHERE output_tokens > 5') > 0;
	},
	'a running answer');
cancel_sql($session);
finish_sql($session);
wait_for(sub { usage_of('alice') =~ /^4\|/ }, 'the end of what was cancelled');
my ($n_requests, $n_prompts, $n_outputs) = split /\|/, usage_of('alice');
is($n_prompts, 4 * $n_prompt, 'the prompt of a cancelled answer is counted');
cmp_ok($n_outputs, '>=', 24 + 5, 'so are its tokens');
cmp_ok($n_outputs, '<', 24 + 1900, 'as many as there were');

is( $node->safe_psql(
		'postgres', 'SELECT count(*) FROM llm.usage',
		extra_params => [ '-U', 'bob' ]),
	'0',
	'nobody sees the lines of others');
is( $node->safe_psql(
		'postgres', q{SELECT DISTINCT datname, model, adapter IS NULL,
			abs(day - (now() AT TIME ZONE 'UTC')::date) <= 1
			FROM llm.usage WHERE usename = 'alice'}),
	'postgres|demo|t|t',
	'database, model, adapter and day');

# -- restarts --

my $before = usage_of('alice');
$node->restart;
wait_for_model($node);
is(usage_of('alice'), $before, 'a restart keeps the accounts');
kill 'TERM', scheduler_pid($node);
wait_for_model($node);
is(usage_of('alice'), $before, 'so does a new scheduler');
$node->stop('immediate');
$node->start;
wait_for_model($node);
is(usage_of('alice'), $before, 'a crash keeps what the file had');

# -- budgets and limits --

my $used = $n_prompts + $n_outputs;
$node->safe_psql('postgres',
	"INSERT INTO llm.token_budgets VALUES ('alice', $used + 1)");
$node->safe_psql(
	'postgres',
	q{SELECT llm_embed('once upon a time')},
	extra_params => [ '-U', 'alice' ]);
wait_for(sub { usage_of('alice') =~ /^5\|/ }, 'the last request');
($status, $out, $err) = $node->psql(
	'postgres',
	q{SELECT llm_embed('once', '{"on_error": "null"}')},
	extra_params => [ '-U', 'alice' ]);
isnt($status, 0, 'a budget that is used up ends the statement');
like($err, qr/role "alice" has used up its tokens of today/, 'and says so');
$node->safe_psql('postgres',
	"INSERT INTO llm.token_budgets VALUES (0::oid::regrole, 0)");
($status, $out, $err) = $node->psql(
	'postgres', q{SELECT llm_embed('once')},
	extra_params => [ '-U', 'bob' ]);
isnt($status, 0, 'the budget of public is for those without their own');
is( $node->safe_psql('postgres', q{SELECT llm_embed('once') IS NOT NULL}),
	't', 'but not for superusers');
$node->safe_psql('postgres', 'DELETE FROM llm.token_budgets');

$node->safe_psql('postgres',
	'ALTER ROLE alice SET llm_ext.max_tokens_per_statement = 40');
($status, $out, $err) = $node->psql(
	'postgres',
	q{SELECT llm_generate('once', options => '{"max_tokens": 8,
		"ignore_eos": true, "on_error": "null"}') IS NOT NULL},
	extra_params => [ '-U', 'alice' ]);
is("$status|$out", '0|t', 'a statement within its limit');
($status, $out, $err) = $node->psql(
	'postgres',
	q{SELECT llm_generate('once ' || i, options => '{"max_tokens": 8,
		"ignore_eos": true, "on_error": "null"}') FROM generate_series(1, 50) i},
	extra_params => [ '-U', 'alice' ]);
isnt($status, 0, 'and one beyond');
like($err, qr/the statement used more than 40 tokens/, 'it says so');
($status, $out, $err) = $node->psql(
	'postgres', 'SET llm_ext.max_tokens_per_statement = 0',
	extra_params => [ '-U', 'alice' ]);
isnt($status, 0, 'whom it binds cannot raise it');
$node->safe_psql('postgres', 'ALTER ROLE alice RESET ALL');

# -- one poisoned row in many --

$node->safe_psql(
	'postgres', q{
	CREATE TABLE many AS SELECT i, 'text ' || i AS t FROM generate_series(1, 300) i;
	UPDATE many SET t = repeat('word ', 5000) WHERE i = 150;
	UPDATE many SET t = NULL WHERE i = 151;
});
($status, $out, $err) = $node->psql('postgres',
	q{SELECT count(llm_embed(t)) FROM many});
isnt($status, 0, 'a text that is too long ends the statement');
like($err, qr/has more tokens than the model's context/, 'with the reason');
($status, $out, $err) = $node->psql(
	'postgres',
	q{SELECT count(e), min(i) FILTER (WHERE e IS NULL), max(i) FILTER (WHERE e IS NULL)
	  FROM (SELECT i, llm_embed(t, '{"on_error": "null"}') AS e FROM many OFFSET 0) s});
is($out, '298|150|151', 'with on_error it is NULL, as is NULL');
is(scalar(() = $err =~ /WARNING/g), 1, 'with one warning, and none for NULL');
($status, $out, $err) = $node->psql(
	'postgres',
	q{SET llm_ext.on_error = 'null';
	  SELECT count(e) FROM (SELECT llm_embed(t) AS e FROM many OFFSET 0) s});
is($out, '298', 'the setting does the same');
($status, $out, $err) = $node->psql('postgres',
	q{SELECT llm_embed(t, '{"pooling": 7, "on_error": "null"}') FROM many});
isnt($status, 0, 'a wrong option is the statement\'s fault');
is($node->safe_psql('postgres', 'SELECT count(*) FROM llm.activity'),
	'0', 'no slot was left behind');

# -- llm_enrich in two sessions --

$node->safe_psql(
	'postgres', q{
	CREATE TABLE work (id int PRIMARY KEY, t text, n int);
	INSERT INTO work SELECT i, 'text ' || i FROM generate_series(1, 400) i;
	UPDATE work SET t = repeat('word ', 5000) WHERE id % 100 = 0;
	CREATE TABLE log (id int);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	  'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END';
	CREATE TRIGGER note AFTER UPDATE ON work FOR EACH ROW EXECUTE FUNCTION note();
});
my $call = q{CALL llm_enrich('work', 'n', 'cardinality(llm_embed(t))',
	rows_per_commit => 20);};
my @sessions = map { start_sql($node, $call) } 1 .. 2;
foreach my $running (@sessions)
{
	($status, $out, $err) = finish_sql($running);
	is("$status$err", '0', 'a session is done');
}
is( $node->safe_psql('postgres',
		'SELECT count(n), count(*) FILTER (WHERE n IS NULL) FROM work'),
	'396|4',
	'all rows are done but four');
is( $node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM log'),
	'396|396',
	'each once');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(key->>0, ' ' ORDER BY key), min(sqlstate)
		  FROM llm.enrich_failures}),
	'100 200 300 400|54000',
	'the four have their reasons');
is( $node->safe_psql(
		'postgres',
		'SELECT sum(rows_done), sum(rows_failed) FROM llm.enrich_progress'),
	'396|4',
	'the progress adds up');

$node->safe_psql('postgres',
	q{DELETE FROM llm.enrich_failures; TRUNCATE work;
	  INSERT INTO work SELECT i, 'text ' || i FROM generate_series(1, 400) i});
$session = start_sql($node,
	q{CALL llm_enrich('work', 'n', 'cardinality(llm_embed(t))
		+ CASE WHEN id > 60 THEN (SELECT 0 FROM pg_sleep(1000)) ELSE 0 END',
		rows_per_commit => 5);});
wait_for(
	sub {
		$node->safe_psql('postgres',
			q{SELECT count(*) FROM llm.enrich_progress
			  WHERE state = 'running' AND rows_done > 10}) > 0;
	},
	'progress');
cancel_sql($session);
($status, $out, $err) = finish_sql($session);
like($err, qr/canceling statement/, 'a cancel ends it');
my $n_done = $node->safe_psql('postgres', 'SELECT count(n) FROM work');
cmp_ok($n_done, '>', 10, 'what was committed stays');
cmp_ok($n_done, '<=', 60, 'and the rest is left');
is( $node->safe_psql(
		'postgres',
		q{SELECT state, rows_done + rows_failed FROM llm.enrich_progress ORDER BY id DESC LIMIT 1}),
	"stopped|$n_done",
	'the view says so');
$node->safe_psql('postgres', $call);
is($node->safe_psql('postgres', 'SELECT count(n) FROM work'),
	'400', 'the next call goes on where it stopped');

$node->stop;
done_testing();
