# 027_gguf.pl
#	The demo model as one GGUF file answers what the reference says of its
#	directory, from prompt to text; files that cannot be loaded are refused
#	with one line each.
#
# test/027_gguf.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP;
use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { BOOL => 7, STRING => 8, ARRAY => 9, UINT32 => 4, INT32 => 5, FLOAT32 => 6 };
use constant { NORMAL => 1, CONTROL => 3 };

my $json = JSON::PP->new->utf8;
my $source = llm_model_dir();

# -------------------------------------------------------- writing GGUF files

sub text { return pack('Q<', length $_[0]) . $_[0]; }
sub utf8 { my $bytes = shift; utf8::encode($bytes); return $bytes; }

sub entry
{
	my ($key, $type, $value) = @_;
	return text($key) . pack('V', $type) . $value;
}

sub number { return entry($_[0], UINT32, pack('V', $_[1])); }

sub text_list
{
	my ($key, @texts) = @_;
	return entry($key, ARRAY,
		pack('VQ<', STRING, scalar @texts) . join('', map { text(utf8($_)) } @texts));
}

sub metadata
{
	my $config = $json->decode(slurp_file("$source/config.json"));
	my $tokenizer = $json->decode(slurp_file("$source/tokenizer.json"));
	my (@tokens, @types);
	my $vocab = $tokenizer->{model}->{vocab};
	foreach my $token (keys %$vocab)
	{
		$tokens[ $vocab->{$token} ] = $token;
		$types[ $vocab->{$token} ] = NORMAL;
	}
	foreach my $token (@{ $tokenizer->{added_tokens} })
	{
		$tokens[ $token->{id} ] = $token->{content};
		$types[ $token->{id} ] = CONTROL;
	}
	my @merges =
	  map { ref $_ ? join(' ', @$_) : $_ } @{ $tokenizer->{model}->{merges} };
	return (
		entry('general.architecture', STRING, text('llama')),
		entry('general.license', STRING, text('mit')),
		number('llama.block_count', $config->{num_hidden_layers}),
		number('llama.context_length', $config->{max_position_embeddings}),
		number('llama.embedding_length', $config->{hidden_size}),
		number('llama.feed_forward_length', $config->{intermediate_size}),
		number('llama.attention.head_count', $config->{num_attention_heads}),
		number('llama.attention.head_count_kv', $config->{num_key_value_heads}),
		entry('llama.attention.layer_norm_rms_epsilon', FLOAT32,
			pack('f<', $config->{rms_norm_eps})),
		entry('llama.rope.freq_base', FLOAT32, pack('f<', $config->{rope_theta})),
		entry('tokenizer.ggml.model', STRING, text('gpt2')),
		entry('tokenizer.ggml.pre', STRING, text('smaug-bpe')),
		text_list('tokenizer.ggml.tokens', @tokens),
		entry('tokenizer.ggml.token_type', ARRAY,
			pack('VQ<l<*', INT32, scalar @types, @types)),
		text_list('tokenizer.ggml.merges', @merges),
		number('tokenizer.ggml.bos_token_id', $config->{bos_token_id}),
		number('tokenizer.ggml.eos_token_id', $config->{eos_token_id}->[0]),
		number('tokenizer.ggml.eot_token_id', $config->{eos_token_id}->[1]),
		entry('tokenizer.ggml.add_bos_token', BOOL, pack('C', 1)),
		entry('tokenizer.chat_template', STRING,
			text(slurp_file("$source/chat_template.jinja"))));
}

my %names = (
	'model.embed_tokens' => 'token_embd', 'model.norm' => 'output_norm',
	'input_layernorm' => 'attn_norm', 'post_attention_layernorm' => 'ffn_norm',
	'self_attn.q_proj' => 'attn_q', 'self_attn.k_proj' => 'attn_k',
	'self_attn.v_proj' => 'attn_v', 'self_attn.o_proj' => 'attn_output',
	'mlp.gate_proj' => 'ffn_gate', 'mlp.up_proj' => 'ffn_up',
	'mlp.down_proj' => 'ffn_down');

sub gguf_name
{
	my ($name) = @_;
	$name =~ s/\.weight$//;
	return "$names{$name}.weight" if $names{$name};
	$name =~ /^model\.layers\.(\d+)\.(.*)$/ or die "no name for $name";
	return "blk.$1.$names{$2}.weight";
}

# Of each head's rows i and i + d/2 become neighbours.
sub pair_rows
{
	my ($data, $n_rows, $n_heads) = @_;
	my $row_bytes = length($data) / $n_rows;
	my $half = $n_rows / $n_heads / 2;
	my $out = '';
	foreach my $head (0 .. $n_heads - 1)
	{
		foreach my $i (0 .. $half - 1)
		{
			$out .= substr $data, (2 * $head * $half + $_ * $half + $i) * $row_bytes,
			  $row_bytes foreach 0, 1;
		}
	}
	return $out;
}

# The tensors of the demo model: [name, type, dimensions, data]
sub tensors
{
	my $config = $json->decode(slurp_file("$source/config.json"));
	my $file = slurp_file("$source/model.safetensors");
	my $header_bytes = unpack 'Q<', $file;
	my $header = $json->decode(substr $file, 8, $header_bytes);
	my @tensors;
	foreach my $name (sort grep { $_ ne '__metadata__' } keys %$header)
	{
		my $tensor = $header->{$name};
		my ($begin, $end) = @{ $tensor->{data_offsets} };
		my $data = substr $file, 8 + $header_bytes + $begin, $end - $begin;
		my @shape = @{ $tensor->{shape} };
		die "$name is $tensor->{dtype}" unless $tensor->{dtype} eq 'BF16';
		$data = pair_rows($data, $shape[0], $config->{num_attention_heads})
		  if $name =~ /q_proj/;
		$data = pair_rows($data, $shape[0], $config->{num_key_value_heads})
		  if $name =~ /k_proj/;
		push @tensors, [ gguf_name($name), 30, [ reverse @shape ], $data ];
	}
	return @tensors;
}

sub gguf
{
	my ($entries, $tensors) = @_;
	my $header = 'GGUF' . pack('VQ<Q<', 3, scalar @$tensors, scalar @$entries);
	my $data = '';
	$header .= $_ foreach @$entries;
	foreach my $tensor (@$tensors)
	{
		my ($name, $type, $dims, $bytes) = @$tensor;
		$header .= text($name)
		  . pack('V(Q<)*', scalar @$dims, @$dims)
		  . pack('VQ<', $type, length $data);
		$data .= $bytes . "\0" x (-length($bytes) % 32);
	}
	return $header . "\0" x (-length($header) % 32) . $data;
}

sub write_file
{
	my ($path, $bytes) = @_;
	open my $file, '>:raw', $path or die "could not write $path: $!";
	print $file $bytes;
	close $file or die "could not write $path: $!";
	return $path;
}

# ----------------------------------------------------------------- the tests

my $folder = PostgreSQL::Test::Utils::tempdir();
my @entries = metadata();
my @tensors = tensors();
my $good = write_file("$folder/demo.gguf", gguf(\@entries, \@tensors));
my $node = llm_node('main', model => $good, conf => "llm_ext.dtype = 'float32'\nllm_ext.device = 'cpu'");

sub literal
{
	my ($value) = @_;
	my $text = ref $value ? JSON::PP->new->utf8->encode($value) : $value;
	$text =~ s/'/''/g;
	return "'$text'";
}

# Each prompt as text or messages: the reference's ids in, its ids out.
my $cases = $json->decode(slurp_file("$FindBin::RealBin/vectors/demo/prompts.json"));
foreach my $case (@$cases)
{
	my %request = (
		temperature => 0,
		max_tokens => scalar @{ $case->{answer_ids} } + 5,
		return_token_ids => JSON::PP::true);
	my $kind = $case->{messages} ? 'messages' : 'prompt';
	$request{$kind} = $case->{$kind};
	my $response = $json->decode(
		$node->safe_psql('postgres',
			'SELECT llm_completion(' . literal(\%request) . ')'));
	my $name = substr $case->{text}, -40;
	$name =~ s/\W+/ /g;
	is_deeply($response->{prompt_token_ids}, $case->{ids}, "ids: $name");
	is_deeply($response->{choices}->[0]->{token_ids},
		$case->{answer_ids}, "answer: $name");
}

is( $node->safe_psql('postgres',
		"SELECT i->>'license', i->>'family', i->>'context_length', i->'unsupported' FROM llm_inspect_model('$good') i"
	),
	'mit|llama|2048|[]',
	'a file is inspected');

# fails(name, bytes, pattern): loading raises one error that matches
sub fails
{
	my ($name, $bytes, $pattern) = @_;
	my $path = write_file("$folder/bad.gguf", $bytes);
	my ($status, $out, $err) =
	  $node->psql('postgres', "SELECT llm_load_model('$path', 'bad')");
	isnt($status, 0, "$name: loading fails");
	like($err, $pattern, "$name: the message says why");
	return;
}

sub without { my $key = shift; return grep { index($_, $key) != 8 } @entries; }

my $whole = gguf(\@entries, \@tensors);
fails('truncated', substr($whole, 0, length($whole) / 2),
	qr/bad\.gguf: tensor "[\w.]+" has \d+ bytes .* truncated/);
fails('no GGUF', 'x' x 4096, qr/bad\.gguf: .*no GGUF file/);
fails(
	'unknown architecture',
	gguf(
		[   entry('general.architecture', STRING, text('mamba')),
			without('general.architecture') ],
		\@tensors),
	qr/bad\.gguf: architecture "mamba" is not supported/);
fails(
	'unknown key',
	gguf([ @entries, number('llama.riddle', 1) ], \@tensors),
	qr/metadata key "llama\.riddle" is not known/);
fails('missing key', gguf([ without('llama.block_count') ], \@tensors),
	qr/metadata key "llama\.block_count" is missing/);
fails(
	'unknown pre-tokenizer',
	gguf(
		[   entry('tokenizer.ggml.pre', STRING, text('sphinx')),
			without('tokenizer.ggml.pre') ],
		\@tensors),
	qr/pre-tokenizer "sphinx" is not supported/);
fails('missing tensor',
	gguf(\@entries, [ grep { $_->[0] ne 'blk.1.ffn_up.weight' } @tensors ]),
	qr/bad\.gguf: tensor "model\.layers\.1\.mlp\.up_proj\.weight" is missing/);
is( $node->safe_psql('postgres',
		q{SELECT llm_ask('Hello!', options => '{"max_tokens": 2}') IS NOT NULL}),
	't',
	'the serving model still answers');

$node->stop;
done_testing();
