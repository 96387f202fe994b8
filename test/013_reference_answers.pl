# 013_reference_answers.pl
#	The whole way from SQL and back equals the reference implementation: for
#	each prompt the rendered text, its token ids, the greedy answer's ids, and
#	its text, as transformers gave them in float32.
#
# test/013_reference_answers.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Encode;
use JSON::PP;
use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# a GPU computes in bfloat16
my $node = llm_node('main',
	conf => "llm_ext.dtype = 'float32'\nllm_ext.device = 'cpu'");
my $json = JSON::PP->new->utf8->canonical;
my $cases =
  $json->decode(slurp_file("$FindBin::RealBin/vectors/demo/prompts.json"));

# A JSON text as an SQL literal.
sub literal
{
	my ($value) = @_;
	my $text = ref $value ? $json->encode($value) : $value;
	$text =~ s/'/''/g;
	return "'$text'";
}

cmp_ok(scalar @$cases, '>=', 20, 'there are cases');
foreach my $case (@$cases)
{
	my %request = (
		temperature => 0,
		max_tokens => scalar @{ $case->{answer_ids} } + 5,
		return_token_ids => JSON::PP::true);
	my $name = substr($case->{text}, -60);
	$name =~ s/\n/ /g;
	if ($case->{messages})
	{
		$request{messages} = $case->{messages};
		is( decode_utf8(
				$node->safe_psql('postgres',
					'SELECT llm_render(' . literal($case->{messages}) . ')')),
			$case->{text},
			"rendered: $name");
	}
	else
	{
		$request{prompt} = $case->{prompt};
	}
	my $response = $json->decode(
		$node->safe_psql('postgres',
			'SELECT llm_completion(' . literal(\%request) . ')'));
	my $choice = $response->{choices}->[0];
	is_deeply($response->{prompt_token_ids}, $case->{ids}, "ids: $name");
	is_deeply($choice->{token_ids}, $case->{answer_ids}, "answer ids: $name");
	is(answer_text($choice), $case->{answer}, "answer: $name");
	is($choice->{finish_reason}, 'stop', "finished: $name");
}

sub answer_text
{
	my ($choice) = @_;
	return defined $choice->{text}
	  ? $choice->{text}
	  : $choice->{message}->{content};
}

$node->stop;
done_testing();
