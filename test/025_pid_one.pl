# 025_pid_one.pl
#	The postmaster as process 1 of a container: orphans are its children, and
#	it takes their deaths by a signal for crashes of its own.
#
# Needs user and process id namespaces; where they are not allowed, there is
# nothing to test.
#
# test/025_pid_one.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use LlmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my @container = ('unshare', '--user', '--map-current-user', '--pid', '--fork',
	'--kill-child', '--mount-proc');
my $output = '';
my $allowed = eval {
	IPC::Run::run([ @container, 'sh', '-c', 'echo $$' ],
		'<', '/dev/null', '>', \$output, '2>', \my $ignored);
};
plan skip_all => 'namespaces are not allowed here'
  unless $allowed && $output eq "1\n";

my $fake = llm_fake_executor();
my $dir = llm_model_dir();
my $node = llm_node('main',
	model => "$dir?delay_ms=5",
	conf => "llm_ext.executor_path = '$fake'\nllm_ext.model_name = 'main'\n"
	  . 'restart_after_crash = on');
$node->stop;

my ($out, $err) = ('', '');
my $log = $node->logfile;
my $server = IPC::Run::start(
	[
		@container, 'sh', '-c',
		'exec postgres -D "$1" >>"$2" 2>&1', 'sh', $node->data_dir, $log
	],
	'<', '/dev/null', '>', \$out, '2>', \$err);

# the node does not know this server: talk to its socket
sub sql
{
	my ($sql) = @_;
	my ($result, $complaint) = ('', '');
	IPC::Run::run(
		[ 'psql', '-X', '-A', '-t', '-q', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', '/dev/null', '>', \$result, '2>', \$complaint);
	chomp $result;
	return $result;
}

# The server's process as it is seen from here, and those below it by name.
sub server_pid
{
	my ($unshare) = @{ $server->{KIDS} };
	my ($pid) = grep { (process_name($_) // '') =~ /postgres/ } child_pids($unshare->{PID});
	return $pid;
}

sub scheduler
{
	my ($pid) = grep { (process_name($_) // '') =~ /llm_ext scheduler/ } child_pids(server_pid());
	return $pid;
}

sub executor
{
	my ($pid) = grep { (process_name($_) // '') =~ /^llm_executor/ } child_pids(scheduler());
	return $pid;
}

my $answer = q{SELECT llm_completion('{"prompt": [1, 2, 3], "max_tokens": 4,
	"return_token_ids": true}') #>> '{choices,0,token_ids}'};
my $ready = q{SELECT state FROM llm.models WHERE is_default};

# crash restarts that the log tells of
sub n_crashes
{
	my $text = slurp_file($log);
	my $n = () = $text =~ /all server processes terminated; reinitializing/g;
	return $n;
}

wait_for(sub { return sql($ready) eq 'ready' }, 'the model');
is(sql($answer), '[1, 2, 3, 1]', 'a server that is process 1 answers');
is((split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0],
	'1', 'and is process 1');

# ---- what the postmaster does to the scheduler's process group is not for it
sub process_group
{
	my ($pid) = @_;
	my ($group) = slurp_file("/proc/$pid/stat") =~ /\) \S \d+ (\d+)/;
	return $group;
}
isnt(process_group(executor()), process_group(scheduler()),
	'the executor has a process group of its own');

# ---- the executor is killed: a child of the scheduler, none of the postmaster's
kill 'KILL', executor();
wait_for(
	sub {
		return sql(q{SELECT restarts FROM llm.executors WHERE state = 'ready'}) eq '1';
	},
	'the executor to be started again');
is(sql($answer), '[1, 2, 3, 1]', 'a killed executor is restarted');
is(n_crashes(), 0, 'the server has not noticed');

# ---- the scheduler is killed: its executor becomes the postmaster's child
kill 'KILL', scheduler();
wait_for(sub { return n_crashes() == 1 }, 'the crash restart');
wait_for(sub { return sql($ready) eq 'ready' }, 'the model');
is(sql($answer), '[1, 2, 3, 1]', 'the server restarts once and serves');
sleep 2;
is(n_crashes(), 1, 'the orphan did not make it restart again');
unlike(slurp_file($log), qr/(untracked child|server) process .* was terminated by signal (15|3)/,
	'and left without an alarm');

# ---- a backend process is killed: the postmaster kills process groups then
my $victim;
wait_for(
	sub {
		($victim) = grep { (process_name($_) // '') =~ /background writer/ } child_pids(server_pid());
		return $victim;
	},
	'the background writer');
kill 'KILL', $victim;
wait_for(sub { return n_crashes() == 2 }, 'the crash restart');
wait_for(sub { return sql($ready) eq 'ready' }, 'the model');
is(sql($answer), '[1, 2, 3, 1]', 'after a crash of another process it serves again');
sleep 2;
is(n_crashes(), 2, 'and that was one restart');

# ---- the scheduler ends by itself
my $scheduler = scheduler();
kill 'TERM', $scheduler;
wait_until_gone($scheduler);
is(sql($answer), '[1, 2, 3, 1]', 'a scheduler that ends is replaced');
is(n_crashes(), 2, 'without a restart of the server');

# ---- the end: all processes of the container go with process 1
kill 'INT', server_pid();
$server->finish;
like((slurp_file($log) =~ /.*\n(.*)\n\z/s)[0],
	qr/database system is shut down/, 'the server shuts down');
done_testing();
