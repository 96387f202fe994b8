/*
 * test_gguf.c
 *	  GGUF headers: what is read of good ones, and that every bad one is an
 *	  error that names what is wrong.
 *
 * test/unit/test_gguf.c
 */
#include <endian.h>
#include <unistd.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/gguf/gguf.h"
#include "src/common/model_dir/model_dir.h"
#include "test/unit/unit_test.h"

/* The format's numbers for types. */
enum
{
	TYPE_U8 = 0,
	TYPE_U32 = 4,
	TYPE_F32 = 6,
	TYPE_BOOL = 7,
	TYPE_STRING = 8,
	TYPE_ARRAY = 9,
	TYPE_U64 = 10
};

static LlmError err;

/* ---- writing ---- */

static void
put_u32(LlmStrbuf *out, uint32_t value)
{
	value = htole32(value);
	llm_strbuf_append(out, &value, sizeof(value));
}

static void
put_u64(LlmStrbuf *out, uint64_t value)
{
	value = htole64(value);
	llm_strbuf_append(out, &value, sizeof(value));
}

static void
put_string(LlmStrbuf *out, const char *text)
{
	put_u64(out, strlen(text));
	llm_strbuf_append_str(out, text);
}

static void
put_header(LlmStrbuf *out, uint32_t version, uint64_t n_tensors,
		   uint64_t n_entries)
{
	llm_strbuf_append_str(out, "GGUF");
	put_u32(out, version);
	put_u64(out, n_tensors);
	put_u64(out, n_entries);
}

static void
put_key(LlmStrbuf *out, const char *key, uint32_t type)
{
	put_string(out, key);
	put_u32(out, type);
}

static void
put_text_entry(LlmStrbuf *out, const char *key, const char *value)
{
	put_key(out, key, TYPE_STRING);
	put_string(out, value);
}

static void
put_u32_entry(LlmStrbuf *out, const char *key, uint32_t value)
{
	put_key(out, key, TYPE_U32);
	put_u32(out, value);
}

/* A tensor of two dimensions; n_rows 0: of one. */
static void
put_tensor(LlmStrbuf *out, const char *name, uint64_t n_cols, uint64_t n_rows,
		   uint32_t type, uint64_t off)
{
	put_string(out, name);
	put_u32(out, n_rows > 0 ? 2 : 1);
	put_u64(out, n_cols);
	if (n_rows > 0)
		put_u64(out, n_rows);
	put_u32(out, type);
	put_u64(out, off);
}

static void
put_padding(LlmStrbuf *out, size_t alignment, size_t n_data_bytes)
{
	while (out->len % alignment != 0)
		llm_strbuf_append_char(out, 0);
	for (size_t i = 0; i < n_data_bytes; i++)
		llm_strbuf_append_char(out, (char) i);
}

/* ---- good ones ---- */

/* Values of most types; tensors [3, 4] of F32 at 0, [5] of F16 at 64. */
static void
put_good_file(LlmStrbuf *out)
{
	put_header(out, 3, 2, 5);
	put_text_entry(out, "general.architecture", "llama");
	put_u32_entry(out, "a.number", 42);
	put_key(out, "a.float", TYPE_F32);
	put_u32(out, 0x3FC00000); /* 1.5 */
	put_key(out, "a.truth", TYPE_BOOL);
	llm_strbuf_append_char(out, 1);
	put_key(out, "a.list", TYPE_ARRAY);
	put_u32(out, TYPE_STRING);
	put_u64(out, 2);
	put_string(out, "one");
	put_string(out, "");
	put_tensor(out, "first", 4, 3, 0, 0);
	put_tensor(out, "second", 5, 0, 1, 64);
	put_padding(out, 32, 64 + 10);
}

static void
good_files_are_read(void)
{
	LlmStrbuf file;
	LlmGguf *gguf;
	LlmGgufText text = { "", 0 };
	LlmGgufArray list = { 0 };
	const LlmGgufTensor *tensor;
	int64_t number = 0;
	double real = 0;
	bool truth = false;

	llm_strbuf_init(&file);
	put_good_file(&file);
	gguf = llm_gguf_parse(file.data, file.len, "good", &err);
	REQUIRE(gguf != NULL);
	CHECK(llm_gguf_get_int(gguf, "a.number", &number, &err) && number == 42);
	CHECK(llm_gguf_get_int(gguf, "absent", &number, &err) && number == 42);
	CHECK(llm_gguf_get_double(gguf, "a.float", &real, &err) && real == 1.5);
	CHECK(llm_gguf_get_bool(gguf, "a.truth", &truth, &err) && truth);
	CHECK(llm_gguf_get_text(gguf, "general.architecture", &text, &err) &&
		  text.len == 5 && memcmp(text.data, "llama", 5) == 0);
	CHECK(llm_gguf_get_array(gguf, "a.list", &list, &err));
	CHECK(llm_gguf_next_text(&list, &text) && text.len == 3);
	CHECK(llm_gguf_next_text(&list, &text) && text.len == 0);
	CHECK(!llm_gguf_next_text(&list, &text));
	CHECK(!llm_gguf_get_int(gguf, "a.float", &number, &err));
	CHECK(strstr(err.message, "a.float") != NULL);
	CHECK(!llm_gguf_get_text(gguf, "a.number", &text, &err));
	CHECK_INT_EQ(llm_gguf_n_tensors(gguf), 2);
	tensor = llm_gguf_find(gguf, "first");
	REQUIRE(tensor != NULL);
	CHECK_INT_EQ(tensor->shape[0], 3);
	CHECK_INT_EQ(tensor->shape[1], 4);
	CHECK_INT_EQ(tensor->n_bytes, 48);
	tensor = llm_gguf_find(gguf, "second");
	REQUIRE(tensor != NULL);
	CHECK_INT_EQ(tensor->n_bytes, 10);
	CHECK((const char *) tensor->data == file.data + file.len - 10);
	CHECK(llm_gguf_find(gguf, "third") == NULL);
	llm_gguf_close(gguf);
	llm_strbuf_free(&file);
}

/* ---- damaged ones ---- */

/* Cut off anywhere, a file is an error: its last tensor ends with it. */
static void
truncated_files_are_refused(void)
{
	LlmStrbuf file;

	llm_strbuf_init(&file);
	put_good_file(&file);
	for (size_t n = 0; n < file.len; n++)
	{
		/* a copy of that size, so that reading beyond it is noticed */
		char *copy = malloc(n + 1);
		LlmGguf *gguf;

		memcpy(copy, file.data, n);
		copy = realloc(copy, n > 0 ? n : 1);
		llm_error_clear(&err);
		gguf = llm_gguf_parse(copy, n, "cut", &err);
		if (gguf != NULL || strncmp(err.message, "cut: ", 5) != 0)
			CHECK_FAIL("%zu bytes: \"%s\"", n, err.message);
		llm_gguf_close(gguf);
		free(copy);
	}
	llm_strbuf_free(&file);
}

static void
use_everything(const LlmGguf *gguf)
{
	static const char *const names[] = { "config.json", "tokenizer.json",
										 "tokenizer_config.json",
										 "generation_config.json" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		LlmStrbuf text;
		bool found;

		llm_strbuf_init(&text);
		if (!llm_gguf_text(gguf, names[i], &text, &found, &err))
			CHECK(err.message[0] != '\0');
		llm_strbuf_free(&text);
	}
	for (int i = 0; i < llm_gguf_n_tensors(gguf); i++)
	{
		LlmGgufTensorName name;

		llm_gguf_tensor_name(gguf, llm_gguf_get(gguf, i), &name, &err);
	}
}

static bool
read_vector(const char *path, LlmStrbuf *file)
{
	LlmMappedFile map;

	if (!llm_mapped_file_open(&map, path, &err))
		return false;
	llm_strbuf_append(file, map.data, map.size);
	llm_mapped_file_close(&map);
	return true;
}

/* Bytes of a real header changed one by one: an error or a file, no crash. */
static void
check_changed_bytes(const char *path, size_t n_header_bytes, size_t step)
{
	static const unsigned char masks[] = { 0x01, 0x80, 0xFF };
	LlmStrbuf file;

	llm_strbuf_init(&file);
	REQUIRE(read_vector(path, &file));
	if (n_header_bytes > file.len)
		n_header_bytes = file.len;
	for (size_t at = 0; at < n_header_bytes; at += step)
	{
		for (size_t i = 0; i < sizeof(masks); i++)
		{
			LlmGguf *gguf;

			file.data[at] = (char) (file.data[at] ^ masks[i]);
			llm_error_clear(&err);
			gguf = llm_gguf_parse(file.data, file.len, "changed", &err);
			if (gguf != NULL)
				use_everything(gguf);
			else
				CHECK(err.message[0] != '\0');
			llm_gguf_close(gguf);
			file.data[at] = (char) (file.data[at] ^ masks[i]);
		}
	}
	llm_strbuf_free(&file);
}

static void
changed_bytes_do_no_harm(void)
{
	check_changed_bytes("test/vectors/gguf/llama3-f16.gguf", 2400, 1);
	check_changed_bytes("test/vectors/gguf/tokenizer-gemma.gguf", 30000, 97);
}

/* ---- files that lie ---- */

static void
check_refused(LlmStrbuf *file, const char *what, const char *expected)
{
	LlmGguf *gguf;

	llm_error_clear(&err);
	gguf = llm_gguf_parse(file->data, file->len, "bad", &err);
	if (gguf != NULL)
		CHECK_FAIL("%s: it was accepted", what);
	else if (strstr(err.message, expected) == NULL)
		CHECK_FAIL("%s: \"%s\"", what, err.message);
	llm_gguf_close(gguf);
	llm_strbuf_free(file);
	llm_strbuf_init(file);
}

static void
bad_versions_and_counts_are_refused(void)
{
	LlmStrbuf file;

	llm_strbuf_init(&file);
	llm_strbuf_append_str(&file, "PK\003\004 something else");
	check_refused(&file, "no magic", "no GGUF file");
	put_header(&file, 1, 0, 0);
	check_refused(&file, "version 1", "version 1");
	put_header(&file, 0x03000000, 0, 0);
	check_refused(&file, "big-endian", "big-endian");
	put_header(&file, 4, 0, 0);
	check_refused(&file, "version 4", "version 4");
	put_header(&file, 3, 0, UINT64_MAX);
	check_refused(&file, "entries", "metadata entries");
	put_header(&file, 3, UINT64_MAX / 8, 0);
	check_refused(&file, "tensors", "tensors");
}

static void
bad_metadata_is_refused(void)
{
	LlmStrbuf file;

	llm_strbuf_init(&file);
	put_header(&file, 3, 0, 2);
	put_u32_entry(&file, "twice", 1);
	put_u32_entry(&file, "twice", 1);
	check_refused(&file, "duplicate", "\"twice\" occurs twice");
	put_header(&file, 3, 0, 1);
	put_key(&file, "odd", 13);
	put_u64(&file, 0);
	check_refused(&file, "type", "\"odd\" has the unknown type 13");
	put_header(&file, 3, 0, 1);
	put_key(&file, "", TYPE_U64);
	put_u64(&file, 0);
	check_refused(&file, "empty key", "has 0 bytes");
	put_header(&file, 3, 0, 1);
	put_key(&file, "k\ny", TYPE_U64);
	put_u64(&file, 0);
	check_refused(&file, "key of two lines", "printable");
	put_header(&file, 3, 0, 1);
	put_key(&file, "maybe", TYPE_BOOL);
	llm_strbuf_append_char(&file, 2);
	check_refused(&file, "truth", "\"maybe\" has a truth value of 2");
	put_header(&file, 3, 0, 1);
	put_key(&file, "long", TYPE_STRING);
	put_u64(&file, UINT64_MAX);
	check_refused(&file, "string", "long");
	put_header(&file, 3, 0, 1);
	put_u32_entry(&file, "general.alignment", 24);
	put_tensor(&file, "t", 1, 0, 0, 0); /* an alignment without tensors is
										 * nobody's */
	file.data[8] = 1;
	put_padding(&file, 32, 32);
	check_refused(&file, "alignment", "general.alignment");
}

static void
bad_arrays_are_refused(void)
{
	LlmStrbuf file;

	llm_strbuf_init(&file);
	put_header(&file, 3, 0, 1);
	put_key(&file, "huge", TYPE_ARRAY);
	put_u32(&file, TYPE_U64);
	put_u64(&file, UINT64_MAX / 4);
	check_refused(&file, "length", "huge");
	put_header(&file, 3, 0, 1);
	put_key(&file, "texts", TYPE_ARRAY);
	put_u32(&file, TYPE_STRING);
	put_u64(&file, UINT64_MAX);
	check_refused(&file, "texts", "texts");
	put_header(&file, 3, 0, 1);
	put_key(&file, "kind", TYPE_ARRAY);
	put_u32(&file, 99);
	put_u64(&file, 1);
	check_refused(&file, "element type", "unknown type 99");
	put_header(&file, 3, 0, 1);
	put_key(&file, "deep", TYPE_ARRAY);
	for (int i = 0; i < 100; i++)
	{
		put_u32(&file, TYPE_ARRAY);
		put_u64(&file, 1);
	}
	put_u32(&file, TYPE_U8);
	put_u64(&file, 0);
	check_refused(&file, "nesting", "nested deeper");
}

/* A file of one or two tensors and 64 bytes of data. */
static void
put_two_tensors(LlmStrbuf *file, uint64_t n_cols, uint32_t type, uint64_t off)
{
	put_header(file, 2, 2, 0);
	put_tensor(file, "one", 8, 0, 0, 0);
	put_tensor(file, "two", n_cols, 0, type, off);
	put_padding(file, 32, 64);
}

static void
bad_tensors_are_refused(void)
{
	LlmStrbuf file;

	llm_strbuf_init(&file);
	put_two_tensors(&file, 8, 0, 0);
	check_refused(&file, "overlap", "\"one\" and \"two\" overlap");
	put_two_tensors(&file, 8, 0, 4);
	check_refused(&file, "offset", "\"two\" lies at offset 4");
	put_two_tensors(&file, 8, 0, 64);
	check_refused(&file, "beyond", "\"two\" has 32 bytes at offset 64");
	put_two_tensors(&file, 8, 0, UINT64_MAX - 31);
	check_refused(&file, "far beyond", "truncated");
	put_two_tensors(&file, 0, 0, 32);
	check_refused(&file, "empty", "\"two\": a dimension is 0");
	put_two_tensors(&file, UINT64_MAX, 0, 32);
	check_refused(&file, "size", "overflows");
	put_two_tensors(&file, (uint64_t) INT64_MAX, 0, 32);
	check_refused(&file, "bytes", "overflows");
	put_two_tensors(&file, 8, 5, 32);
	check_refused(&file, "gap in types", "unknown type 5");
	put_two_tensors(&file, 8, 4000000000, 32);
	check_refused(&file, "type", "unknown type 4000000000");
	put_two_tensors(&file, 8, 8, 32);
	check_refused(&file, "blocks", "not whole blocks of type Q8_0");
	put_header(&file, 3, 2, 0);
	put_tensor(&file, "same", 8, 0, 0, 0);
	put_tensor(&file, "same", 8, 0, 0, 32);
	put_padding(&file, 32, 64);
	check_refused(&file, "names", "\"same\" occurs twice");
	put_header(&file, 3, 1, 0);
	put_string(&file, "flat");
	put_u32(&file, 5);
	for (int i = 0; i < 5; i++)
		put_u64(&file, 1);
	put_u64(&file, 0);
	put_padding(&file, 32, 64);
	check_refused(&file, "dimensions", "5 dimensions");
}

/* ---- as models ---- */

static void
check_inspection(const char *path, const char *expected)
{
	LlmStrbuf json;

	llm_strbuf_init(&json);
	if (!llm_model_inspect(path, &json, &err))
		CHECK_FAIL("%s: %s", path, err.message);
	else if (strstr(llm_strbuf_str(&json), expected) == NULL)
		CHECK_FAIL("%s: no %s in %s", path, expected, llm_strbuf_str(&json));
	llm_strbuf_free(&json);
}

static void
files_are_inspected_like_directories(void)
{
	static const char path[] = "test/vectors/gguf/llama3-f16.gguf";

	check_inspection(path, "\"family\":\"llama\"");
	check_inspection(path, "\"license\":\"apache-2.0\"");
	check_inspection(path, "\"rope\":\"longrope\"");
	check_inspection(path, "\"dtype\":\"float16\"");
	check_inspection(path, "\"stop_token_ids\":[2]");
	check_inspection("test/vectors/gguf/tokenizer-llama.gguf",
					 "metadata key \\\"llama.block_count\\\" is missing");
	check_inspection("test/unit/test_gguf.c", "no GGUF file");
}

/* Copy a vector to a folder; its path is a static buffer. */
static const char *
copy_vector(const char *dir, const char *name)
{
	static char path[300];
	LlmStrbuf content;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	llm_strbuf_init(&content);
	file = fopen(path, "w");
	if (file == NULL ||
		!read_vector("test/vectors/gguf/linear-f32.gguf", &content) ||
		fwrite(content.data, 1, content.len, file) != content.len)
		CHECK_FAIL("could not write %s", path);
	if (file != NULL)
		fclose(file);
	llm_strbuf_free(&content);
	return path;
}

/* A directory is its only GGUF file; several need a choice. */
static void
directories_of_gguf_files_are_models(void)
{
	char dir[] = "/tmp/llm_test_gguf_XXXXXX";
	char first[300];
	LlmModelConfig config;
	LlmCheckpoint *tensors;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(first, sizeof(first), "%s", copy_vector(dir, "a.gguf"));
	CHECK(llm_model_config_read(dir, &config, &err));
	tensors = llm_checkpoint_open(dir, &err);
	CHECK(tensors != NULL);
	llm_checkpoint_close(tensors);
	copy_vector(dir, "b.gguf");
	CHECK(!llm_model_config_read(dir, &config, &err));
	CHECK(strstr(err.message, "has 2 GGUF files") != NULL);
	CHECK(err.hint[0] != '\0');
	unlink(first);
	unlink(copy_vector(dir, "b.gguf"));
	CHECK_INT_EQ(rmdir(dir), 0);
}

/* Piece "no" of a split file of n, with one tensor; under any name. */
static void
write_piece(const char *dir, const char *name, uint32_t no, uint32_t n,
			const char *tensor)
{
	char path[300];
	LlmStrbuf piece;
	FILE *file;

	llm_strbuf_init(&piece);
	put_header(&piece, 3, 1, 3);
	put_text_entry(&piece, "general.architecture", "llama");
	put_u32_entry(&piece, "split.no", no);
	put_u32_entry(&piece, "split.count", n);
	put_tensor(&piece, tensor, 4, 0, 0, 0);
	put_padding(&piece, 32, 16);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	REQUIRE(file != NULL);
	CHECK(fwrite(piece.data, 1, piece.len, file) == piece.len);
	fclose(file);
	llm_strbuf_free(&piece);
}

/* NULL: the pieces open; else what the error says. */
static void
check_pieces(const char *dir, const char *first, const char *expected)
{
	char path[300];
	LlmGguf *gguf;

	snprintf(path, sizeof(path), "%s/%s", dir, first);
	llm_error_clear(&err);
	gguf = llm_gguf_open(path, &err);
	if (expected == NULL)
	{
		CHECK(gguf != NULL && llm_gguf_n_files(gguf) == 2 &&
			  llm_gguf_find(gguf, "one") != NULL &&
			  llm_gguf_find(gguf, "two") != NULL);
	}
	else if (gguf != NULL || strstr(err.message, expected) == NULL)
		CHECK_FAIL("%s: no \"%s\" in \"%s\"", first, expected, err.message);
	llm_gguf_close(gguf);
}

static void
pieces_of_a_split_file_are_one(void)
{
	static const char first[] = "m-00001-of-00002.gguf";
	static const char second[] = "m-00002-of-00002.gguf";
	char dir[] = "/tmp/llm_test_gguf_XXXXXX";
	char path[300];

	REQUIRE(mkdtemp(dir) != NULL);
	write_piece(dir, first, 0, 2, "one");
	check_pieces(dir, first, "00002-of-00002.gguf");
	write_piece(dir, second, 1, 2, "two");
	check_pieces(dir, first, NULL);
	check_pieces(dir, second, "is opened by its first");
	write_piece(dir, second, 0, 2, "two");
	check_pieces(dir, first, "it is piece 0 of 2, not 1 of 2");
	write_piece(dir, second, 1, 3, "two");
	check_pieces(dir, first, "it is piece 1 of 3, not 1 of 2");
	write_piece(dir, second, 1, 2, "one");
	check_pieces(dir, first, "tensor \"one\" occurs twice");
	write_piece(dir, second, 1, 2, "two");
	write_piece(dir, first, 2, 2, "one");
	check_pieces(dir, first, "it is piece 2 of 2");
	snprintf(path, sizeof(path), "%s/%s", dir, first);
	unlink(path);
	snprintf(path, sizeof(path), "%s/%s", dir, second);
	unlink(path);
	CHECK_INT_EQ(rmdir(dir), 0);
}

int
main(void)
{
	RUN_TEST(pieces_of_a_split_file_are_one);
	RUN_TEST(good_files_are_read);
	RUN_TEST(truncated_files_are_refused);
	RUN_TEST(changed_bytes_do_no_harm);
	RUN_TEST(bad_versions_and_counts_are_refused);
	RUN_TEST(bad_metadata_is_refused);
	RUN_TEST(bad_arrays_are_refused);
	RUN_TEST(bad_tensors_are_refused);
	RUN_TEST(files_are_inspected_like_directories);
	RUN_TEST(directories_of_gguf_files_are_models);
	return unit_test_finish();
}
