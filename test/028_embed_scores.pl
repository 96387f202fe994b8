# 028_embed_scores.pl
#	Embeddings and label probabilities equal the reference implementation's,
#	alone, in company and after the executor died; a bad row among many does
#	what its on_error says.
#
# test/028_embed_scores.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP;
use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# a GPU has no float32
my $node = llm_node('main',
	conf => "llm_ext.dtype = 'float32'\nllm_ext.device = 'cpu'");
my $json = JSON::PP->new->utf8->canonical;
my $expected =
  $json->decode(slurp_file("$FindBin::RealBin/vectors/answers/demo.json"));

sub literal
{
	my ($value) = @_;
	my $text = ref $value ? $json->encode($value) : $value;
	utf8::encode($text) unless ref $value;
	$text =~ s/'/''/g;
	return "E'" . ($text =~ s/\\/\\\\/gr) . "'";
}

# The largest difference, or a large number where the lengths differ.
sub worst
{
	my ($got, $wanted) = @_;
	my $worst = 0;
	return 1000 if @$got != @$wanted;
	foreach my $i (0 .. $#$got)
	{
		my $difference = abs($got->[$i] - $wanted->[$i]);
		$worst = $difference if $difference > $worst;
	}
	return $worst;
}

sub vector
{
	my ($sql) = @_;
	return $json->decode($node->safe_psql('postgres', "SELECT to_json($sql)"));
}

sub length_of
{
	my ($vector) = @_;
	my $sum = 0;
	$sum += $_ * $_ foreach @$vector;
	return sqrt $sum;
}

# float32 against float64, over vectors whose elements are of order 1
my $tolerance = 2e-4;

foreach my $case (@{ $expected->{embeddings} })
{
	my $text = literal($case->{text});
	my $name = length($case->{text}) . ' characters';

	foreach my $pooling ('last', 'mean')
	{
		my $got = vector(
			"llm_embed($text, '{\"pooling\": \"$pooling\"}')");
		cmp_ok(worst($got, $case->{$pooling}),
			'<', $tolerance, "$pooling of $name");
	}
	is_deeply(
		vector("llm_embed($text)"),
		vector("llm_embed($text, '{\"pooling\": \"last\"}')"),
		"the last token is the default: $name");
	my $unit = vector(
		"llm_embed($text, '{\"normalize\": true, \"dimensions\": 8}')");
	is(scalar @$unit, 8, "dimensions: $name");
	cmp_ok(abs(length_of($unit) - 1), '<', 1e-5, "normalized: $name");
}

my $n_split = 0;
foreach my $case (@{ $expected->{scores} })
{
	my $text = literal($case->{text});
	my $labels =
	  'ARRAY[' . join(', ', map { literal($_) } @{ $case->{labels} }) . ']';
	my $name = join '|', map { s/\n/\\n/r } @{ $case->{labels} };
	utf8::encode($name);

	$n_split++ if $case->{plain}->{split};
	foreach my $ended (0, 1)
	{
		foreach my $per_token (0, 1)
		{
			my $options = $json->encode(
				{   score_end => $ended ? JSON::PP::true : JSON::PP::false,
					length_normalization => $per_token
					? JSON::PP::true
					: JSON::PP::false
				});
			my $got = vector(
				"llm_classify_probabilities($text, $labels, NULL, '$options')");
			cmp_ok(
				worst(
					$got,
					$case->{ $ended ? 'ended' : 'plain' }
					  ->{ $per_token ? 'mean' : 'sum' }),
				'<',
				$tolerance,
				"$name, end $ended, per token $per_token");
		}
	}
}
cmp_ok($n_split, '>', 0, 'some labels share a token with the prompt');

is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(label, ' '), round(sum(probability)::numeric, 6)
		  FROM llm_classify_scores('Hello!', ARRAY['praise', 'bug', 'question'])}),
	'praise bug question|1.000000',
	'labels in their order, probabilities of sum 1');

# -- the prompt's tokens in llm_completion --

# What was generated, sent again as a prompt, has the same log-probabilities.
is( $node->safe_psql(
		'postgres', q{
	WITH first AS MATERIALIZED (
		SELECT llm_completion('{"prompt": "The lamp", "max_tokens": 6, "temperature": 0,
			"ignore_eos": true, "logprobs": 1, "return_token_ids": true}') AS r),
	second AS MATERIALIZED (
		SELECT r, llm_completion(json_build_object('prompt',
			(r->'prompt_token_ids') || (r->'choices'->0->'token_ids'),
			'max_tokens', 1, 'echo', true, 'logprobs', 1, 'prompt_logprobs', 2)) AS s
		FROM first),
	parts AS (SELECT jsonb_array_length(r->'prompt_token_ids') AS n, r->'choices'->0 AS a,
			s->'choices'->0 AS b FROM second)
	SELECT position(a->>'text' IN b->>'text') > 0,
		jsonb_array_length(b->'logprobs'->'tokens') - n,
		b->'logprobs'->'token_logprobs'->0,
		jsonb_array_length(b->'prompt_logprobs') - n,
		b->'prompt_logprobs'->0,
		(SELECT count(*) FROM generate_series(0, 5) i
		 WHERE abs((a->'logprobs'->'token_logprobs'->>i)::float8
				   - (b->'logprobs'->'token_logprobs'->>(n + i))::float8) < 1e-3
		   AND abs((a->'logprobs'->'token_logprobs'->>i)::float8
				   - (b->'prompt_logprobs'->(n + i)->(a->'token_ids'->>i)->>'logprob')::float8) < 1e-3
		   AND (b->'prompt_logprobs'->(n + i)->(a->'token_ids'->>i)->>'rank')::int = 1)
	FROM parts}),
	't|7|null|6|null|6',
	'the log-probabilities of a prompt are those it was generated with');
my (undef, undef, $complaint) = $node->psql('postgres',
	q{SELECT llm_completion('{"messages": [], "echo": true}')});
like($complaint, qr/"echo" goes with "prompt"/, 'a chat has no echo');

# -- many at once, with a killed executor in the middle --

$node->safe_psql(
	'postgres', q{
	CREATE TABLE texts AS
	SELECT i, repeat('word ' || i || ' ', 1 + i % 40) AS t
	FROM generate_series(1, 150) i;
	CREATE TABLE alone AS SELECT i, llm_embed(t, '{"pooling": "mean"}') AS e
	FROM texts;
});
my $n_before = $node->safe_psql('postgres',
	"SELECT value FROM llm.metrics WHERE name = 'requests'");
my $session = start_sql($node,
	q{CREATE TABLE again AS SELECT i, llm_embed(t, '{"pooling": "mean"}') AS e
	  FROM texts;});
wait_for(
	sub {
		$node->safe_psql('postgres',
			"SELECT value > $n_before + 20 FROM llm.metrics WHERE name = 'requests'")
		  eq 't';
	},
	'requests of the statement');
kill 'KILL', executor_pid($node);
finish_sql($session);
is( $node->safe_psql(
		'postgres', q{
	SELECT count(*), count(*) FILTER (WHERE
		(SELECT max(abs(x - y)) FROM unnest(a.e, b.e) AS u (x, y)) < 1e-3)
	FROM alone a JOIN again b USING (i)}),
	'150|150',
	'embeddings survive the death of the executor');

$node->stop;
done_testing();
