/*
 * model_license.c
 *	  Under which license a model directory says it is.
 *
 * The model card (README.md) has it in its front matter, the YAML between
 * two "---" lines at its beginning: "license: apache-2.0".  Directories
 * without a card may have a LICENSE file, whose first line names it.  Only
 * plain "key: value" lines are looked at.  A GGUF file says it itself.
 *
 * src/common/model_dir/model_license.c
 */
#include <string.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/gguf/gguf.h"
#include "src/common/model_dir/model_dir_internal.h"
#include "src/common/util/mapped_file.h"
#include "src/common/util/utf8.h"

#define MAX_SCANNED_BYTES ((size_t) 65536)

typedef struct TextLine
{
	const char *text;
	size_t len;
} TextLine;

/* Cut the next line off the text; blanks around it are dropped. */
static bool
next_line(TextLine *rest, TextLine *line)
{
	const char *end;

	if (rest->len == 0)
		return false;
	end = memchr(rest->text, '\n', rest->len);
	line->text = rest->text;
	line->len = end != NULL ? (size_t) (end - rest->text) : rest->len;
	rest->len -= line->len + (end != NULL);
	rest->text += line->len + (end != NULL);
	while (line->len > 0 && strchr(" \t\r", line->text[line->len - 1]) != NULL)
		line->len--;
	while (line->len > 0 && (line->text[0] == ' ' || line->text[0] == '\t'))
	{
		line->text++;
		line->len--;
	}
	return true;
}

static bool
copy_line(const TextLine *line, char *license, size_t size)
{
	if (line->len == 0 || line->len >= size || line->text[0] == '\0' ||
		!llm_utf8_is_valid(line->text, line->len) ||
		memchr(line->text, '\0', line->len) != NULL)
		return false;
	memcpy(license, line->text, line->len);
	license[line->len] = '\0';
	return true;
}

/* The value of "key: value", without quotes. */
static bool
copy_value(const TextLine *line, const char *key, char *value, size_t size)
{
	size_t key_len = strlen(key);
	TextLine rest;
	TextLine plain;

	if (line->len <= key_len || memcmp(line->text, key, key_len) != 0 ||
		line->text[key_len] != ':')
		return false;
	rest.text = line->text + key_len + 1;
	rest.len = line->len - key_len - 1;
	if (!next_line(&rest, &plain))
		return false;
	if (plain.len >= 2 && (plain.text[0] == '"' || plain.text[0] == '\'') &&
		plain.text[plain.len - 1] == plain.text[0])
	{
		plain.text++;
		plain.len -= 2;
	}
	return copy_line(&plain, value, size);
}

static bool
license_of_card(TextLine rest, char *license, size_t size)
{
	char name[256];
	bool has_name = false;
	bool found = false;
	TextLine line;

	if (!next_line(&rest, &line) || line.len != 3 ||
		memcmp(line.text, "---", 3) != 0)
		return false;
	while (next_line(&rest, &line))
	{
		if (line.len == 3 && memcmp(line.text, "---", 3) == 0)
			break;
		found = found || copy_value(&line, "license", license, size);
		has_name =
			has_name || copy_value(&line, "license_name", name, sizeof(name));
	}
	/* "other" says nothing; its name does */
	if (found && has_name && strcmp(license, "other") == 0 &&
		strlen(name) < size)
		strcpy(license, name);
	return found;
}

static bool
license_of_file(TextLine rest, char *license, size_t size)
{
	TextLine line;

	while (next_line(&rest, &line))
	{
		if (line.len > 0)
			return copy_line(&line, license, size);
	}
	return false;
}

/* "general.license", and its name where that is "other" */
static bool
license_of_gguf(const char *dir, char *license, size_t size)
{
	LlmStrbuf path;
	LlmGguf *gguf = NULL;
	LlmGgufText text = { "", 0 };
	TextLine line;
	bool found;

	llm_strbuf_init(&path);
	if (llm_checkpoint_find_gguf(dir, &path, &found, NULL) && found)
		gguf = llm_gguf_open(llm_strbuf_str(&path), NULL);
	llm_strbuf_free(&path);
	if (gguf == NULL)
		return false;
	found = llm_gguf_get_text(gguf, "general.license", &text, NULL);
	if (text.len == 5 && memcmp(text.data, "other", 5) == 0)
		found = llm_gguf_get_text(gguf, "general.license.name", &text, NULL);
	line = (TextLine){ text.data, text.len };
	found = found && copy_line(&line, license, size);
	llm_gguf_close(gguf);
	return found;
}

bool
model_license_read(const char *dir, char *license, size_t size)
{
	static const struct
	{
		const char *name;
		bool (*read)(TextLine rest, char *license, size_t size);
	} sources[] = {
		{ "README.md", license_of_card },
		{ "LICENSE", license_of_file },
		{ "LICENSE.txt", license_of_file },
		{ "LICENSE.md", license_of_file },
	};

	if (license_of_gguf(dir, license, size))
		return true;
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
	{
		char path[MODEL_DIR_MAX_PATH_BYTES];
		LlmMappedFile file;
		TextLine text;
		bool found;

		if (!model_dir_path(path, dir, sources[i].name, NULL) ||
			!llm_mapped_file_open(&file, path, NULL))
			continue;
		text.text = file.data;
		text.len =
			file.size < MAX_SCANNED_BYTES ? file.size : MAX_SCANNED_BYTES;
		found = sources[i].read(text, license, size);
		llm_mapped_file_close(&file);
		if (found)
			return true;
	}
	return false;
}
