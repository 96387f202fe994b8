# 040_valid_answers.pl
#	Valid by construction: schemas at random, answers at temperature 1.5, and
#	every answer that ended by itself is JSON and valid.
#
# What is JSON, PostgreSQL says; what is valid, Python's jsonschema, where it
# is installed.  A few schemas by default; LLM_VALID_SCHEMAS and
# LLM_VALID_ANSWERS (for each) ask for more.
#
# test/040_valid_answers.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP;
use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_schemas = $ENV{LLM_VALID_SCHEMAS} || 40;
my $n_answers = ($ENV{LLM_VALID_ANSWERS} || 5) + 0;
my $python = $ENV{LLM_VALID_PYTHON} || 'python3';
my $json = JSON::PP->new->utf8->canonical;

# Numbers of our own: rand may differ from one Perl to another.
my $state = 20;

sub draw
{
	my ($n) = @_;
	$state = ($state * 1103515245 + 12345) % 2147483648;
	return int($state / 65536) % $n;
}

sub any_of { return $_[ draw(scalar @_) ]; }

sub number_schema
{
	my $low = draw(200) - 100;
	my %schema = (type => any_of('integer', 'number'));
	$schema{ any_of('minimum', 'exclusiveMinimum') } = $low if draw(2);
	$schema{ any_of('maximum', 'exclusiveMaximum') } = $low + 2 + draw(1000)
	  if draw(2);
	$schema{multipleOf} = any_of(2, 5, 10)
	  if $schema{type} eq 'integer' && !draw(4);
	return \%schema;
}

sub string_schema
{
	my $kind = draw(4);
	return { type => 'string',
		format => any_of(qw(date date-time uuid email ipv4 time)) }
	  if $kind == 0;
	return { type => 'string',
		pattern => any_of('^[a-z]{2,5}$', '^\\d{3}-[A-F]+$', '^(x|yz)*$', '^A') }
	  if $kind == 1;
	return { type => 'string', minLength => draw(4), maxLength => 4 + draw(20) }
	  if $kind == 2;
	return { enum => [ 'red', 'green', 7, JSON::PP::true, undef, 'a"b' ] };
}

sub object_schema
{
	my ($depth) = @_;
	my %properties = map { ("key_$_" => schema($depth + 1)) } 0 .. draw(4);
	my @required = grep { draw(2) } sort keys %properties;
	return {
		type => 'object', properties => \%properties,
		required => \@required, additionalProperties => JSON::PP::false };
}

# Depth keeps answers within the model's context.
sub schema
{
	my ($depth) = @_;
	my $kind = draw($depth > 2 ? 4 : 8);
	return number_schema() if $kind == 0;
	return string_schema() if $kind < 3;
	return { type => any_of('boolean', 'null', ['boolean', 'null']) }
	  if $kind == 3;
	return {
		type => 'array', items => schema($depth + 1),
		minItems => draw(3), maxItems => 3 + draw(3) }
	  if $kind == 4;
	return { anyOf => [ schema($depth + 1), schema($depth + 1) ] }
	  if $kind == 5;
	return object_schema($depth);
}

my $node = llm_node('main');
my @pairs;
my ($n_ended, $n_cut, $n_broken) = (0, 0, 0);

foreach my $i (1 .. $n_schemas)
{
	my $schema = schema(0);
	my $request = $json->encode(
		{	messages => [ { role => 'user', content => "Answer $i as JSON." } ],
			n => $n_answers, temperature => 1.5, seed => $i, max_tokens => 300,
			guided_json => $schema });
	$request =~ s/'/''/g;
	my $choices = $json->decode($node->safe_psql('postgres',
		"SELECT llm_completion('$request')->'choices'"));
	foreach my $choice (@$choices)
	{
		if ($choice->{finish_reason} ne 'stop')
		{
			$n_cut++;
			next;
		}
		$n_ended++;
		push @pairs, [ $schema, $choice->{message}->{content} ];
	}
}
cmp_ok($n_ended, '>', $n_cut, "most answers end: $n_ended, $n_cut were cut");

# PostgreSQL reads them all
while (my @some = @pairs[ $n_broken .. ($n_broken + 499 < $#pairs ? $n_broken + 499 : $#pairs) ])
{
	my $values = join ', ', map { my $text = $_->[1]; $text =~ s/'/''/g; utf8::encode($text); "('$text')" } @some;
	my $n = $node->safe_psql('postgres',
		"SELECT count(v::jsonb) FROM (VALUES $values) t(v)");
	last if $n != @some;
	$n_broken += @some;
	last if $n_broken > $#pairs;
}
is($n_broken, scalar @pairs, 'all that ended are JSON for PostgreSQL');

SKIP:
{
	skip 'Python has no jsonschema', 1
	  if system("$python -c 'import jsonschema' 2>/dev/null") != 0;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	append_to_file("$dir/pairs.json", $json->encode(\@pairs));
	append_to_file("$dir/check.py", <<'PYTHON');
import json, sys
from jsonschema import Draft202012Validator as Validator
wrong = 0
for schema, answer in json.load(open(sys.argv[1])):
    value = json.loads(answer)
    if not Validator(schema, format_checker=Validator.FORMAT_CHECKER).is_valid(value):
        wrong += 1
        print(json.dumps(schema), answer, file=sys.stderr)
print(wrong)
PYTHON
	my $wrong = `$python $dir/check.py $dir/pairs.json`;
	is($wrong, "0\n", "all $n_ended are valid for jsonschema");
}

$node->stop;
done_testing();
