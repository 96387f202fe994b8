/*
 * dataset_write.c
 *	  A query's rows into dataset files.
 *
 * All rows are written to one file first.  Rows that are held out are chosen
 * when their number is known, by the options' seed, and the file is then read
 * again and written as two.  A row that was split is held out whole.
 *
 * src/server/finetune/dataset_write.c
 */
#include "src/server/finetune/dataset_query.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "src/common/util/mapped_file.h"
#include "src/common/util/philox.h"
#include "src/server/report.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* What is written at a time. */
#define FLUSH_BYTES ((size_t) 1 << 20)

/* Apart from the numbers that training draws with the same seed. */
#define HOLD_OUT_STREAM UINT64_C(0x686f6c646f7574)

/* A dataset file in the making. */
typedef struct DatasetFile
{
	const char *path;
	int fd; /* a transient file; -1 = none */
	bool is_kept;
	LlmDatasetWriter writer;
	LlmStrbuf buffer;
} DatasetFile;

/* A file that is read again. */
typedef struct ReadFile
{
	LlmMappedFile file;
	LlmDataset *dataset;
} ReadFile;

typedef struct WriteRun
{
	const LlmDatasetOptions *options;
	MemoryContext caller; /* of the summary's strings */
	LlmDatasetSummary *summary;
	DatasetFile files[3]; /* train, eval, and all rows before they part */
	DatasetFile *out;	  /* where rows go now */
	int64 n_read_before;  /* rows of the query before this one */
	ReadFile all;
	StringInfoData n_examples; /* int32 of each row that was written */
} WriteRun;

enum
{
	TRAIN_FILE,
	EVAL_FILE,
	ALL_FILE
};

/* -- files -- */

static void
create_file(DatasetFile *file, const char *path, LlmDatasetKind kind)
{
	static const char nothing[LLM_DATASET_HEADER_BYTES] = { 0 };

	Assert(file->path == NULL);
	file->fd = OpenTransientFile(path, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY);
	if (file->fd < 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not create file \"%s\": %m", path)));
	file->path = path;
	llm_dataset_writer_init(&file->writer, kind);
	llm_strbuf_init(&file->buffer);
	llm_strbuf_append(&file->buffer, nothing, sizeof(nothing));
}

static void
write_all(const DatasetFile *file, const char *bytes, size_t n_bytes, off_t at)
{
	while (n_bytes > 0)
	{
		ssize_t n = at < 0 ? write(file->fd, bytes, n_bytes)
						   : pwrite(file->fd, bytes, n_bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ENOSPC;
		if (n <= 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m", file->path)));
		bytes += n;
		n_bytes -= (size_t) n;
		at += at < 0 ? 0 : n;
	}
}

static void
flush_file(DatasetFile *file)
{
	write_all(file, file->buffer.data, file->buffer.len, -1);
	llm_strbuf_reset(&file->buffer);
}

static void
write_row(DatasetFile *file, const LlmDatasetRow *row)
{
	LlmError err;

	if (!llm_dataset_write_row(&file->writer, row, &file->buffer, &err))
		llm_report(ERROR, &err);
	if (file->buffer.len >= FLUSH_BYTES)
		flush_file(file);
}

/* Complete the file; it stays what comes of the others. */
static void
end_file(DatasetFile *file)
{
	uint8 header[LLM_DATASET_HEADER_BYTES];
	LlmError err;

	if (!llm_dataset_write_end(&file->writer, &file->buffer, header, &err))
		llm_report(ERROR, &err);
	flush_file(file);
	write_all(file, (const char *) header, sizeof(header), 0);
	if (CloseTransientFile(file->fd) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not close file \"%s\": %m", file->path)));
	file->fd = -1;
}

/* After an error transient files are closed with the transaction. */
static void
release_run(void *arg)
{
	WriteRun *run = arg;

	llm_dataset_close(run->all.dataset);
	llm_mapped_file_close(&run->all.file);
	for (int i = 0; i < lengthof(run->files); i++)
	{
		DatasetFile *file = &run->files[i];

		if (file->path == NULL)
			continue;
		llm_dataset_writer_free(&file->writer);
		llm_strbuf_free(&file->buffer);
		if (!file->is_kept)
			(void) unlink(file->path);
		file->path = NULL;
	}
}

/* -- rows -- */

static void
name_bad_row(WriteRun *run, const LlmQueryRow *row)
{
	LlmDatasetSummary *summary = run->summary;
	LlmBadRow *bad = &summary->named[summary->n_named];

	if (summary->n_named == LLM_SUMMARY_BAD_ROWS)
		return;
	bad->row_number = row->row_number;
	bad->key =
		row->key == NULL ? NULL : MemoryContextStrdup(run->caller, row->key);
	bad->reason = MemoryContextStrdup(
		run->caller, llm_report_displayable(row->err->message));
	summary->n_named++;
}

static void
count_example(LlmDatasetSummary *summary, const LlmExample *example)
{
	if (example->n_tokens == 0)
		return;
	summary->n_tokens += example->n_tokens;
	summary->n_labels += llm_example_n_labels(example);
	summary->longest = Max(summary->longest, example->n_tokens);
}

/* A good row, or the next example of one. */
static void
keep_row(WriteRun *run, const LlmQueryRow *row)
{
	LlmDatasetSummary *summary = run->summary;

	count_example(summary, &row->row.first);
	count_example(summary, &row->row.second);
	/* a dataset that will be refused need not be written */
	if (summary->n_bad > 0 && !run->options->skips_bad_rows)
		return;
	if (run->out->writer.n_rows == 0)
		run->out->writer.kind = row->kind;
	write_row(run->out, &row->row);
	if (row->example_idx == 0)
		appendBinaryStringInfo(&run->n_examples,
							   (const char *) &row->n_examples, sizeof(int32));
}

static bool
take_row(void *arg, const LlmQueryRow *row)
{
	WriteRun *run = arg;
	LlmDatasetSummary *summary = run->summary;

	if (row->example_idx > 0)
	{
		keep_row(run, row);
		return true;
	}
	summary->n_read++;
	if (row->outcome == LLM_ROW_BAD)
	{
		summary->n_bad++;
		name_bad_row(run, row);
		return true;
	}
	if (row->outcome == LLM_ROW_DROPPED)
	{
		summary->n_dropped++;
		return true;
	}
	summary->n_truncated += row->outcome == LLM_ROW_TRUNCATED;
	if (summary->kind == 0)
		summary->kind = row->kind;
	if (summary->kind != row->kind)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the rows of \"eval_query\" are of another kind "
							   "than those of the query")));
	keep_row(run, row);
	return true;
}

static void
refuse_bad_rows(const LlmDatasetSummary *summary)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < summary->n_named; i++)
	{
		const LlmBadRow *bad = &summary->named[i];

		appendStringInfo(&list, "%sRow " INT64_FORMAT "%s%s: %s",
						 i == 0 ? "" : "\n", bad->row_number,
						 bad->key == NULL ? "" : " ",
						 bad->key == NULL ? "" : bad->key, bad->reason);
	}
	if (summary->n_bad > summary->n_named)
		appendStringInfo(&list, "\nAnd " INT64_FORMAT " more.",
						 summary->n_bad - summary->n_named);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg(INT64_FORMAT " of " INT64_FORMAT
										" rows cannot be learned from",
						   summary->n_bad, summary->n_read),
					errdetail_internal("%s", list.data),
					errhint("llm_finetune_validate lists them all; with "
							"\"on_bad_row\": \"skip\" they are left out.")));
}

static void
check_rows(const WriteRun *run)
{
	const LlmDatasetSummary *summary = run->summary;

	if (summary->n_bad > 0 && !run->options->skips_bad_rows)
		refuse_bad_rows(summary);
	if (run->out->writer.n_rows > 0)
		return;
	if (summary->n_read == run->n_read_before)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						run->out == &run->files[EVAL_FILE]
							? errmsg("\"eval_query\" returns no rows")
							: errmsg("the query of the dataset returns no "
									 "rows")));
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("the dataset has no rows to learn from"),
					errdetail(INT64_FORMAT " rows are bad and " INT64_FORMAT
										   " too long.",
							  summary->n_bad, summary->n_dropped)));
}

static void
write_query(WriteRun *run, const char *query, LlmModelHandle *handle,
			const char *path, int file_idx)
{
	run->out = &run->files[file_idx];
	run->n_read_before = run->summary->n_read;
	resetStringInfo(&run->n_examples);
	create_file(run->out, path, LLM_DATASET_PLAIN);
	llm_dataset_query_read(query, handle, run->options, take_row, run);
	check_rows(run);
	end_file(run->out);
}

/* -- holding out -- */

static int64
count_held_out(double val_size, int64 n_rows)
{
	const double wanted =
		val_size < 1 ? ceil(val_size * (double) n_rows) : val_size;

	if (wanted >= (double) n_rows)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"val_size\" holds out all of the "
							   "dataset's " INT64_FORMAT " rows",
							   n_rows)));
	return (int64) wanted;
}

static double
draw(uint64 seed, int64 row_idx)
{
	const LlmPhilox word = llm_philox(seed, (uint64) row_idx, HOLD_OUT_STREAM);

	return (double) (word.word[0] >> 6) / (double) (1 << 26);
}

static void
open_all(WriteRun *run)
{
	LlmError err;

	if (!llm_mapped_file_open(&run->all.file, run->files[ALL_FILE].path, &err))
		llm_report(ERROR, &err);
	run->all.dataset = llm_dataset_open(run->all.file.data, run->all.file.size,
										PG_INT32_MAX, &err);
	if (run->all.dataset == NULL)
		llm_report(ERROR, &err);
}

/* Each set of so many rows is as likely as any other. */
static void
split(WriteRun *run, const char *train_path, const char *eval_path)
{
	const int32 *n_examples = (const int32 *) run->n_examples.data;
	const int64 n_rows = run->n_examples.len / (int) sizeof(int32);
	int64 n_wanted = count_held_out(run->options->val_size, n_rows);
	int64 next = 0;

	open_all(run);
	create_file(&run->files[TRAIN_FILE], train_path, run->summary->kind);
	create_file(&run->files[EVAL_FILE], eval_path, run->summary->kind);
	for (int64 i = 0; i < n_rows; i++)
	{
		const bool is_held_out =
			draw(run->options->seed, i) * (double) (n_rows - i) <
			(double) n_wanted;

		for (int64 end = next + n_examples[i]; next < end; next++)
		{
			const LlmDatasetRow row = llm_dataset_row(run->all.dataset, next);

			CHECK_FOR_INTERRUPTS();
			write_row(&run->files[is_held_out ? EVAL_FILE : TRAIN_FILE], &row);
		}
		n_wanted -= is_held_out;
	}
	Assert(next == run->files[ALL_FILE].writer.n_rows);
	end_file(&run->files[TRAIN_FILE]);
	end_file(&run->files[EVAL_FILE]);
}

void
llm_dataset_query_write(const char *query, LlmModelHandle *handle,
						const LlmDatasetOptions *options,
						const char *train_path, const char *eval_path,
						LlmDatasetSummary *summary)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(
		caller, "llm_ext dataset files", ALLOCSET_DEFAULT_SIZES);
	MemoryContextCallback *callback =
		MemoryContextAllocZero(context, sizeof(*callback));
	WriteRun *run = MemoryContextAllocZero(context, sizeof(*run));

	Assert(eval_path != NULL ||
		   (options->val_size == 0 && options->eval_query == NULL));
	memset(summary, 0, sizeof(*summary));
	run->options = options;
	run->caller = caller;
	run->summary = summary;
	callback->func = release_run;
	callback->arg = run;
	MemoryContextRegisterResetCallback(context, callback);
	MemoryContextSwitchTo(context);
	initStringInfo(&run->n_examples);
	if (options->val_size > 0)
	{
		write_query(run, query, handle, psprintf("%s.all", train_path),
					ALL_FILE);
		split(run, train_path, eval_path);
	}
	else
		write_query(run, query, handle, train_path, TRAIN_FILE);
	if (options->eval_query != NULL)
		write_query(run, options->eval_query, handle, eval_path, EVAL_FILE);
	summary->n_train = run->files[TRAIN_FILE].writer.n_rows;
	summary->n_eval = run->files[EVAL_FILE].writer.n_rows;
	run->files[TRAIN_FILE].is_kept = true;
	run->files[EVAL_FILE].is_kept = true;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}
