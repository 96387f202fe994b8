/*
 * executor_spawn.c
 *	  Starting an executor process: the only place that forks.
 *
 * A child of a PostgreSQL process inherits blocked and ignored signals, open
 * files and a protected OOM score, and survives its parent.  None of that is
 * wanted here, so between fork and exec everything is put right, with nothing
 * but calls that are safe there: all memory that the child needs (arguments,
 * environment) is prepared before the fork, and it leaves with _exit.
 *
 * The executor's death signal is SIGTERM, which it answers with _exit(0): an
 * orphan that dies by a signal, or with another exit code, would make a
 * postmaster that is process 1 of a container restart the database.  For the
 * same reason it leaves the scheduler's process group, which the postmaster
 * kills with SIGQUIT when it stops at once.
 *
 * src/server/scheduler/executor_spawn.c
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "miscadmin.h"
#include "src/common/ipc/ipc_message.h"
#include "src/server/scheduler/executor_spawn.h"
#include "src/server/settings.h"

#define PROGRAM_NAME "llm_executor"

/* Where the child's descriptors wait for dup2, out of its targets' way. */
#define FIRST_SPARE_FD 10

/*
 * The executor's whole environment: what finds and configures a GPU, time
 * zone and temporary files, and the sanitizers' options for test builds.
 */
static const char *const kept_variables[] = {
	"PATH",
	"TZ",
	"HOME",
	"TMPDIR",
	"LD_LIBRARY_PATH",
	"CUDA_VISIBLE_DEVICES",
	"CUDA_CACHE_PATH",
	"CUDA_MPS_PIPE_DIRECTORY",
	"CUDA_MPS_LOG_DIRECTORY",
	"NVIDIA_VISIBLE_DEVICES",
	"ASAN_OPTIONS",
	"UBSAN_OPTIONS",
	"LLM_DEBUG_FAULTS", /* builds with asserts alone look at it */
};

/* What the child needs, ready before the fork. */
typedef struct ChildPlan
{
	const char *program;
	char *argv[4];
	char *envp[lengthof(kept_variables) + 2];
	pid_t parent_pid;
	int channel_fd;
	int log_fd;
	int null_fd;
} ChildPlan;

const char *
llm_executor_program(void)
{
	static char path[MAXPGPATH];

	if (llm_setting_executor_path[0] != '\0')
		return llm_setting_executor_path;
	snprintf(path, sizeof(path), "%s/%s", pkglib_path, PROGRAM_NAME);
	return path;
}

static void
plan_arguments(ChildPlan *plan, const char *model_name)
{
	int n = 0;

	plan->program = llm_executor_program();
	plan->argv[0] = pstrdup(PROGRAM_NAME);
	plan->argv[1] = pstrdup(model_name);
	plan->argv[2] = NULL;
	plan->envp[n++] = pstrdup("LANG=C.UTF-8");
	for (int i = 0; i < lengthof(kept_variables); i++)
	{
		const char *value = getenv(kept_variables[i]);

		if (value != NULL)
			plan->envp[n++] = psprintf("%s=%s", kept_variables[i], value);
	}
	plan->envp[n] = NULL;
	plan->parent_pid = getpid();
}

static void
free_arguments(ChildPlan *plan)
{
	for (char **p = plan->argv; *p != NULL; p++)
		pfree(*p);
	for (char **p = plan->envp; *p != NULL; p++)
		pfree(*p);
}

/* In the child: close everything from fd 4 on. */
static void
close_inherited(void)
{
	if (syscall(SYS_close_range, 4, ~0U, 0) == 0)
		return;
	/* kernels before 5.9 */
	for (int fd = 4; fd < 65536; fd++)
		(void) close(fd);
}

/* In the child: the kernel should prefer it when memory runs out. */
static void
raise_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, "1000", 4) != 4)
	{
		/* nothing to be done about it here */
	}
	(void) close(fd);
}

/* In the child: only async-signal-safe calls from here to the end. */
static void __attribute__((noreturn)) run_child(const ChildPlan *plan)
{
	struct sigaction by_default;
	sigset_t none;

	(void) prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != plan->parent_pid)
		_exit(0); /* the scheduler died before the line above */
	/* the postmaster signals whole process groups, with SIGQUIT among others */
	(void) setsid();
	memset(&by_default, 0, sizeof(by_default));
	by_default.sa_handler = SIG_DFL;
	for (int signo = 1; signo < NSIG; signo++)
		(void) sigaction(signo, &by_default, NULL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(plan->null_fd, STDIN_FILENO) < 0 ||
		dup2(plan->log_fd, STDOUT_FILENO) < 0 ||
		dup2(plan->log_fd, STDERR_FILENO) < 0 ||
		dup2(plan->channel_fd, LLM_IPC_EXECUTOR_FD) < 0)
		_exit(126);
	close_inherited();
	raise_oom_score();
	execve(plan->program, plan->argv, plan->envp);
	_exit(127);
}

/* Move a descriptor above those that the child overwrites. */
static int
lift_fd(int fd)
{
	int lifted = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_SPARE_FD);

	(void) close(fd);
	return lifted;
}

static void
close_fd(int fd)
{
	if (fd >= 0)
		(void) close(fd);
}

/* ours[0], theirs[0]: channel; ours[1], theirs[1]: log. */
static bool
open_pipes(int ours[2], int theirs[2], LlmError *err)
{
	int channel[2];
	int log[2];

	ours[0] = ours[1] = theirs[0] = theirs[1] = -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) == 0)
	{
		ours[0] = channel[0];
		theirs[0] = lift_fd(channel[1]);
	}
	if (pipe2(log, O_CLOEXEC) == 0)
	{
		ours[1] = log[0];
		theirs[1] = lift_fd(log[1]);
	}
	if (ours[0] >= 0 && ours[1] >= 0 && theirs[0] >= 0 && theirs[1] >= 0 &&
		fcntl(ours[0], F_SETFL, O_NONBLOCK) == 0 &&
		fcntl(ours[1], F_SETFL, O_NONBLOCK) == 0)
		return true;
	llm_error_errno(err, "could not create an executor's channel");
	for (int i = 0; i < 2; i++)
	{
		close_fd(ours[i]);
		close_fd(theirs[i]);
	}
	return false;
}

static pid_t
fork_child(const ChildPlan *plan)
{
	sigset_t all;
	sigset_t old;
	pid_t pid;

	/*
	 * The child starts with the scheduler's signal handlers, which would act
	 * on the scheduler's latch: no signal may come before they are gone.
	 */
	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		run_child(plan);
	(void) sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

bool
llm_executor_spawn(const char *model_name, LlmSpawnedProcess *process,
				   LlmError *err)
{
	ChildPlan plan = { 0 };
	int ours[2];
	int theirs[2];

	plan.null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (plan.null_fd >= 0)
		plan.null_fd = lift_fd(plan.null_fd);
	if (plan.null_fd < 0)
		return llm_error_errno(err, "could not open \"/dev/null\"");
	if (!open_pipes(ours, theirs, err))
	{
		close_fd(plan.null_fd);
		return false;
	}
	plan.channel_fd = theirs[0];
	plan.log_fd = theirs[1];
	plan_arguments(&plan, model_name);
	process->pid = fork_child(&plan);
	if (process->pid < 0)
		llm_error_errno(err, "could not start an executor process");
	free_arguments(&plan);
	close_fd(plan.null_fd);
	close_fd(theirs[0]);
	close_fd(theirs[1]);
	if (process->pid < 0)
	{
		close_fd(ours[0]);
		close_fd(ours[1]);
		return false;
	}
	process->channel_fd = ours[0];
	process->log_fd = ours[1];
	return true;
}
