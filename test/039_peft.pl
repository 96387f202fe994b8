# 039_peft.pl
#	What jobs train is what PEFT loads: their exports, in transformers, say
#	every learned token with the log-probability that serving gives it.
#
# Needs Python with peft, torch and transformers (LLM_PEFT_PYTHON says which);
# skipped where there is none.
#
# test/039_peft.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP;
use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $python = $ENV{LLM_PEFT_PYTHON} || 'python3';

plan skip_all => 'Python has no peft'
  if system("$python -c 'import peft, torch, transformers' >/dev/null 2>&1") != 0;

# Of a sum of log-probabilities; with bf16 weights, f32 elsewhere on both sides.
my $bound = 1e-4;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = llm_node('main', conf => "llm_ext.dtype = 'float32'");
my %jobs = (
	plain => '"lora_rank": 3, "lora_alpha": 10',
	dora => '"lora_rank": 4, "use_dora": true, "use_rslora": true, "lora_target": "q_proj,v_proj,down_proj"',
);
my $query = 'SELECT id, messages FROM talk ORDER BY id';

append_to_file("$dir/check.py", <<'PYTHON');
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model_dir, dir = sys.argv[1:]


def log_prob(model, ids, labels):
    logits = model(input_ids=torch.tensor([ids])).logits[0].float()
    scores = torch.log_softmax(logits, -1)
    return sum(scores[i - 1, ids[i]].item() for i in range(1, len(ids)) if labels[i])


for name, rows in json.load(open(dir + "/rows.json")).items():
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.no_grad():
        base = [log_prob(model, r["ids"], r["labels"]) for r in rows]
        model = PeftModel.from_pretrained(model, f"{dir}/{name}").eval()
        found = [log_prob(model, r["ids"], r["labels"]) for r in rows]
    for r, b, f in zip(rows, base, found):
        print(name, r["log_prob"], f, b)
PYTHON

$node->safe_psql('postgres', <<'END');
CREATE TABLE talk (id int PRIMARY KEY, messages jsonb);
INSERT INTO talk SELECT i, jsonb_build_array(
	jsonb_build_object('role', 'user', 'content', 'Who is number ' || i || '?'),
	jsonb_build_object('role', 'assistant', 'content', 'Number ' || i || ' is Ada.'))
FROM generate_series(1, 4) i;
END

sub rows_of
{
	my ($adapter) = @_;
	return decode_json($node->safe_psql('postgres', <<END));
SELECT jsonb_agg(jsonb_build_object('ids', ids, 'labels', labels, 'log_prob', log_prob) ORDER BY row_number)
FROM (SELECT row_number, jsonb_agg(token_id ORDER BY token_idx) AS ids,
			 jsonb_agg(is_trained::int ORDER BY token_idx) AS labels
	  FROM llm_finetune_preview('$query', NULL, 4) GROUP BY row_number) p
JOIN llm_evaluate_rows('$adapter', '$query') USING (row_number)
END
}

my %rows;
foreach my $name (sort keys %jobs)
{
	my $job = $node->safe_psql('postgres',
		"SELECT llm_finetune('$name', '$query', '{\"max_steps\": 4, \"learning_rate\": 0.003, $jobs{$name}}')");
	is($node->safe_psql('postgres', "SELECT llm_finetune_wait($job, '150 s')"),
		'done', "$name is trained");
	$node->safe_psql('postgres', "SELECT llm_export_adapter('$name', '$dir/$name')");
	$rows{$name} = rows_of($name);
	is(scalar @{ $rows{$name} }, 4, 'every row has its log-probability');
}
append_to_file("$dir/rows.json", encode_json(\%rows));
my $model = llm_model_dir();
my @found = split /\n/, `$python $dir/check.py $model $dir 2>$dir/errors`;
is(scalar @found, 8, 'PEFT loads what was exported')
  or diag(slurp_file("$dir/errors"));
foreach my $line (@found)
{
	my ($name, $ours, $theirs, $base) = split / /, $line;

	ok(abs($ours - $theirs) <= $bound * abs($theirs), "$name: as PEFT has it")
	  or diag("$ours, not $theirs");
	ok(abs($base - $theirs) > 100 * $bound * abs($theirs),
		'which is not what the model has without it')
	  or diag("$base and $theirs");
}
$node->stop;
done_testing();
