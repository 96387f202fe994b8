/*
 * test_safetensors.c
 *	  Unit tests of src/common/safetensors: files are written here, byte by
 *	  byte, honest and hostile ones.
 *
 * test/unit/test_safetensors.c
 */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/safetensors/safetensors.h"
#include "test/unit/unit_test.h"

static char dir[] = "/tmp/llm_test_safetensors_XXXXXX";

static void
write_bytes(const char *name, const void *bytes, size_t n)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "wb");
	if (file == NULL || fwrite(bytes, 1, n, file) != n || fclose(file) != 0)
		abort();
}

/* A file of the given header text and n_data bytes 0, 1, 2, ... */
static void
write_file(const char *name, const char *header, size_t n_data)
{
	size_t n_header = strlen(header);
	size_t n = 8 + n_header + n_data;
	unsigned char *bytes = calloc(1, n);

	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char) (n_header >> (8 * i));
	memcpy(bytes + 8, header, n_header);
	for (size_t i = 0; i < n_data; i++)
		bytes[8 + n_header + i] = (unsigned char) i;
	write_bytes(name, bytes, n);
	free(bytes);
}

static LlmSafetensors *
open_file(const char *name, LlmError *err)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	llm_error_clear(err);
	return llm_safetensors_open(path, err);
}

static void
remove_files(void)
{
	DIR *handle = opendir(dir);
	struct dirent *entry;

	while (handle != NULL && (entry = readdir(handle)) != NULL)
	{
		char path[600];

		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		unlink(path);
	}
	closedir(handle);
}

static void
tensors_are_found_in_place(void)
{
	LlmError err;
	LlmSafetensors *tensors;
	const LlmStoredTensor *tensor;

	write_file("a.safetensors",
			   "{\"__metadata__\":{\"format\":\"pt\"},"
			   "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],"
			   "\"data_offsets\":[4,16]},"
			   "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
			   "\"e\":{\"dtype\":\"F16\",\"shape\":[0,7],"
			   "\"data_offsets\":[16,16]},"
			   "\"odd\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],"
			   "\"data_offsets\":[16,19]}}   ",
			   19);
	tensors = open_file("a.safetensors", &err);
	REQUIRE(tensors != NULL);
	CHECK_INT_EQ(llm_safetensors_n_tensors(tensors), 4);
	CHECK_STR_EQ(llm_safetensors_get(tensors, 0)->name, "a");
	CHECK_STR_EQ(llm_safetensors_get(tensors, 3)->name, "odd");
	tensor = llm_safetensors_find(tensors, "b");
	REQUIRE(tensor != NULL);
	CHECK_INT_EQ(tensor->n_dims, 2);
	CHECK_INT_EQ(tensor->shape[1], 3);
	CHECK_INT_EQ(tensor->n_bytes, 12);
	CHECK(tensor->is_known_dtype && tensor->dtype == LLM_DTYPE_BF16);
	CHECK_INT_EQ(((const unsigned char *) tensor->data)[0], 4);
	CHECK(strstr(llm_safetensors_path(tensors, tensor), "/a.safetensors") !=
		  NULL);
	tensor = llm_safetensors_find(tensors, "a");
	REQUIRE(tensor != NULL);
	CHECK_INT_EQ(tensor->n_dims, 0);
	tensor = llm_safetensors_find(tensors, "odd");
	REQUIRE(tensor != NULL);
	CHECK(!tensor->is_known_dtype);
	CHECK_STR_EQ(tensor->dtype_name, "F6_E2M3");
	CHECK(llm_safetensors_find(tensors, "") == NULL);
	CHECK(llm_safetensors_find(tensors, "zz") == NULL);
	CHECK(llm_safetensors_find(tensors, "__metadata__") == NULL);
	llm_safetensors_close(tensors);
}

/* Each of these must be refused with a message that has the text. */
static const struct
{
	const char *header;
	size_t n_data;
	const char *message;
} hostile[] = {
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
	  "truncated" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9,
	  "belong to no tensor" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12,
	  "before tensor \"t\"" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
	  "take 8 bytes, but its data has 4" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
	  "data_offsets" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8,
	  "data_offsets" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.5]}}", 8,
	  "data_offsets" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8,
	  "data_offsets" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,1e30]}}", 8,
	  "data_offsets" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
	  "dimension" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,8]}}", 8,
	  "dimension" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8,
	  "dimension" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8,
	  "shape" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],"
	  "\"data_offsets\":[0,8]}}",
	  8, "too many dimensions" },
	/* 2^32 * 2^32 = 0 and 2^62 * 4 = 0 modulo 2^64 */
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
	  "\"data_offsets\":[0,0]}}",
	  0, "overflows" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[2147483648,2147483648],"
	  "\"data_offsets\":[0,0]}}",
	  0, "overflows" },
	{ "{\"t\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
	  "dtype" },
	{ "{\"t\":[1,2]}", 8, "must be an object" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[0,6]},"
	  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
	  8, "overlap" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
	  "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
	  8, "belong to no tensor" },
	{ "{\"t\":{\"dtype\":\"F32\",", 8, "malformed JSON" },
	{ "[1]", 0, "does not begin" },
	{ "", 0, "does not begin" },
};

static void
hostile_headers_are_refused(void)
{
	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
	{
		LlmError err;
		LlmSafetensors *tensors;

		write_file("h.safetensors", hostile[i].header, hostile[i].n_data);
		tensors = open_file("h.safetensors", &err);
		if (tensors != NULL)
			CHECK_FAIL("accepted: %s", hostile[i].header);
		else if (strstr(err.message, hostile[i].message) == NULL ||
				 strstr(err.message, "h.safetensors") == NULL)
			CHECK_FAIL("%s: \"%s\"", hostile[i].header, err.message);
		llm_safetensors_close(tensors);
	}
}

static void
impossible_header_lengths_are_refused(void)
{
	static const unsigned char huge[16] = { 255, 255, 255, 255, 255,
											255, 255, 255, '{', '}' };
	static const unsigned char beyond[16] = { 9, 0, 0, 0, 0, 0, 0, 0, '{' };
	LlmError err;

	write_bytes("l.safetensors", huge, sizeof(huge));
	CHECK(open_file("l.safetensors", &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	write_bytes("l.safetensors", beyond, sizeof(beyond));
	CHECK(open_file("l.safetensors", &err) == NULL);
	CHECK(strstr(err.message, "truncated") != NULL);
	write_bytes("l.safetensors", beyond, 7);
	CHECK(open_file("l.safetensors", &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_FORMAT);
	write_bytes("l.safetensors", "", 0);
	CHECK(open_file("l.safetensors", &err) == NULL);
	CHECK(open_file("absent.safetensors", &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_NOT_FOUND);
}

/* Every single-byte change of a header is refused or harmless, never worse. */
static void
mutated_headers_do_no_harm(void)
{
	static const char header[] =
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
		"\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[8,16]}}";
	static const char bytes[] = { '0', '9', '"', ',', ']', '}', '\0', '\xFF' };
	char copy[sizeof(header)];

	for (size_t at = 0; at < sizeof(header) - 1; at++)
	{
		for (size_t b = 0; b < sizeof(bytes); b++)
		{
			LlmError err;
			LlmSafetensors *tensors;

			memcpy(copy, header, sizeof(header));
			copy[at] = bytes[b];
			write_file("m.safetensors", copy, 16);
			tensors = open_file("m.safetensors", &err);
			CHECK(tensors != NULL || err.code != LLM_OK);
			for (int i = 0;
				 tensors != NULL && i < llm_safetensors_n_tensors(tensors); i++)
			{
				const LlmStoredTensor *tensor = llm_safetensors_get(tensors, i);
				const unsigned char *data = tensor->data;
				unsigned sum = 0;

				for (size_t k = 0; k < tensor->n_bytes; k++)
					sum += data[k];
				CHECK(sum <= 16 * 255);
			}
			llm_safetensors_close(tensors);
		}
	}
}

#define SHARD_A \
	"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"
#define SHARD_B \
	"{\"b\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}"

static void
check_index_refused(const char *index, const char *message)
{
	LlmError err = { 0 };
	LlmSafetensors *tensors;

	write_bytes("model.safetensors.index.json", index, strlen(index));
	tensors = llm_safetensors_open(dir, &err);
	if (tensors != NULL || strstr(err.message, message) == NULL)
		CHECK_FAIL("%s: \"%s\"", index, err.message);
	llm_safetensors_close(tensors);
}

static void
shards_are_joined_by_their_index(void)
{
	static const char index[] =
		"{\"metadata\":{\"total_size\":9},\"weight_map\":"
		"{\"a\":\"x-1.safetensors\",\"b\":\"x-2.safetensors\"}}";
	LlmError err;
	LlmSafetensors *tensors;

	remove_files();
	CHECK(llm_safetensors_open(dir, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_NOT_FOUND);
	write_file("x-1.safetensors", SHARD_A, 4);
	write_file("x-2.safetensors", SHARD_B, 5);
	write_bytes("model.safetensors.index.json", index, strlen(index));
	tensors = llm_safetensors_open(dir, &err);
	REQUIRE(tensors != NULL);
	CHECK_INT_EQ(llm_safetensors_n_tensors(tensors), 2);
	CHECK_INT_EQ(llm_safetensors_find(tensors, "b")->n_bytes, 5);
	CHECK_INT_EQ(llm_safetensors_total_bytes(tensors),
				 16 + strlen(SHARD_A) + strlen(SHARD_B) + 9);
	llm_safetensors_close(tensors);

	check_index_refused("{\"weight_map\":{}}", "weight_map");
	check_index_refused("{\"weight_map\":[]}", "weight_map");
	check_index_refused("nonsense", "malformed JSON");
	check_index_refused("{\"weight_map\":{\"a\":\"../x-1.safetensors\"}}",
						"not the name of a shard");
	check_index_refused("{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
						"not the name of a shard");
	check_index_refused("{\"weight_map\":{\"a\":1}}",
						"not the name of a shard");
	check_index_refused("{\"weight_map\":{\"a\":\"x-9.safetensors\"}}",
						"x-9.safetensors");
	check_index_refused("{\"weight_map\":{\"a\":\"x-1.safetensors\","
						"\"c\":\"x-2.safetensors\"}}",
						"\"c\" is not in shard");
	check_index_refused("{\"weight_map\":{\"a\":\"x-2.safetensors\","
						"\"b\":\"x-1.safetensors\"}}",
						"not in shard");
	write_file("x-2.safetensors", SHARD_A, 4);
	check_index_refused(index, "occurs twice");
	write_file("x-2.safetensors", SHARD_B, 4);
	check_index_refused(index, "truncated");
}

int
main(void)
{
	if (mkdtemp(dir) == NULL)
		return 1;
	RUN_TEST(tensors_are_found_in_place);
	RUN_TEST(hostile_headers_are_refused);
	RUN_TEST(impossible_header_lengths_are_refused);
	RUN_TEST(mutated_headers_do_no_harm);
	RUN_TEST(shards_are_joined_by_their_index);
	remove_files();
	rmdir(dir);
	return unit_test_finish();
}
