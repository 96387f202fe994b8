/*
 * constraint.c
 *	  Requests with a grammar: the tokens that each may draw next.
 *
 * Masks take microseconds where a place is known and a millisecond or so where
 * it is new, so they are computed by a thread of their own while the step's
 * logits are; the loop waits for it only before it samples.  Grammars have no
 * lock: they belong to that thread from _start to _wait and to the loop at all
 * other times.
 *
 * Grammars that no request uses any more are kept, the latest first, since
 * the next rows of a statement bring the same one: what was computed for it
 * stays.
 *
 * src/engine/executor/constraint.c
 */
#include "src/engine/executor/constraint.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar.h"
#include "src/common/model_image/model_image.h"
#include "src/common/util/sha256.h"

/* What a grammar remembers of its places and masks. */
#define GRAMMAR_CACHE_BYTES ((size_t) 64 << 20)

/* Grammars kept without a request. */
#define MAX_IDLE_GRAMMARS 32
#define MAX_IDLE_BYTES ((size_t) 256 << 20)

typedef struct OpenGrammar
{
	struct OpenGrammar *next; /* by last use, the latest first */
	uint8_t digest[LLM_SHA256_BYTES];
	LlmGrammar *grammar;
	uint32_t n_users;
} OpenGrammar;

struct LlmConstraint
{
	LlmConstraints *owner;
	OpenGrammar *open;
	LlmGrammarMatcher *matcher;
	bool has_ended;
	LlmError err; /* of its last mask; code LLM_OK: none */
};

typedef struct MaskJob
{
	LlmConstraint *constraint;
	uint32_t *mask;
} MaskJob;

struct LlmConstraints
{
	LlmGrammarVocab *vocab;
	size_t n_mask_words;
	OpenGrammar *grammars;
	uint32_t *masks; /* [max_rows, n_mask_words] */
	MaskJob *jobs;	 /* [max_rows] */
	int32_t n_jobs;
	int32_t max_rows;
	bool is_started; /* the jobs are the thread's */

	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_busy; /* under the lock, like the next */
	bool is_ending;
};

/* -- the thread -- */

/*
 * Everything is allowed where a mask cannot be computed: the row has to be
 * sampled with the others, and its token is refused afterwards.
 */
static void
fill_masks(LlmConstraints *constraints)
{
	for (int32_t i = 0; i < constraints->n_jobs; i++)
	{
		MaskJob *job = &constraints->jobs[i];
		LlmConstraint *constraint = job->constraint;

		if (!llm_grammar_matcher_fill_mask(constraint->matcher, job->mask,
										   &constraint->err))
			memset(job->mask, 0xFF,
				   constraints->n_mask_words * sizeof(uint32_t));
	}
}

static void *
run_thread(void *arg)
{
	LlmConstraints *constraints = arg;

	pthread_mutex_lock(&constraints->lock);
	while (!constraints->is_ending)
	{
		if (!constraints->is_busy)
		{
			pthread_cond_wait(&constraints->changed, &constraints->lock);
			continue;
		}
		pthread_mutex_unlock(&constraints->lock);
		fill_masks(constraints);
		pthread_mutex_lock(&constraints->lock);
		constraints->is_busy = false;
		pthread_cond_broadcast(&constraints->changed);
	}
	pthread_mutex_unlock(&constraints->lock);
	return NULL;
}

const uint32_t *
llm_constraints_add_row(LlmConstraints *constraints, int32_t row,
						LlmConstraint *constraint)
{
	uint32_t *mask =
		constraints->masks + (size_t) row * constraints->n_mask_words;

	assert(!constraints->is_started);
	assert(row >= 0 && row < constraints->max_rows);
	assert(constraints->n_jobs < constraints->max_rows);
	assert(!constraint->has_ended && constraint->owner == constraints);
	llm_error_clear(&constraint->err);
	constraints->jobs[constraints->n_jobs++] =
		(MaskJob){ .constraint = constraint, .mask = mask };
	return mask;
}

void
llm_constraints_start(LlmConstraints *constraints)
{
	assert(!constraints->is_started);
	if (constraints->n_jobs == 0)
		return;
	constraints->is_started = true;
	pthread_mutex_lock(&constraints->lock);
	assert(!constraints->is_busy);
	constraints->is_busy = true;
	pthread_cond_broadcast(&constraints->changed);
	pthread_mutex_unlock(&constraints->lock);
}

void
llm_constraints_wait(LlmConstraints *constraints)
{
	if (!constraints->is_started)
		return;
	pthread_mutex_lock(&constraints->lock);
	while (constraints->is_busy)
		pthread_cond_wait(&constraints->changed, &constraints->lock);
	pthread_mutex_unlock(&constraints->lock);
	constraints->is_started = false;
	constraints->n_jobs = 0;
}

/* -- create and free -- */

static LlmGrammarVocab *
read_vocab(const LlmConstraintsConfig *config, LlmError *err)
{
	LlmModelImage *image = llm_model_image_open(config->image_path, err);
	int32_t end_ids[LLM_MAX_STOP_IDS];
	size_t n_end_ids = 0;
	LlmGrammarVocab *vocab;

	if (image == NULL)
		return NULL;
	assert(config->n_end_ids <= LLM_MAX_STOP_IDS);
	/* a model may name ids beyond its vocabulary: they are never drawn */
	for (int32_t i = 0; i < config->n_end_ids; i++)
		if (config->end_ids[i] >= 0 && config->end_ids[i] < config->n_vocab)
			end_ids[n_end_ids++] = config->end_ids[i];
	vocab = llm_grammar_vocab_from_tokenizer(llm_model_image_tokenizer(image),
											 config->n_vocab, end_ids,
											 n_end_ids, err);
	llm_model_image_close(image);
	return vocab;
}

LlmConstraints *
llm_constraints_create(const LlmConstraintsConfig *config, LlmError *err)
{
	LlmConstraints *constraints = calloc(1, sizeof(*constraints));
	size_t n_rows = (size_t) config->max_rows;

	if (constraints == NULL)
	{
		llm_error_no_memory(err, sizeof(*constraints), "grammars");
		return NULL;
	}
	pthread_mutex_init(&constraints->lock, NULL);
	pthread_cond_init(&constraints->changed, NULL);
	constraints->max_rows = config->max_rows;
	constraints->vocab = read_vocab(config, err);
	if (constraints->vocab == NULL)
	{
		llm_constraints_free(constraints);
		return NULL;
	}
	constraints->n_mask_words =
		llm_grammar_vocab_n_mask_words(constraints->vocab);
	constraints->masks =
		calloc(n_rows * constraints->n_mask_words, sizeof(uint32_t));
	constraints->jobs = calloc(n_rows, sizeof(MaskJob));
	if (constraints->masks == NULL || constraints->jobs == NULL)
		llm_error_no_memory(err, n_rows * constraints->n_mask_words * 4,
							"grammar masks");
	else if (pthread_create(&constraints->thread, NULL, run_thread,
							constraints) != 0)
		llm_error_set(err, LLM_ERROR_IO, "could not start a thread");
	else
	{
		constraints->has_thread = true;
		return constraints;
	}
	llm_constraints_free(constraints);
	return NULL;
}

static void
close_grammar(LlmConstraints *constraints, OpenGrammar *open)
{
	OpenGrammar **link = &constraints->grammars;

	assert(open->n_users == 0);
	while (*link != open)
		link = &(*link)->next;
	*link = open->next;
	llm_grammar_close(open->grammar);
	free(open);
}

void
llm_constraints_free(LlmConstraints *constraints)
{
	if (constraints == NULL)
		return;
	if (constraints->has_thread)
	{
		llm_constraints_wait(constraints);
		pthread_mutex_lock(&constraints->lock);
		constraints->is_ending = true;
		pthread_cond_broadcast(&constraints->changed);
		pthread_mutex_unlock(&constraints->lock);
		pthread_join(constraints->thread, NULL);
	}
	while (constraints->grammars != NULL)
		close_grammar(constraints, constraints->grammars);
	pthread_cond_destroy(&constraints->changed);
	pthread_mutex_destroy(&constraints->lock);
	llm_grammar_vocab_free(constraints->vocab);
	free(constraints->masks);
	free(constraints->jobs);
	free(constraints);
}

/* -- grammars -- */

/* Forget idle grammars that were not used for longest. */
static void
trim_idle(LlmConstraints *constraints)
{
	OpenGrammar *next;
	size_t n_bytes = 0;
	int n_idle = 0;

	for (OpenGrammar *open = constraints->grammars; open != NULL; open = next)
	{
		next = open->next;
		if (open->n_users > 0)
			continue;
		n_bytes += llm_grammar_used_bytes(open->grammar);
		if (++n_idle > MAX_IDLE_GRAMMARS || n_bytes > MAX_IDLE_BYTES)
			close_grammar(constraints, open);
	}
}

static OpenGrammar *
add_grammar(LlmConstraints *constraints, const uint32_t *words, size_t n_words,
			LlmError *err)
{
	OpenGrammar *open = calloc(1, sizeof(*open));

	if (open == NULL)
	{
		llm_error_no_memory(err, sizeof(*open), "a grammar");
		return NULL;
	}
	open->grammar = llm_grammar_open(words, n_words, constraints->vocab,
									 GRAMMAR_CACHE_BYTES, err);
	if (open->grammar == NULL)
	{
		free(open);
		return NULL;
	}
	llm_grammar_hash(words, n_words * sizeof(*words), open->digest);
	open->next = constraints->grammars;
	constraints->grammars = open;
	return open;
}

static OpenGrammar *
find_grammar(LlmConstraints *constraints, const uint32_t *words, size_t n_words,
			 LlmError *err)
{
	uint8_t digest[LLM_SHA256_BYTES];
	OpenGrammar **link = &constraints->grammars;

	llm_grammar_hash(words, n_words * sizeof(*words), digest);
	for (; *link != NULL; link = &(*link)->next)
	{
		OpenGrammar *open = *link;

		if (memcmp(open->digest, digest, sizeof(digest)) != 0)
			continue;
		*link = open->next;
		open->next = constraints->grammars;
		constraints->grammars = open;
		return open;
	}
	return add_grammar(constraints, words, n_words, err);
}

/* -- constraints -- */

static bool
go_behind(LlmConstraint *constraint, const int32_t *output_ids, size_t n_output,
		  LlmError *err)
{
	for (size_t i = 0; i < n_output; i++)
		if (!llm_constraint_accept(constraint, output_ids[i], err))
			return false;
	return true;
}

LlmConstraint *
llm_constraint_open(LlmConstraints *constraints, const uint32_t *words,
					size_t n_words, const int32_t *output_ids, size_t n_output,
					LlmError *err)
{
	LlmConstraint *constraint = calloc(1, sizeof(*constraint));

	assert(!constraints->is_started);
	if (constraint == NULL)
	{
		llm_error_no_memory(err, sizeof(*constraint), "a grammar's place");
		return NULL;
	}
	constraint->owner = constraints;
	constraint->open = find_grammar(constraints, words, n_words, err);
	if (constraint->open != NULL)
	{
		constraint->open->n_users++;
		constraint->matcher =
			llm_grammar_matcher_create(constraint->open->grammar, err);
	}
	if (constraint->matcher != NULL &&
		go_behind(constraint, output_ids, n_output, err))
		return constraint;
	llm_constraint_close(constraint);
	return NULL;
}

void
llm_constraint_close(LlmConstraint *constraint)
{
	LlmConstraints *constraints;

	if (constraint == NULL)
		return;
	constraints = constraint->owner;
	assert(!constraints->is_started);
	/* a row that was added and left before the masks were begun */
	for (int32_t i = 0; i < constraints->n_jobs; i++)
		assert(constraints->jobs[i].constraint != constraint);
	llm_grammar_matcher_free(constraint->matcher);
	if (constraint->open != NULL && --constraint->open->n_users == 0)
		trim_idle(constraints);
	free(constraint);
}

bool
llm_constraint_accept(LlmConstraint *constraint, int32_t token_id,
					  LlmError *err)
{
	assert(!constraint->owner->is_started);
	if (constraint->err.code != LLM_OK)
	{
		*err = constraint->err;
		return false;
	}
	if (constraint->has_ended)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "token %d follows a complete answer", token_id);
	if (!llm_grammar_matcher_accept(constraint->matcher, token_id, err))
		return false;
	constraint->has_ended =
		llm_grammar_matcher_has_ended(constraint->matcher) ||
		llm_grammar_matcher_must_end(constraint->matcher);
	return true;
}

bool
llm_constraint_has_ended(const LlmConstraint *constraint)
{
	return constraint->has_ended;
}
