/*
 * test_oddities.c
 *	  Model directories as they are met in the wild: each is loaded as
 *	  transformers loads it, or refused with one clear line.
 *
 * A folder of test/oddities holds the files that make a case other than its
 * base, the names of files that it lacks ("absent"), and what happens
 * ("expected"): the facts of the loaded model, or the message.
 *
 *	  test_oddities [case]	also prints what happens
 *
 * test/unit/test_oddities.c
 */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/model_image/model_image.h"
#include "src/engine/executor/executor.h"
#include "test/unit/unit_test.h"

#define ODDITIES "test/oddities"

static const char messages[] =
	"[{\"role\": \"user\", \"content\": \"hello world\"}]";

static char work_dir[] = "/tmp/llm_test_oddities_XXXXXX";
static char here[2048];
static const char *only;

/* "NAME\n" lines. */
static bool
has_line(const char *text, const char *name)
{
	size_t len = strlen(name);

	while (text != NULL && *text != '\0')
	{
		const char *end = strchr(text, '\n');

		if (end != NULL && (size_t) (end - text) == len &&
			memcmp(text, name, len) == 0)
			return true;
		text = end != NULL ? end + 1 : NULL;
	}
	return false;
}

static void
read_text(const char *path, LlmStrbuf *text)
{
	FILE *file = fopen(path, "r");
	char buffer[4096];
	size_t n;

	if (file == NULL)
		return;
	while ((n = fread(buffer, 1, sizeof(buffer), file)) > 0)
		llm_strbuf_append(text, buffer, n);
	fclose(file);
}

static bool
is_part_of_a_model(const char *name)
{
	return name[0] != '.' && strcmp(name, "absent") != 0 &&
		   strcmp(name, "expected") != 0;
}

/* Link what "from" holds into the directory, over what is there. */
static void
link_files(const char *from, const char *dir, const char *absent)
{
	struct dirent *entry;
	char source[4096];
	char dest[4096];
	DIR *folder = opendir(from);

	REQUIRE(folder != NULL);
	while ((entry = readdir(folder)) != NULL)
	{
		if (!is_part_of_a_model(entry->d_name) ||
			has_line(absent, entry->d_name))
			continue;
		snprintf(source, sizeof(source), "%s/%s/%s", here, from, entry->d_name);
		snprintf(dest, sizeof(dest), "%s/%s", dir, entry->d_name);
		(void) unlink(dest);
		CHECK(symlink(source, dest) == 0);
	}
	closedir(folder);
}

static void
remove_files(const char *dir)
{
	struct dirent *entry;
	char path[4096];
	DIR *folder = opendir(dir);

	while (folder != NULL && (entry = readdir(folder)) != NULL)
	{
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		(void) unlink(path);
	}
	if (folder != NULL)
		closedir(folder);
	(void) rmdir(dir);
}

/* The message, with the directory's name as DIR. */
static void
describe_error(const char *dir, const LlmError *err, LlmStrbuf *out)
{
	const char *text = err->message;
	const char *at;

	llm_strbuf_append_str(out, "refused: ");
	while ((at = strstr(text, dir)) != NULL)
	{
		llm_strbuf_append(out, text, (size_t) (at - text));
		llm_strbuf_append_str(out, "DIR");
		text = at + strlen(dir);
	}
	llm_strbuf_printf(out, "%s\n", text);
	if (err->hint[0] != '\0')
		llm_strbuf_printf(out, "hint: %s\n", err->hint);
}

static void
describe_template(LlmModelImage *image, const char *dir, bool has_tools,
				  LlmStrbuf *out)
{
	LlmTemplateInput input = {
		.messages = { messages, sizeof(messages) - 1 },
		.tools = { has_tools ? "[]" : NULL, has_tools ? 2 : 0 },
		.special_tokens = llm_model_image_special_tokens(image),
	};
	const LlmChatTemplate *chat_template;
	LlmStrbuf text;
	LlmError err;

	if (llm_model_image_template_source(image).data == NULL)
	{
		llm_strbuf_append_str(out, "no chat template\n");
		return;
	}
	llm_strbuf_init(&text);
	chat_template = llm_model_image_chat_template(image, has_tools, &err);
	if (chat_template != NULL &&
		llm_chat_template_render(chat_template, &input, &text, &err))
		llm_strbuf_printf(out, "%s: %s\n", has_tools ? "with tools" : "chat",
						  llm_strbuf_str(&text));
	else
		describe_error(dir, &err, out);
	llm_strbuf_free(&text);
}

static void
describe_facts(const LlmModelImage *image, const LlmExecutor *executor,
			   LlmStrbuf *out)
{
	const LlmModelImageFacts *facts = llm_model_image_facts(image);
	const LlmModelConfig *config = &executor->config;

	llm_strbuf_printf(out, "loaded: vocabulary %d, rope %s %g theta %g, %s\n",
					  facts->n_vocab, llm_rope_kind_name(config->rope.kind),
					  config->rope.factor, config->rope.theta,
					  llm_dtype_name(config->dtype));
	llm_strbuf_append_str(out, "stop ids:");
	for (int i = 0; i < facts->n_stop_ids; i++)
		llm_strbuf_printf(out, " %d", facts->stop_ids[i]);
	llm_strbuf_printf(
		out, "\ntemperature: %g\n",
		facts->defaults.has_temperature ? facts->defaults.temperature : 1.0);
}

static void
describe_ids(LlmModelImage *image, LlmStrbuf *out)
{
	static const char text[] = "hello world<end><beyond>";
	LlmIdbuf ids = { .limit = 100 };
	LlmError err;

	llm_strbuf_append_str(out, "ids:");
	CHECK(llm_tokenizer_encode(llm_model_image_tokenizer(image), text,
							   sizeof(text) - 1, false, NULL, &ids, &err));
	for (size_t i = 0; i < ids.n_ids; i++)
		llm_strbuf_printf(out, " %d", ids.ids[i]);
	llm_strbuf_append_str(out, "\n");
	llm_idbuf_free(&ids);
}

static void
load(const char *dir, LlmStrbuf *out)
{
	static LlmExecutor executor;
	char options[2048];
	LlmModelImage *image;
	LlmError err;

	memset(&executor, 0, sizeof(executor));
	snprintf(options, sizeof(options),
			 "{\"path\": \"%s\", \"image_path\": \"%s/image\", \"device\": "
			 "\"cpu\", \"num_threads\": 1, \"kv_cache_memory_bytes\": 1048576}",
			 dir, work_dir);
	REQUIRE(llm_executor_options_parse(options, strlen(options),
									   &executor.options, &err));
	if (!llm_executor_load(&executor, &err))
	{
		describe_error(dir, &err, out);
		return;
	}
	image = llm_model_image_open(executor.options.image_path, &err);
	REQUIRE(image != NULL);
	describe_facts(image, &executor, out);
	describe_template(image, dir, false, out);
	if (llm_model_image_template_source(image).data != NULL)
		describe_template(image, dir, true, out);
	describe_ids(image, out);
	llm_model_image_close(image);
	llm_executor_unload(&executor);
}

static void
check_case(const char *name)
{
	char folder[512];
	char dir[512];
	char path[1024];
	LlmStrbuf absent;
	LlmStrbuf expected;
	LlmStrbuf actual;

	snprintf(folder, sizeof(folder), ODDITIES "/%s", name);
	snprintf(dir, sizeof(dir), "%s/%s", work_dir, name);
	REQUIRE(mkdir(dir, 0700) == 0);
	llm_strbuf_init(&absent);
	llm_strbuf_init(&expected);
	llm_strbuf_init(&actual);
	snprintf(path, sizeof(path), "%s/absent", folder);
	read_text(path, &absent);
	snprintf(path, sizeof(path), "%s/expected", folder);
	read_text(path, &expected);
	link_files(ODDITIES "/base", dir, llm_strbuf_str(&absent));
	link_files(folder, dir, "");
	load(dir, &actual);
	if (only != NULL ||
		strcmp(llm_strbuf_str(&expected), llm_strbuf_str(&actual)) != 0)
		fprintf(stderr, "%s:\n%s", name, llm_strbuf_str(&actual));
	CHECK(strcmp(llm_strbuf_str(&expected), llm_strbuf_str(&actual)) == 0);
	remove_files(dir);
	llm_strbuf_free(&absent);
	llm_strbuf_free(&expected);
	llm_strbuf_free(&actual);
}

static const char *case_name;

static void
oddity(void)
{
	check_case(case_name);
}

int
main(int argc, char **argv)
{
	struct dirent **entries;
	char path[512];
	int n_entries = scandir(ODDITIES, &entries, NULL, alphasort);

	only = argc > 1 ? argv[1] : NULL;
	if (n_entries < 0 || getcwd(here, sizeof(here)) == NULL ||
		mkdtemp(work_dir) == NULL)
	{
		fprintf(stderr, "could not read \"" ODDITIES "\"\n");
		return 1;
	}
	for (int i = 0; i < n_entries; i++)
	{
		case_name = entries[i]->d_name;
		if (case_name[0] != '.' && strchr(case_name, '.') == NULL &&
			(only == NULL || strcmp(only, case_name) == 0))
		{
			RUN_TEST(oddity);
			if (unit_check_failures > 0)
				fprintf(stderr, "not ok: %s\n", case_name);
		}
		free(entries[i]);
	}
	free(entries);
	snprintf(path, sizeof(path), "%s/image", work_dir);
	(void) unlink(path);
	(void) rmdir(work_dir);
	return unit_test_finish();
}
