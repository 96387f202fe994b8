/*
 * test_weight_share.c
 *	  Weights that one executor lends another, and the sign of requests: what
 *	  can be seen of them without a GPU, whose memory a memfd stands for.
 *
 * test/unit/test_weight_share.c
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/common/ipc/busy_sign.h"
#include "src/engine/executor/weight_lender.h"
#include "test/unit/unit_test.h"

#define MODELS "test/vectors/model"

/* Longer than a socket's address has room for. */
static char dir[PATH_MAX] = "/tmp/llm_ext-test-share.XXXXXX";

static void
lengthen_dir(void)
{
	if (mkdtemp(dir) == NULL)
		abort();
	for (int i = 0; i < 3; i++)
	{
		strcat(dir, "/a-folder-whose-name-is-as-long-as-some-are-in-practice");
		if (mkdir(dir, 0700) != 0)
			abort();
	}
}

static int
make_memory(const char *content)
{
	int fd = memfd_create("weights", MFD_CLOEXEC);

	if (fd < 0 || write(fd, content, strlen(content)) < 0)
		abort();
	return fd;
}

/* What is behind a descriptor. */
static void
check_memory(int fd, const char *content)
{
	char found[64] = "";

	REQUIRE(fd >= 0);
	CHECK(pread(fd, found, sizeof(found) - 1, 0) == (ssize_t) strlen(content));
	CHECK_STR_EQ(found, content);
	CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static LlmWeightKey
make_key(int n)
{
	LlmWeightKey key = { .n_bytes = 1000 };

	memset(key.digest, n, sizeof(key.digest));
	return key;
}

static LlmWeightLender *
lend(int key, const char *content)
{
	LlmWeightKey made = make_key(key);
	LlmError err = { 0 };
	LlmWeightLender *lender =
		llm_weight_lender_open(dir, &made, make_memory(content), &err);

	if (lender == NULL)
		CHECK_FAIL("%s", err.message);
	return lender;
}

static int
borrow(int key)
{
	LlmWeightKey made = make_key(key);
	LlmError err = { 0 };
	int fd = llm_weight_borrow(dir, &made, &err);

	CHECK(fd >= 0 || err.code == LLM_ERROR_UNAVAILABLE);
	return fd;
}

/* ------------------------------------------------------------------------
 * Lending
 * ------------------------------------------------------------------------
 */
static void
test_lending(void)
{
	LlmWeightLender *lender = lend(1, "one");
	int fds[2];

	REQUIRE(lender != NULL);
	fds[0] = borrow(1);
	fds[1] = borrow(1);
	CHECK_INT_EQ(borrow(2), -1);
	llm_weight_lender_close(lender);
	CHECK_INT_EQ(borrow(1), -1);
	/* what was borrowed outlives who lent it */
	for (int i = 0; i < 2; i++)
	{
		check_memory(fds[i], "one");
		close(fds[i]);
	}
}

/* An executor replaces another, which ends later. */
static void
test_succession(void)
{
	LlmWeightLender *old = lend(1, "old");
	LlmWeightLender *other = lend(2, "other");
	LlmWeightLender *new = lend(1, "new");
	int fd;

	REQUIRE(old != NULL && other != NULL && new != NULL);
	fd = borrow(1);
	check_memory(fd, "new");
	close(fd);
	llm_weight_lender_close(old);
	fd = borrow(1);
	check_memory(fd, "new");
	close(fd);
	fd = borrow(2);
	check_memory(fd, "other");
	close(fd);
	llm_weight_lender_close(new);
	CHECK_INT_EQ(borrow(1), -1);
	llm_weight_lender_close(other);
}

/* A lender that is killed leaves its name, which nobody answers to. */
static void
test_death(void)
{
	int ready[2];
	int fd;
	char byte;
	pid_t pid;
	LlmWeightLender *next;

	REQUIRE(pipe(ready) == 0);
	pid = fork();
	if (pid == 0)
	{
		if (lend(1, "mortal") == NULL || write(ready[1], "y", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	REQUIRE(pid > 0 && read(ready[0], &byte, 1) == 1);
	fd = borrow(1);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	check_memory(fd, "mortal");
	close(fd);
	CHECK_INT_EQ(borrow(1), -1);
	next = lend(1, "next");
	REQUIRE(next != NULL);
	fd = borrow(1);
	check_memory(fd, "next");
	close(fd);
	llm_weight_lender_close(next);
	close(ready[0]);
	close(ready[1]);
}

/* Asked by somebody who says something else, or nothing at all. */
static void
test_odd_askers(void)
{
	LlmWeightKey key = make_key(1);
	LlmWeightKey wrong = key;
	LlmWeightLender *lender = lend(1, "one");
	int fd;
	LlmError err = { 0 };

	REQUIRE(lender != NULL);
	/* the same name, another key */
	wrong.n_bytes++;
	CHECK_INT_EQ(llm_weight_borrow(dir, &wrong, &err), -1);
	CHECK_INT_EQ(err.code, LLM_ERROR_UNAVAILABLE);
	for (int i = 0; i < 3; i++)
	{
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		int folder_fd = open(dir, O_PATH | O_DIRECTORY);
		int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		ssize_t n;

		snprintf(address.sun_path, sizeof(address.sun_path),
				 "/proc/self/fd/%d/weights-010101010101010101010101",
				 folder_fd);
		REQUIRE(connect(s, (struct sockaddr *) &address, sizeof(address)) == 0);
		n = i == 0	 ? send(s, &key, 5, 0)
			: i == 1 ? send(s, &key, sizeof(key) - 1, 0)
					 : 0;
		CHECK(n >= 0);
		close(s);
		close(folder_fd);
	}
	fd = borrow(1);
	check_memory(fd, "one");
	close(fd);
	llm_weight_lender_close(lender);
}

static void
test_no_folder(void)
{
	LlmWeightKey key = make_key(1);
	LlmError err = { 0 };
	int fd = make_memory("one");

	CHECK_INT_EQ(llm_weight_borrow("/no/such/folder", &key, &err), -1);
	CHECK(strstr(err.message, "/no/such/folder") != NULL);
	CHECK(llm_weight_lender_open("/no/such/folder", &key, fd, &err) == NULL);
	/* the descriptor stayed the caller's */
	check_memory(fd, "one");
	close(fd);
}

/* ------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------
 */
static LlmWeightKey
key_of(const char *path, LlmDtype dtype, uint64_t seed, bool is_dummy)
{
	LlmModelOptions options = { .weight_dtype = dtype,
								.quantization = LLM_QUANTIZATION_NONE,
								.dummy_weights = is_dummy,
								.dummy_seed = seed };
	LlmModelConfig config;
	LlmWeightKey key = { 0 };
	LlmError err = { 0 };

	if (!llm_model_config_read(path, &config, &err) ||
		!llm_model_weight_key(path, &config, &options, &key, &err))
		CHECK_FAIL("%s: %s", path, err.message);
	return key;
}

static bool
is_same(LlmWeightKey a, LlmWeightKey b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static void
test_keys(void)
{
	const char *qwen = MODELS "/qwen3";
	LlmWeightKey key = key_of(qwen, LLM_DTYPE_BF16, 0, false);
	LlmWeightKey dummy = key_of(qwen, LLM_DTYPE_BF16, 0, true);

	CHECK(is_same(key, key_of(qwen, LLM_DTYPE_BF16, 7, false)));
	CHECK(!is_same(key, key_of(qwen, LLM_DTYPE_F16, 0, false)));
	CHECK(!is_same(key, dummy));
	CHECK(!is_same(dummy, key_of(qwen, LLM_DTYPE_BF16, 7, true)));
	CHECK(is_same(dummy, key_of(qwen, LLM_DTYPE_BF16, 0, true)));
	CHECK(!is_same(key, key_of(MODELS "/mistral", LLM_DTYPE_BF16, 0, false)));
}

/* The plan holds what loading takes; a quantized model is not shared. */
static void
test_plan(void)
{
	LlmModelOptions options = { .weight_dtype = LLM_DTYPE_BF16,
								.quantization = LLM_QUANTIZATION_NONE };
	LlmModelConfig config;
	LlmWeightKey key;
	LlmError err = { 0 };
	size_t n_bytes;
	size_t n_nf4_bytes;

	REQUIRE(llm_model_config_read(MODELS "/qwen3", &config, &err));
	REQUIRE(llm_model_plan_weights(MODELS "/qwen3", &config, &options, &n_bytes,
								   &err));
	REQUIRE(
		llm_model_weight_key(MODELS "/qwen3", &config, &options, &key, &err));
	CHECK_INT_EQ(key.n_bytes, n_bytes);
	CHECK(n_bytes >= 2 * (size_t) llm_model_n_params(&config));
	options.quantization = LLM_QUANTIZATION_NF4;
	REQUIRE(llm_model_plan_weights(MODELS "/qwen3", &config, &options,
								   &n_nf4_bytes, &err));
	CHECK(n_nf4_bytes < n_bytes);
	CHECK(
		!llm_model_weight_key(MODELS "/qwen3", &config, &options, &key, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_UNSUPPORTED);
}

static void
copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "rb");
	FILE *out = fopen(to, "wb");
	char part[4096];
	size_t n;

	if (in == NULL || out == NULL)
		abort();
	while ((n = fread(part, 1, sizeof(part), in)) > 0)
		fwrite(part, 1, n, out);
	fclose(in);
	fclose(out);
}

/* The same name and size, other values: another key. */
static void
test_changed_file(void)
{
	char path[PATH_MAX + 64];
	char other[PATH_MAX + 64];
	LlmWeightKey key;

	snprintf(path, sizeof(path), "%s/config.json", dir);
	copy_file(MODELS "/qwen3/config.json", path);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	snprintf(other, sizeof(other), "%s/new", dir);
	copy_file(MODELS "/qwen3/model.safetensors", path);
	copy_file(MODELS "/qwen3/model.safetensors", other);
	key = key_of(dir, LLM_DTYPE_BF16, 0, false);
	CHECK(is_same(key, key_of(dir, LLM_DTYPE_BF16, 0, false)));
	CHECK(rename(other, path) == 0);
	CHECK(!is_same(key, key_of(dir, LLM_DTYPE_BF16, 0, false)));
	unlink(path);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	unlink(path);
}

/* ------------------------------------------------------------------------
 * The sign
 * ------------------------------------------------------------------------
 */
static void
test_sign(void)
{
	LlmBusySign writer;
	LlmBusySign next;
	LlmBusySign reader;
	LlmError err = { 0 };
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/busy", dir);
	CHECK(!llm_busy_sign_open(&reader, path, &err));
	CHECK(strstr(err.message, path) != NULL);
	REQUIRE(llm_busy_sign_create(&writer, path, &err));
	REQUIRE(llm_busy_sign_open(&reader, path, &err));
	CHECK_INT_EQ(llm_busy_sign_get(&reader), 0);
	llm_busy_sign_set(&writer, 3);
	CHECK_INT_EQ(llm_busy_sign_get(&reader), 3);
	/* a successor takes it over under the reader's eyes */
	REQUIRE(llm_busy_sign_create(&next, path, &err));
	CHECK_INT_EQ(llm_busy_sign_get(&reader), 0);
	llm_busy_sign_set(&next, 5);
	CHECK_INT_EQ(llm_busy_sign_get(&reader), 5);
	llm_busy_sign_close(&writer);
	llm_busy_sign_close(&next);
	CHECK_INT_EQ(llm_busy_sign_get(&reader), 5);
	llm_busy_sign_close(&reader);
	REQUIRE(truncate(path, 0) == 0);
	CHECK(!llm_busy_sign_open(&reader, path, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	unlink(path);
}

/* Nothing stays behind but the name of the lender that was killed. */
static void
remove_dirs(void)
{
	for (int i = 0; i < 4; i++)
	{
		char *slash = strrchr(dir, '/');

		CHECK(rmdir(dir) == 0);
		*slash = '\0';
	}
}

int
main(void)
{
	lengthen_dir();
	RUN_TEST(test_lending);
	RUN_TEST(test_succession);
	RUN_TEST(test_death);
	RUN_TEST(test_odd_askers);
	RUN_TEST(test_no_folder);
	RUN_TEST(test_keys);
	RUN_TEST(test_plan);
	RUN_TEST(test_changed_file);
	RUN_TEST(test_sign);
	RUN_TEST(remove_dirs);
	return unit_test_finish();
}
