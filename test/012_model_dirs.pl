# 012_model_dirs.pl
#	Directories that cannot be loaded: one clear error each, and the model
#	that serves goes on serving.
#
# test/012_model_dirs.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Copy qw(copy);
use LlmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = llm_node('main');
my $good = llm_model_dir();
my $n_dirs = 0;

# A copy of the demo model for one case to damage.
sub fresh_copy
{
	my $dir = PostgreSQL::Test::Utils::tempdir() . '/model' . $n_dirs++;
	mkdir $dir or die "could not create $dir: $!";
	foreach my $file (glob "$good/*")
	{
		next unless -f $file;
		copy($file, $dir) or die "could not copy $file: $!";
	}
	return $dir;
}

sub edit_json
{
	my ($path, $from, $to) = @_;
	my $text = slurp_file($path);
	$text =~ s/$from/$to/ or die "\"$path\" does not match $from";
	write_file($path, $text);
	return;
}

sub write_file
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "could not write $path: $!";
	binmode $file;
	print $file $text;
	close $file;
	return;
}

sub keep_bytes
{
	my ($path, $n) = @_;
	truncate $path, $n or die "could not truncate $path: $!";
	return;
}

# fails(name, damage, pattern): loading the damaged copy raises one error that
# matches, and the demo model still answers.
sub fails
{
	my ($name, $damage, $pattern) = @_;
	my $dir = fresh_copy();
	$damage->($dir);
	my ($status, $out, $err) =
	  $node->psql('postgres', "SELECT llm_load_model('$dir', 'damaged')");
	isnt($status, 0, "$name: loading fails");
	like($err, $pattern, "$name: the message says why");
	is( $node->safe_psql('postgres',
			q{SELECT llm_ask('Hello!', options => '{"max_tokens": 2}') IS NOT NULL}
		),
		't',
		"$name: the serving model still answers");
	return;
}

my $before = $node->safe_psql('postgres',
	q{SELECT llm_ask('Hello!', options => '{"temperature": 0}')});

fails('no config', sub { unlink "$_[0]/config.json" },
	qr/config\.json/);
fails('config is no JSON',
	sub { write_file("$_[0]/config.json", '{"architectures": [') },
	qr/config\.json.*malformed JSON/);
fails('unknown architecture',
	sub {
		edit_json("$_[0]/config.json", qr/LlamaForCausalLM/,
			'DreamForCausalLM');
	},
	qr/DreamForCausalLM/);
fails('no weights', sub { unlink "$_[0]/model.safetensors" },
	qr/safetensors/);
fails('truncated weights',
	sub {
		keep_bytes("$_[0]/model.safetensors",
			int(0.5 * -s "$_[0]/model.safetensors"));
	},
	qr/model\.safetensors/);
fails('header of weights is garbage',
	sub { write_file("$_[0]/model.safetensors", 'x' x 4096) },
	qr/model\.safetensors/);
fails('wrong shape',
	sub {
		edit_json("$_[0]/config.json", qr/"intermediate_size":\s*\d+/,
			'"intermediate_size": 64');
	},
	qr/shape/);
fails('missing tensor',
	sub {
		edit_json("$_[0]/config.json", qr/"num_hidden_layers":\s*\d+/,
			'"num_hidden_layers": 50');
	},
	qr/model\.layers\.\d+\./);
fails('no tokenizer', sub { unlink "$_[0]/tokenizer.json" },
	qr/tokenizer\.json/);
fails('tokenizer of an unknown kind',
	sub {
		edit_json("$_[0]/tokenizer.json", qr/"type":\s*"BPE"/,
			'"type": "Riddle"');
	},
	qr/Riddle/);
fails('a path that is no directory',
	sub { system('rm', '-rf', $_[0]); write_file($_[0], 'x') },
	qr/model\d+/);

# Without a template the model loads; only chats are refused.
my $no_template = fresh_copy();
unlink "$no_template/chat_template.jinja";
edit_json("$no_template/tokenizer_config.json",
	qr/"chat_template"/, '"unused_chat_template"')
  if slurp_file("$no_template/tokenizer_config.json") =~ /"chat_template"/;
$node->safe_psql('postgres', "SELECT llm_load_model('$no_template', 'plain')");
my ($status, $out, $err) = $node->psql('postgres',
	q{SELECT llm_ask('Hello!', options => '{"model": "plain"}')});
like($err, qr/has no chat template/, 'no template: a chat is refused');
is( $node->safe_psql('postgres',
		q{SELECT llm_generate('Hello', options => '{"model": "plain", "max_tokens": 2}') IS NOT NULL}
	),
	't',
	'no template: raw generation works');

# A replacement that fails leaves the model of that name alone.
my $bad = fresh_copy();
keep_bytes("$bad/model.safetensors", 1000);
my $demo = $node->safe_psql('postgres',
	'SELECT name FROM llm.models WHERE is_default');
($status, $out, $err) =
  $node->psql('postgres', "SELECT llm_load_model('$bad', '$demo')");
isnt($status, 0, 'a damaged replacement is refused');
is( $node->safe_psql('postgres',
		q{SELECT llm_ask('Hello!', options => '{"temperature": 0}')}),
	$before,
	'and the model it should have replaced answers as before');

# A good replacement takes over without a gap.
my $session = start_sql($node,
	q{SELECT count(llm_ask('Hello!', options => '{"temperature": 0}')) FROM generate_series(1, 40);}
);
$node->safe_psql('postgres', "SELECT llm_load_model('$good', '$demo')");
($status, $out, $err) = finish_sql($session);
is($status || 0, 0, 'no request fails while the model is replaced')
  or diag($err);
is($out, '40', 'all are answered');
wait_for(sub { scalar(executor_pids($node)) == 2 }, 'the old executor to go');
pass('the replaced executor has gone');

$node->stop;
done_testing();
