/*
 * cuda_algorithms.cu
 *	  Which algorithm is best for a product, remembered for other processes.
 *
 * Choices are measured at the first product of a shape, which takes a while
 * and happens in the middle of a job.  So they are kept in a file in
 * options.cache_dir, one for each kind of GPU and version of cuBLASLt: the
 * library's algorithms are plain bytes, good for the same version.  Records
 * are appended whole, by whoever makes a choice; what is damaged, or not valid
 * for its shape by cuBLASLt's own check, is left aside.
 *
 * cuda/cuda_algorithms.cu
 */
#include "cuda/cuda_linear.cuh"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the records' format, and of how choices are made. */
#define FILE_VERSION 1

#define MAX_RECORDS 4096

typedef struct AlgorithmRecord
{
	int64_t n_out;
	int64_t n_cols;
	int64_t out_stride;
	int32_t row_class;
	int32_t out_is_f32;
	int32_t is_own;
	int32_t unused; /* 0 */
	cublasLtMatmulAlgo_t algo;
	uint64_t hash; /* of all before */
} AlgorithmRecord;

struct AlgorithmFile
{
	int fd; /* to append */
	int n_records;
	AlgorithmRecord records[MAX_RECORDS];
};

/* FNV-1a */
static uint64_t
hash_bytes(uint64_t hash, const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ ((const uint8_t *) bytes)[i]) * 0x100000001b3u;
	return hash;
}

static uint64_t
record_hash(const AlgorithmRecord *record)
{
	return hash_bytes(0xcbf29ce484222325u, record,
					  offsetof(AlgorithmRecord, hash));
}

/* Of everything that a choice depends on beside its shape. */
static uint64_t
machine_hash(const LlmCuda *cuda)
{
	uint64_t hash = 0xcbf29ce484222325u;
	uint64_t facts[4] = { (uint64_t) FILE_VERSION,
						  (uint64_t) cublasLtGetVersion(),
						  (uint64_t) cuda->n_sms, (uint64_t) cuda->capability };

	hash = hash_bytes(hash, cuda->name, strlen(cuda->name));
	return hash_bytes(hash, facts, sizeof(facts));
}

static void
read_records(AlgorithmFile *file)
{
	AlgorithmRecord record;

	while (file->n_records < MAX_RECORDS &&
		   read(file->fd, &record, sizeof(record)) == (ssize_t) sizeof(record))
	{
		if (record.hash == record_hash(&record))
			file->records[file->n_records++] = record;
	}
}

/* A torn record would shift all behind it: appending goes on at a border. */
static void
mend_end(AlgorithmFile *file)
{
	off_t size = lseek(file->fd, 0, SEEK_END);

	if (size % (off_t) sizeof(AlgorithmRecord) != 0)
		(void) !ftruncate(file->fd,
						  size - size % (off_t) sizeof(AlgorithmRecord));
}

void
cuda_algorithms_open(LlmCuda *cuda)
{
	const char *dir = cuda->options.cache_dir;
	char path[4200];
	AlgorithmFile *file;

	if (dir == NULL || dir[0] == '\0')
		return;
	snprintf(path, sizeof(path), "%s/llm_ext_algorithms_%016llx", dir,
			 (unsigned long long) machine_hash(cuda));
	file = (AlgorithmFile *) calloc(1, sizeof(*file));
	if (file == NULL)
		return;
	file->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (file->fd < 0)
	{
		free(file);
		return;
	}
	read_records(file);
	mend_end(file);
	cuda->algorithms = file;
}

void
cuda_algorithms_close(LlmCuda *cuda)
{
	if (cuda->algorithms == NULL)
		return;
	(void) close(cuda->algorithms->fd);
	free(cuda->algorithms);
	cuda->algorithms = NULL;
}

static AlgorithmRecord
record_of(const GemmChoice *choice)
{
	AlgorithmRecord record;

	memset(&record, 0, sizeof(record));
	record.n_out = choice->n_out;
	record.n_cols = choice->n_cols;
	record.out_stride = choice->out_stride;
	record.row_class = choice->row_class;
	record.out_is_f32 = choice->out_is_f32;
	return record;
}

static bool
is_valid(const LlmCuda *cuda, const GemmChoice *choice,
		 const cublasLtMatmulAlgo_t *algo,
		 cublasLtMatmulHeuristicResult_t *result)
{
	return cublasLtMatmulAlgoCheck(cuda->cublas, choice->op, choice->weight,
								   choice->x, choice->out, choice->out, algo,
								   result) == CUBLAS_STATUS_SUCCESS &&
		   result->workspaceSize <= gemm_workspace_bytes(cuda);
}

void
cuda_algorithms_recall(LlmCuda *cuda, GemmChoice *choice)
{
	const AlgorithmFile *file = cuda->algorithms;
	AlgorithmRecord wanted = record_of(choice);

	/* what was measured last counts */
	for (int i = file != NULL ? file->n_records - 1 : -1; i >= 0; i--)
	{
		const AlgorithmRecord *record = &file->records[i];
		cublasLtMatmulHeuristicResult_t result;

		if (memcmp(record, &wanted, offsetof(AlgorithmRecord, is_own)) != 0)
			continue;
		if (!record->is_own)
		{
			memset(&result, 0, sizeof(result));
			if (!is_valid(cuda, choice, &record->algo, &result))
				continue;
			choice->candidates[0] = result;
			choice->candidates[0].algo = record->algo;
			choice->n_candidates = 1;
		}
		choice->is_own = record->is_own != 0;
		choice->is_chosen = true;
		return;
	}
}

void
cuda_algorithms_keep(LlmCuda *cuda, const GemmChoice *choice)
{
	AlgorithmFile *file = cuda->algorithms;
	AlgorithmRecord record = record_of(choice);

	if (file == NULL)
		return;
	record.is_own = choice->is_own;
	if (!choice->is_own)
		record.algo = choice->candidates[0].algo;
	record.hash = record_hash(&record);
	(void) !write(file->fd, &record, sizeof(record));
	if (file->n_records < MAX_RECORDS)
		file->records[file->n_records++] = record;
}
