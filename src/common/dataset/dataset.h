/*
 * dataset.h
 *	  Rows to train on, rendered and tokenized: the file between the process
 *	  that reads the table and the executor that trains.
 *
 * A file is a header, the rows one after the other, and an index of where they
 * begin.  The writer needs no file of its own: it appends encoded bytes to a
 * buffer that the caller writes out as it likes, and gives the header last.
 * The reader checks everything when the file is opened.
 *
 * Numbers are the host's: a file never leaves the machine.
 *
 * src/common/dataset/dataset.h
 */
#ifndef LLM_DATASET_H
#define LLM_DATASET_H

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

/* A text and which of its tokens are to be learned. */
typedef struct LlmExample
{
	int32_t n_tokens;
	const int32_t *token_ids;
	const uint8_t *is_label; /* [n_tokens] 0 or 1; never the first token */
} LlmExample;

typedef enum LlmDatasetKind
{
	LLM_DATASET_PLAIN = 1, /* an example a row */
	LLM_DATASET_PAIRS,	   /* one that is preferred to another */
	LLM_DATASET_SINGLES	   /* an example that is desirable, or is not */
} LlmDatasetKind;

typedef struct LlmDatasetRow
{
	LlmExample first;  /* of pairs the chosen one */
	LlmExample second; /* of pairs the rejected one, else empty */
	bool is_desirable; /* of singles, else false */
} LlmDatasetRow;

#define LLM_DATASET_HEADER_BYTES 32

typedef struct LlmDatasetWriter
{
	LlmDatasetKind kind;
	int64_t n_rows;
	uint64_t n_bytes; /* of header and rows so far */
	LlmStrbuf index;
} LlmDatasetWriter;

extern void
llm_dataset_writer_init(LlmDatasetWriter *writer, LlmDatasetKind kind);
extern void llm_dataset_writer_free(LlmDatasetWriter *writer);

/*
 * Append a row's bytes to out, which follow the header or the row before.  An
 * example without labels, or with its first token as one, is an error.
 */
extern bool
llm_dataset_write_row(LlmDatasetWriter *writer, const LlmDatasetRow *row,
					  LlmStrbuf *out, LlmError *err);

/* Append the index, the file's end, and give the file's first bytes. */
extern bool
llm_dataset_write_end(LlmDatasetWriter *writer, LlmStrbuf *out,
					  uint8_t header[LLM_DATASET_HEADER_BYTES], LlmError *err);

typedef struct LlmDataset LlmDataset;

/*
 * Check a file's bytes, which are borrowed and outlive the dataset; token ids
 * are below n_vocab.  NULL: *err.
 */
extern LlmDataset *llm_dataset_open(const void *data, size_t n_bytes,
									int32_t n_vocab, LlmError *err);
extern void llm_dataset_close(LlmDataset *dataset);

extern LlmDatasetKind llm_dataset_kind(const LlmDataset *dataset);
extern int64_t llm_dataset_n_rows(const LlmDataset *dataset);

/* Row row_idx; it points into the bytes. */
extern LlmDatasetRow
llm_dataset_row(const LlmDataset *dataset, int64_t row_idx);

/* Tokens that are learned. */
static inline int32_t
llm_example_n_labels(const LlmExample *example)
{
	int32_t n = 0;

	for (int32_t i = 0; i < example->n_tokens; i++)
		n += example->is_label[i];
	return n;
}

#endif /* LLM_DATASET_H */
