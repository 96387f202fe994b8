/*
 * dataset.c
 *	  Writing and reading datasets.
 *
 * A row is int32 n_first, n_second, then the ids of both, then a byte for
 * each token, then zeros up to a multiple of 4; of singles n_second is 1 for
 * a desirable one, else 0, and there is no second.  The index has the offset
 * of every row, and of the index.
 *
 * src/common/dataset/dataset.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/dataset/dataset.h"

#define MAGIC UINT64_C(0x315445534154414c)

typedef struct Header
{
	uint64_t magic;
	uint32_t kind; /* LlmDatasetKind */
	uint32_t reserved;
	int64_t n_rows;
	uint64_t index_at; /* offset */
} Header;

_Static_assert(sizeof(Header) == LLM_DATASET_HEADER_BYTES, "file layout");

struct LlmDataset
{
	const char *data;
	Header header;
};

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------
 */
void
llm_dataset_writer_init(LlmDatasetWriter *writer, LlmDatasetKind kind)
{
	memset(writer, 0, sizeof(*writer));
	writer->kind = kind;
	writer->n_bytes = sizeof(Header);
}

void
llm_dataset_writer_free(LlmDatasetWriter *writer)
{
	llm_strbuf_free(&writer->index);
}

static bool
check_example(const LlmExample *example, LlmError *err)
{
	if (example->n_tokens < 2 || llm_example_n_labels(example) == 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "no token of the example is learned");
	if (example->is_label[0] != 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the first token of an example cannot be learned: "
							 "nothing precedes it");
	return true;
}

static void
append_ids(LlmStrbuf *out, const LlmExample *example)
{
	if (example->n_tokens > 0)
		llm_strbuf_append(out, example->token_ids,
						  (size_t) example->n_tokens * sizeof(int32_t));
}

static void
append_labels(LlmStrbuf *out, const LlmExample *example)
{
	if (example->n_tokens > 0)
		llm_strbuf_append(out, example->is_label, (size_t) example->n_tokens);
}

bool
llm_dataset_write_row(LlmDatasetWriter *writer, const LlmDatasetRow *row,
					  LlmStrbuf *out, LlmError *err)
{
	const int32_t sizes[2] = { row->first.n_tokens,
							   writer->kind == LLM_DATASET_SINGLES
								   ? row->is_desirable
								   : row->second.n_tokens };
	const size_t before = out->len;

	assert((row->second.n_tokens > 0) == (writer->kind == LLM_DATASET_PAIRS));
	assert(!row->is_desirable || writer->kind == LLM_DATASET_SINGLES);
	if (!check_example(&row->first, err) ||
		(writer->kind == LLM_DATASET_PAIRS &&
		 !check_example(&row->second, err)))
		return false;
	llm_strbuf_append(out, sizes, sizeof(sizes));
	append_ids(out, &row->first);
	append_ids(out, &row->second);
	append_labels(out, &row->first);
	append_labels(out, &row->second);
	while ((out->len - before) % 4 != 0 && !out->failed)
		llm_strbuf_append_char(out, 0);
	llm_strbuf_append(&writer->index, &writer->n_bytes,
					  sizeof(writer->n_bytes));
	if (out->failed || writer->index.failed)
		return llm_error_no_memory(err, out->len, "a row of a dataset");
	writer->n_bytes += out->len - before;
	writer->n_rows++;
	return true;
}

bool
llm_dataset_write_end(LlmDatasetWriter *writer, LlmStrbuf *out,
					  uint8_t bytes[LLM_DATASET_HEADER_BYTES], LlmError *err)
{
	Header header = { .magic = MAGIC,
					  .kind = (uint32_t) writer->kind,
					  .n_rows = writer->n_rows,
					  .index_at = writer->n_bytes };

	if (writer->n_rows == 0)
		return llm_error_set(err, LLM_ERROR_INVALID, "the dataset has no rows");
	llm_strbuf_append(&writer->index, &writer->n_bytes,
					  sizeof(writer->n_bytes));
	llm_strbuf_append(out, writer->index.data, writer->index.len);
	if (out->failed || writer->index.failed)
		return llm_error_no_memory(err, writer->index.len,
								   "the index of a dataset");
	memcpy(bytes, &header, sizeof(header));
	return true;
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */
static uint64_t
offset_of(const LlmDataset *dataset, int64_t row_idx)
{
	uint64_t offset;

	memcpy(&offset,
		   dataset->data + dataset->header.index_at +
			   (uint64_t) row_idx * sizeof(offset),
		   sizeof(offset));
	return offset;
}

static bool
damaged(LlmError *err, const char *what)
{
	return llm_error_set(err, LLM_ERROR_INVALID, "the dataset is damaged: %s",
						 what);
}

static bool
check_ids(const LlmExample *example, int32_t n_vocab, LlmError *err)
{
	for (int32_t i = 0; i < example->n_tokens; i++)
	{
		if (example->token_ids[i] < 0 || example->token_ids[i] >= n_vocab)
			return damaged(err, "a token is not in the vocabulary");
		if (example->is_label[i] > 1)
			return damaged(err, "a label is neither 0 nor 1");
	}
	return check_example(example, err);
}

static bool
check_row(const LlmDataset *dataset, int64_t row_idx, int32_t n_vocab,
		  LlmError *err)
{
	const uint64_t begin = offset_of(dataset, row_idx);
	const uint64_t end = offset_of(dataset, row_idx + 1);
	const bool is_pair = dataset->header.kind == LLM_DATASET_PAIRS;
	const bool is_single = dataset->header.kind == LLM_DATASET_SINGLES;
	LlmDatasetRow row;
	int32_t sizes[2];
	uint64_t n_tokens;

	if (begin % 4 != 0 || end <= begin || end - begin < sizeof(sizes) ||
		end > dataset->header.index_at ||
		(row_idx == 0 && begin != sizeof(Header)))
		return damaged(err, "its index is wrong");
	memcpy(sizes, dataset->data + begin, sizeof(sizes));
	if (sizes[0] < 1 || sizes[1] < 0 ||
		(is_single ? sizes[1] > 1 : (sizes[1] > 0) != is_pair))
		return damaged(err, "a row's sizes are wrong");
	n_tokens = (uint64_t) sizes[0] + (is_pair ? (uint64_t) sizes[1] : 0);
	if ((sizeof(sizes) + 5 * n_tokens + 3) / 4 * 4 != end - begin)
		return damaged(err, "a row's sizes are wrong");
	row = llm_dataset_row(dataset, row_idx);
	return check_ids(&row.first, n_vocab, err) &&
		   (!is_pair || check_ids(&row.second, n_vocab, err));
}

static bool
check_file(const LlmDataset *dataset, size_t n_bytes, int32_t n_vocab,
		   LlmError *err)
{
	const Header *header = &dataset->header;

	if (header->magic != MAGIC || header->kind < LLM_DATASET_PLAIN ||
		header->kind > LLM_DATASET_SINGLES)
		return damaged(err, "it does not begin like one");
	if (header->n_rows < 1 || header->index_at > n_bytes ||
		header->index_at < sizeof(Header) || header->index_at % 4 != 0 ||
		(uint64_t) header->n_rows >= n_bytes / sizeof(uint64_t) ||
		n_bytes - header->index_at !=
			((uint64_t) header->n_rows + 1) * sizeof(uint64_t))
		return damaged(err, "it ends too early, or too late");
	if (offset_of(dataset, header->n_rows) != header->index_at)
		return damaged(err, "its index is wrong");
	for (int64_t i = 0; i < header->n_rows; i++)
	{
		if (!check_row(dataset, i, n_vocab, err))
			return false;
	}
	return true;
}

LlmDataset *
llm_dataset_open(const void *data, size_t n_bytes, int32_t n_vocab,
				 LlmError *err)
{
	LlmDataset *dataset = calloc(1, sizeof(*dataset));

	assert((uintptr_t) data % 4 == 0);
	if (dataset == NULL)
	{
		llm_error_no_memory(err, sizeof(*dataset), "a dataset");
		return NULL;
	}
	dataset->data = data;
	if (n_bytes < sizeof(Header))
		damaged(err, "it has no header");
	else
	{
		memcpy(&dataset->header, data, sizeof(Header));
		if (check_file(dataset, n_bytes, n_vocab, err))
			return dataset;
	}
	free(dataset);
	return NULL;
}

void
llm_dataset_close(LlmDataset *dataset)
{
	free(dataset);
}

LlmDatasetKind
llm_dataset_kind(const LlmDataset *dataset)
{
	return (LlmDatasetKind) dataset->header.kind;
}

int64_t
llm_dataset_n_rows(const LlmDataset *dataset)
{
	return dataset->header.n_rows;
}

LlmDatasetRow
llm_dataset_row(const LlmDataset *dataset, int64_t row_idx)
{
	const char *at = dataset->data + offset_of(dataset, row_idx);
	const bool is_single = dataset->header.kind == LLM_DATASET_SINGLES;
	const int32_t *ids = (const int32_t *) (at + 2 * sizeof(int32_t));
	int32_t sizes[2];
	bool is_desirable = false;
	const uint8_t *labels;

	memcpy(sizes, at, sizeof(sizes));
	if (is_single)
	{
		is_desirable = sizes[1] != 0;
		sizes[1] = 0;
	}
	labels = (const uint8_t *) (ids + sizes[0] + sizes[1]);
	return (LlmDatasetRow){
		.is_desirable = is_desirable,
		.first = { sizes[0], ids, labels },
		.second = { sizes[1], ids + sizes[0], labels + sizes[0] },
	};
}
