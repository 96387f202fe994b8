# LlmTest.pm
#	What the TAP tests share: servers with the extension, and looks at the
#	processes that belong to them.
#
# A test begins with
#
#	use LlmTest;
#	my $node = llm_node('main');
#
# which starts a server that has the extension, serves the demo model under
# the name "demo", and is ready to answer.  The model lies in LLM_TEST_MODEL,
# or in models/demo beside the folder of the tests.  Processes are watched
# through /proc, because the executor is no child of the test and is not in
# pg_stat_activity.
#
# test/LlmTest.pm
package LlmTest;

use strict;
use warnings;

use Carp;
use Cwd ();
use Exporter 'import';
use File::Basename;
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  llm_node llm_model_dir llm_fake_executor wait_for wait_for_model wait_for_idle
  scheduler_pid executor_pid executor_pids
  process_name child_pids is_alive wait_until_gone n_open_files
  shared_segments start_sql sql_output finish_sql session_pid cancel_sql kill_client
);

my $default_timeout = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

# The demo model's folder, absolute.
sub llm_model_dir
{
	my $dir = $ENV{LLM_TEST_MODEL} || "$FindBin::RealBin/../models/demo";
	croak "no model in \"$dir\"" unless -e "$dir/config.json";
	return Cwd::abs_path($dir);
}

# The executor without a model (test/fake_executor.c), for llm_ext.executor_path.
sub llm_fake_executor
{
	my ($path) = grep { -x $_ } (
		$ENV{LLM_FAKE_EXECUTOR} || '',
		glob "$FindBin::RealBin/../build/*/test/fake_executor");
	croak 'no fake_executor; make it with "make build/release/test/fake_executor"'
	  unless defined $path;
	return Cwd::abs_path($path);
}

# llm_node(name, option => value...): a started server with the extension in
# database "postgres".  Options:
#	model      folder loaded at start; undef for none; default the demo model
#	conf       more lines for postgresql.conf
#	standby    1: for a later init_from_backup (allows streaming)
#	extension  0: without CREATE EXTENSION
#	wait       0: do not wait until the model can be used
sub llm_node
{
	my ($name, %option) = @_;
	my $model = exists $option{model} ? $option{model} : llm_model_dir();
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(
		allows_streaming => $option{standby} ? 1 : 0,
		extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', <<END);
shared_preload_libraries = 'llm_ext'
shared_buffers = 32MB
jit = off
max_connections = 100
log_min_messages = info
log_statement = none
END
	$node->append_conf('postgresql.conf',
		"llm_ext.device = '$ENV{LLM_TEST_DEVICE}'\n")
	  if $ENV{LLM_TEST_DEVICE};
	# answers are compared, which only then does not depend on the batch; and
	# other tests use the same GPU
	$node->append_conf('postgresql.conf', <<END)
llm_ext.deterministic = on
llm_ext.kv_cache_memory = '1GB'
END
	  if ($ENV{LLM_TEST_DEVICE} || '') eq 'cuda';
	$node->append_conf('postgresql.conf', "llm_ext.model = '$model'")
	  if defined $model;
	$node->append_conf('postgresql.conf', $option{conf})
	  if defined $option{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION llm_ext')
	  unless defined $option{extension} && !$option{extension};
	wait_for_model($node)
	  if defined $model && !(defined $option{wait} && !$option{wait});
	return $node;
}

# wait_for(sub, what, seconds): until the sub returns something true, which is
# returned; dies when it never does.
sub wait_for
{
	my ($condition, $what, $timeout) = @_;
	my $deadline = time() + ($timeout || $default_timeout);

	while (1)
	{
		my $result = $condition->();
		return $result if $result;
		croak 'timed out waiting for ' . ($what || 'a condition')
		  if time() > $deadline;
		sleep 0.05;
	}
}

# Until the named model (default: the default one) can serve; dies of its
# error where it cannot be loaded.
sub wait_for_model
{
	my ($node, $name, $timeout) = @_;
	my $which = defined $name ? "name = '$name'" : 'is_default';

	return wait_for(
		sub {
			my ($status, $state) = $node->psql('postgres',
				"SELECT state FROM llm.models WHERE $which");
			croak "the model could not be loaded: "
			  . $node->safe_psql('postgres',
				"SELECT error FROM llm.models WHERE $which")
			  if defined $state && $state eq 'failed';
			return defined $state && $state eq 'ready';
		},
		'the model',
		$timeout);
}

# Until no request is in flight any more: every slot was given back.
sub wait_for_idle
{
	my ($node, $timeout) = @_;

	return wait_for(
		sub {
			return $node->safe_psql('postgres',
				'SELECT count(*) FROM llm.activity') eq '0';
		},
		'all requests to end',
		$timeout);
}

# --------------------------------------------------------------- processes

# What the process calls itself, or undef when it is gone.
sub process_name
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/cmdline" or return;
	local $/ = undef;
	my $name = <$file>;
	close $file;
	return unless defined $name;
	$name =~ tr/\0/ /;
	$name =~ s/ +$//;
	return $name;
}

# The process's state letter and parent, or an empty list when it is gone.
sub process_status
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/stat" or return;
	my $line = <$file>;
	close $file;
	return unless defined $line && $line =~ /\) (\S) (\d+)/;
	return ($1, $2);
}

sub child_pids
{
	my ($parent) = @_;
	my @children;

	foreach my $folder (glob '/proc/[0-9]*')
	{
		my $pid = basename($folder);
		my (undef, $parent_pid) = process_status($pid);
		push @children, $pid
		  if defined $parent_pid && $parent_pid == $parent;
	}
	return sort { $a <=> $b } @children;
}

# A zombie is gone: only its parent has yet to look.
sub is_alive
{
	my ($pid) = @_;
	my ($state) = process_status($pid);
	return defined $state && $state ne 'Z' && $state ne 'X';
}

sub wait_until_gone
{
	my ($pid, $timeout) = @_;
	return wait_for(sub { return !is_alive($pid) },
		"process $pid to end", $timeout);
}

sub postmaster_pid
{
	my ($node) = @_;
	my ($pid) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	return $pid;
}

# The scheduler's process, or undef while there is none.
sub scheduler_pid
{
	my ($node) = @_;
	foreach my $pid (child_pids(postmaster_pid($node)))
	{
		my $name = process_name($pid);
		return $pid if defined $name && $name =~ /llm_ext scheduler/;
	}
	return;
}

# The scheduler's executors, oldest first.
sub executor_pids
{
	my ($node) = @_;
	my $scheduler = scheduler_pid($node);
	return unless defined $scheduler;
	return grep { (process_name($_) // '') =~ /_executor/ }
	  child_pids($scheduler);
}

sub executor_pid
{
	my ($node) = @_;
	my @pids = executor_pids($node);
	return $pids[0];
}

sub n_open_files
{
	my ($pid) = @_;
	opendir my $folder, "/proc/$pid/fd" or return 0;
	my @files = grep { !/^\./ } readdir $folder;
	closedir $folder;
	return scalar @files;
}

# Names of everything in shared memory that no process uses any more: POSIX
# segments and System V ones.  To be compared before and after.
sub shared_segments
{
	my %is_used;
	my @names;

	foreach my $path (glob '/proc/[0-9]*/maps')
	{
		open my $file, '<', $path or next;
		while (my $line = <$file>)
		{
			$is_used{$1} = 1 if $line =~ m{ (/dev/shm/\S+)$};
		}
		close $file;
	}
	push @names, grep { !$is_used{$_} } glob '/dev/shm/*';
	if (open my $file, '<', '/proc/sysvipc/shm')
	{
		while (my $line = <$file>)
		{
			my @fields = split ' ', $line;
			push @names, "sysv $fields[1]"
			  if $fields[0] =~ /^-?\d+$/ && $fields[6] == 0;
		}
		close $file;
	}
	return sort @names;
}

# ------------------------------------------------- sessions that run at once

my $n_sessions = 0;
my $scripts;

# start_sql(node, sql, option => value...): a psql that runs while the test
# goes on.  Options: dbname, user.
sub start_sql
{
	my ($node, $sql, %option) = @_;
	my %session = (
		node => $node,
		name => 'session_' . ++$n_sessions,
		out => '',
		err => '');
	my $connection = $node->connstr($option{dbname} || 'postgres')
	  . " application_name=$session{name}";
	$connection .= " user=$option{user}" if defined $option{user};

	# A file, since what is fed through a pipe waits until it is pumped.
	$scripts ||= PostgreSQL::Test::Utils::tempdir();
	my $script = "$scripts/$session{name}.sql";
	append_to_file($script, $sql);

	$session{run} = IPC::Run::start(
		[
			'psql', '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1',
			'-d', $connection, '-f', $script
		],
		'<', '/dev/null', '>', \$session{out}, '2>', \$session{err},
		IPC::Run::timer($default_timeout));
	return \%session;
}

# What it has printed so far.
sub sql_output
{
	my ($session) = @_;
	$session->{run}->pump_nb if $session->{run}->pumpable;
	return $session->{out};
}

# Waits for its end: (exit status, what it printed, what it complained about)
sub finish_sql
{
	my ($session) = @_;

	$session->{run}->finish;
	chomp $session->{out};
	chomp $session->{err};
	return (($session->{run}->result(0) || 0) + 0, $session->{out}, $session->{err});
}

# The backend process that works on its statement; waits until there is one.
sub session_pid
{
	my ($session) = @_;

	return wait_for(
		sub {
			return $session->{node}->safe_psql('postgres',
				"SELECT pid FROM pg_stat_activity WHERE state = 'active' "
				  . "AND application_name = '$session->{name}'");
		},
		"$session->{name} to run its statement");
}

# Cancel the statement that it runs.
sub cancel_sql
{
	my ($session) = @_;
	my $pid = session_pid($session);

	$session->{node}->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	return;
}

# The client is gone without a word; its session is not told.
sub kill_client
{
	my ($session) = @_;
	$session->{run}->signal('KILL');
	return;
}

1;
