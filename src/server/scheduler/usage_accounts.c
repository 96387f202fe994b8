/*
 * usage_accounts.c
 *	  Who used how many tokens: by day, role, database, model and adapter.
 *
 * The scheduler alone counts, where executors' answers come by, so a request
 * is charged for what was computed whatever becomes of its statement, and no
 * request pays for the counting with a write.  It keeps the accounts in memory
 * of its own and copies what changed in a turn into shared memory, where
 * backend processes read them.
 *
 * A file in the data directory holds them over restarts: written once a minute
 * where something changed, and when the scheduler ends.  A server that crashes
 * loses what was counted since the file was written; a scheduler that is
 * started again finds shared memory as it was and loses nothing.
 *
 * There is room for so many accounts; when it is full, the oldest day makes
 * room.  Should a single day fill it, what finds none is counted under role 0.
 *
 * src/server/scheduler/usage_accounts.c
 */
#include "postgres.h"

#include <unistd.h>

#include "port/pg_crc32c.h"
#include "src/server/scheduler/request_record.h"
#include "storage/fd.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define USAGE_FILE "llm_ext_usage.stat"
#define USAGE_MAGIC 0x4c4c5531
#define SAVE_INTERVAL_US INT64CONST(60000000)

typedef struct UsageFileHeader
{
	uint32 magic;
	uint32 entry_bytes;
	int32 n_entries;
	pg_crc32c crc; /* of the entries */
} UsageFileHeader;

typedef struct KeyedIndex
{
	LlmUsageKey key; /* hash key */
	int32 idx;
} KeyedIndex;

/* The scheduler's own copy, which shared memory follows. */
static LlmUsageEntry *accounts; /* [LLM_MAX_USAGE_ENTRIES] */
static int32 n_accounts;
static HTAB *index_of_key;
static int32 *changed; /* [LLM_MAX_USAGE_ENTRIES] since the last turn */
static int32 n_changed;
static bool *is_changed;
static bool all_changed;

static int64 next_save_us;
static bool is_unsaved;

static int32
today(void)
{
	/* a date counts from 2000, as timestamps do; days begin at midnight UTC */
	return (int32) (GetCurrentTimestamp() / USECS_PER_DAY);
}

/* -- the file -- */

static void
complain(const char *what)
{
	ereport(LOG, (errcode_for_file_access(),
				  errmsg("could not %s file \"%s\": %m", what, USAGE_FILE)));
}

static pg_crc32c
checksum(const LlmUsageEntry *entries, int32 n)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, entries, (Size) n * sizeof(LlmUsageEntry));
	FIN_CRC32C(crc);
	return crc;
}

static void
save_accounts(void)
{
	Size n_bytes = (Size) n_accounts * sizeof(LlmUsageEntry);
	UsageFileHeader header = { USAGE_MAGIC, sizeof(LlmUsageEntry), n_accounts,
							   checksum(accounts, n_accounts) };
	FILE *file;
	bool ok;

	file = AllocateFile(USAGE_FILE ".tmp", PG_BINARY_W);
	if (file == NULL)
	{
		complain("create");
		return;
	}
	ok = fwrite(&header, sizeof(header), 1, file) == 1 &&
		 (n_bytes == 0 || fwrite(accounts, n_bytes, 1, file) == 1);
	if (FreeFile(file) != 0 || !ok)
	{
		complain("write");
		(void) unlink(USAGE_FILE ".tmp");
		return;
	}
	is_unsaved = durable_rename(USAGE_FILE ".tmp", USAGE_FILE, LOG) != 0;
}

/* A file that is not there, or not whole, is no accounts. */
static void
load_accounts(void)
{
	FILE *file = AllocateFile(USAGE_FILE, PG_BINARY_R);
	UsageFileHeader header = { 0 };
	bool ok;

	n_accounts = 0;
	if (file == NULL)
	{
		if (errno != ENOENT)
			complain("open");
		return;
	}
	ok = fread(&header, sizeof(header), 1, file) == 1 &&
		 header.magic == USAGE_MAGIC &&
		 header.entry_bytes == sizeof(LlmUsageEntry) && header.n_entries >= 0 &&
		 header.n_entries <= LLM_MAX_USAGE_ENTRIES &&
		 fread(accounts, sizeof(LlmUsageEntry), (size_t) header.n_entries,
			   file) == (size_t) header.n_entries &&
		 header.crc == checksum(accounts, header.n_entries);
	FreeFile(file);
	if (ok)
		n_accounts = header.n_entries;
	else
		ereport(LOG, (errmsg("file \"%s\" is damaged: token usage is counted "
							 "from 0",
							 USAGE_FILE)));
}

/* -- accounts by key -- */

static void
index_accounts(void)
{
	HASHCTL control = { .keysize = sizeof(LlmUsageKey),
						.entrysize = sizeof(KeyedIndex) };

	if (index_of_key != NULL)
		hash_destroy(index_of_key);
	index_of_key =
		hash_create("llm usage", 256, &control, HASH_ELEM | HASH_BLOBS);
	for (int32 i = 0; i < n_accounts; i++)
	{
		KeyedIndex *keyed =
			hash_search(index_of_key, &accounts[i].key, HASH_ENTER, NULL);

		keyed->idx = i;
	}
}

/* Forget the oldest day before this one; false: there is none. */
static bool
forget_oldest_day(int32 day)
{
	int32 oldest = day;
	int32 n_kept = 0;

	for (int32 i = 0; i < n_accounts; i++)
		oldest = Min(oldest, accounts[i].key.day);
	if (oldest == day)
		return false;
	for (int32 i = 0; i < n_accounts; i++)
		if (accounts[i].key.day != oldest)
			accounts[n_kept++] = accounts[i];
	n_accounts = n_kept;
	all_changed = true;
	index_accounts();
	return true;
}

static LlmUsageEntry *
find_account(const LlmUsageKey *key)
{
	KeyedIndex *keyed = hash_search(index_of_key, key, HASH_FIND, NULL);
	LlmUsageKey rest = { .day = key->day };

	if (keyed != NULL)
		return &accounts[keyed->idx];
	/* the last one is kept for those that find no room */
	if (n_accounts >= LLM_MAX_USAGE_ENTRIES - 1 &&
		!forget_oldest_day(key->day) && key->role_id != InvalidOid)
		return find_account(&rest);
	keyed = hash_search(index_of_key, key, HASH_ENTER, NULL);
	keyed->idx = n_accounts;
	accounts[n_accounts] = (LlmUsageEntry){ .key = *key };
	return &accounts[n_accounts++];
}

void
llm_usage_charge(const LlmRecord *record, const LlmUsageCounts *counts)
{
	LlmUsageKey key;
	LlmUsageEntry *account;
	int32 idx;

	Assert(record->executor != NULL);
	/* hashed as bytes */
	memset(&key, 0, sizeof(key));
	key.role_id = record->role_id;
	key.database_id = record->database_id;
	key.day = today();
	if (record->adapter_idx != LLM_NONE)
		memcpy(key.adapter, llm_adapters[record->adapter_idx].digest,
			   sizeof(key.adapter));
	strlcpy(key.model, record->executor->model_name, sizeof(key.model));
	account = find_account(&key);
	account->counts.n_requests += counts->n_requests;
	account->counts.n_prompt_tokens += counts->n_prompt_tokens;
	account->counts.n_cached_tokens += counts->n_cached_tokens;
	account->counts.n_output_tokens += counts->n_output_tokens;
	idx = (int32) (account - accounts);
	if (!is_changed[idx])
		changed[n_changed++] = idx;
	is_changed[idx] = true;
}

/* -- once per turn -- */

void
llm_usage_publish(void)
{
	int64 now_us = llm_scheduler_now_us();

	if (n_changed > 0 || all_changed)
	{
		llm_scheduler_lock(LW_EXCLUSIVE);
		if (all_changed)
			memcpy(llm_usage, accounts,
				   (Size) n_accounts * sizeof(LlmUsageEntry));
		for (int32 i = 0; i < n_changed; i++)
			llm_usage[changed[i]] = accounts[changed[i]];
		llm_shared->n_usage_entries = n_accounts;
		llm_scheduler_unlock();
		for (int32 i = 0; i < n_changed; i++)
			is_changed[changed[i]] = false;
		n_changed = 0;
		all_changed = false;
		if (!is_unsaved)
			next_save_us = now_us + SAVE_INTERVAL_US;
		is_unsaved = true;
	}
	if (!is_unsaved)
		return;
	if (now_us >= next_save_us)
	{
		/* where that fails, a minute later again */
		next_save_us = now_us + SAVE_INTERVAL_US;
		save_accounts();
	}
	else
		llm_scheduler_turn_at(next_save_us);
}

void
llm_usage_init(void)
{
	accounts = MemoryContextAllocZero(
		TopMemoryContext, LLM_MAX_USAGE_ENTRIES * sizeof(LlmUsageEntry));
	changed = MemoryContextAllocZero(TopMemoryContext,
									 LLM_MAX_USAGE_ENTRIES * sizeof(int32));
	is_changed = MemoryContextAllocZero(TopMemoryContext,
										LLM_MAX_USAGE_ENTRIES * sizeof(bool));
	if (llm_shared->usage_is_loaded)
	{
		/* a predecessor's, who was the only one to write */
		n_accounts = llm_shared->n_usage_entries;
		memcpy(accounts, llm_usage, (Size) n_accounts * sizeof(LlmUsageEntry));
	}
	else
		load_accounts();
	index_accounts();
	llm_scheduler_lock(LW_EXCLUSIVE);
	memcpy(llm_usage, accounts, (Size) n_accounts * sizeof(LlmUsageEntry));
	llm_shared->n_usage_entries = n_accounts;
	llm_shared->usage_is_loaded = true;
	llm_scheduler_unlock();
}

void
llm_usage_close(void)
{
	if (accounts != NULL && (is_unsaved || n_changed > 0 || all_changed))
		save_accounts();
}

/* -- backend processes -- */

int
llm_scheduler_list_usage(LlmUsageEntry **rows)
{
	int n_rows;

	llm_scheduler_require();
	*rows = palloc(LLM_MAX_USAGE_ENTRIES * sizeof(LlmUsageEntry));
	llm_scheduler_lock(LW_SHARED);
	n_rows = llm_shared->n_usage_entries;
	memcpy(*rows, llm_usage, (Size) n_rows * sizeof(LlmUsageEntry));
	llm_scheduler_unlock();
	return n_rows;
}

uint64
llm_scheduler_used_tokens(Oid role_id)
{
	int32 day = today();
	uint64 n_tokens = 0;

	llm_scheduler_require();
	llm_scheduler_lock(LW_SHARED);
	for (int32 i = 0; i < llm_shared->n_usage_entries; i++)
	{
		const LlmUsageEntry *entry = &llm_usage[i];

		if (entry->key.role_id == role_id && entry->key.day == day)
			n_tokens +=
				entry->counts.n_prompt_tokens + entry->counts.n_output_tokens;
	}
	llm_scheduler_unlock();
	return n_tokens;
}
