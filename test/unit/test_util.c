/*
 * test_util.c
 *	  Unit tests of src/common/util.
 *
 * test/unit/test_util.c
 */
#include <math.h>
#include <unistd.h>

#include "src/common/util/arena.h"
#include "src/common/util/error.h"
#include "src/common/util/half_float.h"
#include "src/common/util/json.h"
#include "src/common/util/json_slice.h"
#include "src/common/util/mapped_file.h"
#include "src/common/util/philox.h"
#include "src/common/util/sha256.h"
#include "src/common/util/strbuf.h"
#include "src/common/util/utf8.h"
#include "test/unit/unit_test.h"

static void
error_message_is_cut_at_a_character(void)
{
	LlmError err;
	char text[2 * LLM_ERROR_MESSAGE_BYTES];

	for (size_t i = 0; i + 1 < sizeof(text); i += 2)
		memcpy(text + i, "\xC3\xA9", 2);
	text[sizeof(text) - 2] = '\0';
	CHECK(!llm_error_set(&err, LLM_ERROR_INVALID, "x%s", text));
	CHECK(llm_utf8_is_valid(err.message, strlen(err.message)));
	CHECK_INT_EQ(strlen(err.message), LLM_ERROR_MESSAGE_BYTES - 1);
	llm_error_set(&err, LLM_ERROR_INVALID, "%s", text);
	CHECK(llm_utf8_is_valid(err.message, strlen(err.message)));
	CHECK_INT_EQ(strlen(err.message), LLM_ERROR_MESSAGE_BYTES - 2);
}

static void
arena_respects_its_limit(void)
{
	LlmArena *arena = llm_arena_create("test", 100000);
	size_t total = 0;

	REQUIRE(arena != NULL);
	while (llm_arena_alloc(arena, 1000) != NULL)
		total += 1000;
	CHECK(total <= 100000 && total >= 40000);
	llm_arena_reset(arena);
	CHECK(llm_arena_alloc(arena, 1000) != NULL);
	CHECK(llm_arena_alloc(arena, 200000) == NULL);
	CHECK_STR_EQ(llm_arena_strndup(arena, "abcdef", 3), "abc");
	llm_arena_free(arena);
}

static void
half_floats_round_trip(void)
{
	for (uint32_t bits = 0; bits < 65536; bits++)
	{
		float f16 = llm_f16_to_float((uint16_t) bits);
		float bf16 = llm_bf16_to_float((uint16_t) bits);

		if (isnan(f16))
			CHECK(isnan(llm_f16_to_float(llm_float_to_f16(f16))));
		else
			CHECK_INT_EQ(llm_float_to_f16(f16), bits);
		if (isnan(bf16))
			CHECK(isnan(llm_bf16_to_float(llm_float_to_bf16(bf16))));
		else
			CHECK_INT_EQ(llm_float_to_bf16(bf16), bits);
	}
	CHECK_INT_EQ(llm_float_to_f16(65504.0f), 0x7BFF);
	CHECK_INT_EQ(llm_float_to_f16(65519.9f), 0x7BFF);
	CHECK_INT_EQ(llm_float_to_f16(65520.0f), 0x7C00);
	CHECK_INT_EQ(llm_float_to_f16(1.0f + 1.0f / 2048), 0x3C00);
	CHECK_INT_EQ(llm_float_to_f16(1.0f + 3.0f / 2048), 0x3C02);
	CHECK_INT_EQ(llm_float_to_bf16(1.0f + 1.0f / 256), 0x3F80);
	CHECK_INT_EQ(llm_float_to_bf16(1.0f + 3.0f / 256), 0x3F82);
}

static void
sha256_known_answers(void)
{
	LlmSha256 sha;
	uint8_t digest[LLM_SHA256_BYTES];
	static const uint8_t abc[4] = { 0xba, 0x78, 0x16, 0xbf };
	static const uint8_t million_a[4] = { 0xcd, 0xc7, 0x6e, 0x5c };

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, "abc", 3);
	llm_sha256_final(&sha, digest);
	CHECK(memcmp(digest, abc, 4) == 0);
	llm_sha256_init(&sha);
	for (int i = 0; i < 1000000 / 125; i++)
	{
		char block[125];

		memset(block, 'a', sizeof(block));
		llm_sha256_update(&sha, block, sizeof(block));
	}
	llm_sha256_final(&sha, digest);
	CHECK(memcmp(digest, million_a, 4) == 0);
}

/* The known-answer vectors published with Random123. */
static void
philox_known_answers(void)
{
	LlmPhilox zero = llm_philox(0, 0, 0);
	LlmPhilox ones = llm_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX);

	CHECK_INT_EQ(zero.word[0], 0x6627e8d5u);
	CHECK_INT_EQ(zero.word[3], 0x9b00dbd8u);
	CHECK_INT_EQ(ones.word[0], 0x408f276du);
	CHECK_INT_EQ(ones.word[3], 0x6d5451fdu);
}

static void
utf8_accepts_only_shortest_forms(void)
{
	CHECK(llm_utf8_is_valid("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 10));
	CHECK(!llm_utf8_is_valid("\xC0\x80", 2));
	CHECK(!llm_utf8_is_valid("\xED\xA0\x80", 3));
	CHECK(!llm_utf8_is_valid("\xF4\x90\x80\x80", 4));
	CHECK_INT_EQ(llm_utf8_complete_prefix("a\xF0\x9F\x98", 4), 1);
	CHECK_INT_EQ(llm_utf8_complete_prefix("a\xF0\x9F\x98\x80", 5), 5);
	CHECK_INT_EQ(llm_utf8_complete_prefix("a\xFF", 2), 2);
	CHECK_INT_EQ(llm_utf8_complete_prefix("\x80\x80\x80\x80", 4), 4);
	for (uint32_t cp = 0; cp < 0x110000; cp++)
	{
		char bytes[4];
		uint32_t back = 0;
		int n = llm_utf8_encode(cp, bytes);

		if (cp >= 0xD800 && cp <= 0xDFFF)
			CHECK(llm_utf8_decode(bytes, 4, &back) == 0);
		else if (llm_utf8_decode(bytes, (size_t) n, &back) != n || back != cp)
			CHECK_FAIL("U+%04X does not round trip", cp);
	}
}

static void
json_getters_check_types(void)
{
	LlmError err;
	const char *text = "\xEF\xBB\xBF{\"a\": 3, \"b\": 1.5, \"c\": null, "
					   "\"d\": \"x\", \"e\": true}\n";
	cJSON *json = llm_json_parse(text, strlen(text), "test", &err);
	int64_t number = 7;
	double real = 7;
	bool flag = false;
	const char *string = NULL;

	REQUIRE(json != NULL);
	CHECK(llm_json_get_int(json, "a", &number, &err) && number == 3);
	CHECK(!llm_json_get_int(json, "b", &number, &err));
	CHECK(llm_json_get_int(json, "c", &number, &err) && number == 3);
	CHECK(llm_json_get_double(json, "b", &real, &err) && real == 1.5);
	CHECK(llm_json_get_string(json, "d", &string, &err));
	CHECK_STR_EQ(string, "x");
	CHECK(llm_json_get_bool(json, "e", &flag, &err) && flag);
	CHECK(!llm_json_get_bool(json, "A", &flag, &err) || flag);
	cJSON_Delete(json);
	CHECK(llm_json_parse("{\"a\": }", 7, "test", &err) == NULL);
	CHECK(strstr(err.message, "test") != NULL);
	CHECK(llm_json_parse("{} x", 4, "test", &err) == NULL);
}

static void
strbuf_fails_at_its_limit(void)
{
	LlmStrbuf buf;

	llm_strbuf_init(&buf);
	buf.limit = 10;
	llm_strbuf_append_str(&buf, "12345678");
	CHECK(!buf.failed);
	llm_strbuf_printf(&buf, "%d", 123);
	CHECK(buf.failed);
	CHECK_STR_EQ(llm_strbuf_str(&buf), "12345678");
	llm_strbuf_reset(&buf);
	llm_strbuf_printf(&buf, "%s-%d", "ab", 12);
	CHECK_STR_EQ(llm_strbuf_str(&buf), "ab-12");
	llm_strbuf_free(&buf);
}

/* Pages of files that are in this process's memory. */
static unsigned long long
resident_file_pages(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file == NULL || fscanf(file, "%*u %*u %llu", &pages) != 1)
		CHECK_FAIL("could not read /proc/self/statm");
	if (file != NULL)
		fclose(file);
	return pages;
}

static void
released_pages_of_a_file_leave_memory(void)
{
	enum
	{
		N_PAGES = 4096
	};
	char path[] = "/tmp/llm_test_util_XXXXXX";
	size_t page = (size_t) sysconf(_SC_PAGESIZE);
	int fd = mkstemp(path);
	unsigned long long before;
	unsigned long long after;
	LlmMappedFile file;
	LlmError err;

	REQUIRE(fd >= 0);
	CHECK_INT_EQ(ftruncate(fd, (off_t) (N_PAGES * page)), 0);
	CHECK_INT_EQ(pwrite(fd, "mark", 4, (off_t) (7 * page + 50)), 4);
	close(fd);
	REQUIRE(llm_mapped_file_open(&file, path, &err));
	CHECK(llm_mapped_file_prefetch(&file, path, &err));
	for (size_t i = 0; i < N_PAGES; i++)
		CHECK_INT_EQ(file.data[i * page], 0); /* where prefetch is unknown */
	before = resident_file_pages();
	/* the first and the last page are only in part what is released */
	llm_mapped_file_release(file.data + 1, file.size - 2);
	after = resident_file_pages();
	CHECK(before - after > N_PAGES / 2 && before > after);
	CHECK(memcmp(file.data + 7 * page + 50, "mark", 4) == 0);
	llm_mapped_file_release(file.data + 1, page - 2);
	llm_mapped_file_close(&file);
	unlink(path);
}

/* Words of eight bytes at a time against one byte at a time. */
static void
scans_agree_with_single_bytes(void)
{
	static const char bytes[] = "aaaaaaaa \x1f\"\\\xC3\xA9\x7F\x80!#[]";
	uint32_t state = 1;

	for (int round = 0; round < 20000; round++)
	{
		char text[40];
		size_t len = (size_t) round % sizeof(text);
		size_t n_ascii = 0;
		size_t n_plain = 0;
		size_t n_chars = 0;

		for (size_t i = 0; i < len; i++)
		{
			state = state * 1664525u + 1013904223u;
			text[i] = bytes[(state >> 16) % (state % 5 == 0 ? 20 : 8)];
			n_chars += ((unsigned char) text[i] & 0xC0) != 0x80;
		}
		while (n_ascii < len && (unsigned char) text[n_ascii] < 0x80)
			n_ascii++;
		while (n_plain < len && (unsigned char) text[n_plain] >= 0x20 &&
			   text[n_plain] != '"' && text[n_plain] != '\\')
			n_plain++;
		CHECK_INT_EQ(llm_utf8_ascii_bytes(text, len), n_ascii);
		CHECK_INT_EQ(llm_json_plain_bytes(text, len), n_plain);
		CHECK_INT_EQ(llm_utf8_count(text, len), n_chars);
	}
}

int
main(void)
{
	RUN_TEST(scans_agree_with_single_bytes);
	RUN_TEST(released_pages_of_a_file_leave_memory);
	RUN_TEST(error_message_is_cut_at_a_character);
	RUN_TEST(arena_respects_its_limit);
	RUN_TEST(half_floats_round_trip);
	RUN_TEST(sha256_known_answers);
	RUN_TEST(philox_known_answers);
	RUN_TEST(utf8_accepts_only_shortest_forms);
	RUN_TEST(json_getters_check_types);
	RUN_TEST(strbuf_fails_at_its_limit);
	return unit_test_finish();
}
