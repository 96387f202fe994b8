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

# Numbers that overlap, and numbers that must not be some.
sub cut_number_schema
{
	my $low = draw(200) - 100;
	my $kind = draw(4);
	return { oneOf => [ { type => 'integer', minimum => $low },
			{ type => 'number', maximum => $low + draw(50) } ] }
	  if $kind == 0;
	return { type => 'number', minimum => $low, maximum => $low + 500,
		multipleOf => any_of(0.25, 0.5, 2.5, 3) }
	  if $kind == 1;
	return { type => 'integer', not => { multipleOf => any_of(2, 3, 10) } }
	  if $kind == 2;
	return { type => 'integer', minimum => $low, maximum => $low + 9,
		not => { enum => [ $low + draw(3), $low + 3 + draw(3) ] } };
}

# Patterns with lengths, patterns together, patterns that must not match.
sub cut_string_schema
{
	my $kind = draw(7);
	my $max = 4 + draw(12);
	return { type => 'string', pattern => any_of('^[a-z]+$', '[0-9]', '^(ab|c)*$', 'x$'),
		minLength => draw(3), maxLength => $max }
	  if $kind == 0;
	return { type => 'string', maxLength => $max,
		allOf => [ { pattern => '^[a-f]' }, { pattern => '[0-9]$' } ] }
	  if $kind == 1;
	return { type => 'string', pattern => '^[a-z]{1,6}$',
		not => any_of({ enum => [ 'a', 'is', 'to' ] }, { pattern => '^[aeiou]' }) }
	  if $kind == 2;
	return { type => 'string', pattern => '^(?=.*[A-Z])(?=.*[0-9])(?!A)[A-Za-z0-9]{3,9}$' }
	  if $kind == 3;
	return { type => 'string', format => any_of('email', 'ipv4'), maxLength => 15 }
	  if $kind == 4;
	return { oneOf => [ { type => 'string', pattern => '^[a-m]+$' },
			{ type => 'string', pattern => '^[g-z]+$' } ], maxLength => $max }
	  if $kind == 5;
	return { enum => [ 'red', 'blue', 7, 12, 'green' ], minLength => 4, maximum => 10 };
}

# Objects by what their names are, how many there are and what they bring along.
sub cut_object_schema
{
	my ($depth) = @_;
	my $kind = draw(7);
	my %abc = map { ($_ => schema($depth + 1)) } qw(a b c);
	return { type => 'object', properties => \%abc, additionalProperties => JSON::PP::false,
		minProperties => draw(3), maxProperties => 2 }
	  if $kind == 0;
	return { type => 'object', properties => \%abc,
		oneOf => [ { required => ['a'] }, { required => ['b'] } ] }
	  if $kind == 1;
	return { type => 'object', properties => { kind => { enum => [ 'x', 'y' ] }, %abc },
		required => ['kind'],
		if => { properties => { kind => { const => 'x' } } },
		then => { required => ['a'] }, else => { properties => { a => JSON::PP::false } } }
	  if $kind == 2;
	return { type => 'object', properties => \%abc, dependentRequired => { a => ['b'], c => ['a'] } }
	  if $kind == 3;
	return { type => 'object', maxProperties => 2, additionalProperties => JSON::PP::false,
		patternProperties => { '^x[a-z]{1,4}$' => schema($depth + 1), '^[a-z]{1,2}$' => { type => 'integer' } } }
	  if $kind == 4;
	return { type => 'object', maxProperties => 2, additionalProperties => schema($depth + 1),
		propertyNames => { pattern => '^[a-z_]+$', maxLength => 6 } }
	  if $kind == 5;
	return { allOf => [ { properties => { a => $abc{a} } } ], type => 'object',
		properties => { b => $abc{b} }, required => ['b'], unevaluatedProperties => JSON::PP::false };
}

sub cut_array_schema
{
	return { type => 'array', items => { enum => [ 'a', 'b', 3, undef ] },
		uniqueItems => JSON::PP::true, minItems => draw(3) }
	  if draw(2);
	return { type => 'array', items => { type => 'integer', minimum => 0, maximum => 99 },
		contains => { minimum => 50 }, minContains => 1 + draw(2), maxContains => 2, maxItems => 4 };
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
	my $kind = draw($depth > 2 ? 6 : 12);
	return cut_number_schema() if $kind == 4;
	return cut_string_schema() if $kind == 5;
	return cut_object_schema($depth) if $kind == 6;
	return cut_array_schema() if $kind == 7;
	return number_schema() if $kind == 0;
	return string_schema() if $kind < 3;
	return { type => any_of('boolean', 'null', ['boolean', 'null']) }
	  if $kind == 3;
	return {
		type => 'array', items => schema($depth + 1),
		minItems => draw(3), maxItems => 3 + draw(3) }
	  if $kind == 8;
	return { anyOf => [ schema($depth + 1), schema($depth + 1) ] }
	  if $kind == 9;
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
