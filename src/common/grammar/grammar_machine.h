/*
 * grammar_machine.h
 *	  A grammar made deterministic as it runs.
 *
 * A thread is a state and a stack; a stack is a chain of frames that ends at
 * frame 0.  A config is the set of threads in which a text leaves the program,
 * at states that read a byte, and whether the text may end.  Equal frames and
 * equal configs are stored once, so a config is a number, a text's place is
 * that number, and copying or taking back costs nothing.  Each config has a
 * row: the config behind it for each class of bytes, computed when first
 * needed.
 *
 * All of it is memory of what was computed.  Where it passes its bound, at a
 * moment when nobody holds a number but the matchers, it is built anew with
 * the configs that they stand on.
 *
 * src/common/grammar/grammar_machine.h
 */
#ifndef LLM_GRAMMAR_MACHINE_H
#define LLM_GRAMMAR_MACHINE_H

#include "src/common/grammar/grammar_program.h"
#include "src/common/grammar/grammar_vocab.h"

#define LLM_GRAMMAR_DEAD 0u					/* the config without threads */
#define LLM_GRAMMAR_UNKNOWN UINT32_MAX		/* in a row: not computed yet */
#define LLM_GRAMMAR_FAILED (UINT32_MAX - 1) /* the error is in "err" */

/* Threads of one config; beyond it the grammar is too ambiguous. */
#define LLM_GRAMMAR_MAX_THREADS 2048

typedef struct LlmGrammarFrame
{
	uint32_t call;	 /* the CALL or REPEAT that pushed it; 0: the bottom */
	uint32_t count;	 /* runs of a REPEAT that are complete */
	uint32_t parent; /* frame below */
	uint32_t depth;	 /* 0 for the bottom */
} LlmGrammarFrame;

typedef struct LlmGrammarThread
{
	uint32_t state;
	uint32_t frame;
} LlmGrammarThread;

typedef struct LlmGrammarConfig
{
	uint32_t first_thread;
	uint32_t n_threads;
	uint32_t may_end;
	uint32_t row;	/* where in rows; UNKNOWN: none yet */
	uint32_t mask;	/* the mask room's memory of it; UNKNOWN: none */
	uint32_t part;	/* likewise, as a part of others */
	uint32_t reach; /* most depth + height that its steps so far met */
} LlmGrammarConfig;

/* Open addressing over numbers of frames or configs; UNKNOWN: empty. */
typedef struct LlmGrammarTable
{
	uint32_t *slots;
	uint32_t n_slots; /* a power of two */
} LlmGrammarTable;

typedef struct LlmGrammarMemory
{
	LlmGrammarFrame *frames;
	uint32_t n_frames;
	uint32_t frame_capacity;
	LlmGrammarThread *threads;
	uint32_t n_threads;
	uint32_t thread_capacity;
	LlmGrammarConfig *configs;
	uint32_t n_configs;
	uint32_t config_capacity;
	uint32_t *rows; /* [n_rows, n_classes] */
	uint32_t n_rows;
	uint32_t row_capacity;
	LlmGrammarTable frame_table;
	LlmGrammarTable config_table;
} LlmGrammarMemory;

/* Threads on their way to states that read, each taken once. */
typedef struct LlmGrammarClosure
{
	LlmGrammarThread *work;
	uint32_t n_work;
	uint32_t *seen; /* numbers in work, open addressing */
	uint32_t reach; /* most depth + height, taken or not */
	bool may_end;
} LlmGrammarClosure;

typedef struct LlmGrammarMasks LlmGrammarMasks;

struct LlmGrammar
{
	uint32_t *words;
	size_t n_words;
	uint16_t *heights;	   /* [n_words] */
	uint8_t class_of[256]; /* bytes that no state tells apart */
	uint8_t byte_of[256];  /* one byte of each class */
	uint32_t n_classes;
	const LlmGrammarVocab *vocab;
	size_t cache_bytes;
	uint32_t start; /* config at the start of a text */
	LlmGrammarMemory memory;
	LlmGrammarClosure closure;
	LlmGrammarMasks *masks;
	LlmGrammarMatcher *matchers; /* linked: who holds configs */
	LlmError *err;				 /* of the call in progress */
};

/* A matcher's place, and the places it may go back to. */
struct LlmGrammarMatcher
{
	LlmGrammar *grammar;
	LlmGrammarMatcher *next;
	LlmGrammarMatcher *previous;
	uint32_t config;
	uint32_t n_history;
	uint32_t history_head; /* where the next one goes */
	uint32_t history[LLM_GRAMMAR_MAX_ROLLBACK];
};

/* The config behind another one and a byte; FAILED: grammar->err says why. */
extern uint32_t
llm_grammar_machine_compute(LlmGrammar *grammar, uint32_t config, uint8_t byte);

static inline uint32_t
llm_grammar_machine_step(LlmGrammar *grammar, uint32_t config, uint8_t byte)
{
	const LlmGrammarMemory *memory = &grammar->memory;
	uint32_t row = memory->configs[config].row;

	if (row != LLM_GRAMMAR_UNKNOWN)
	{
		uint32_t next = memory->rows[(size_t) row * grammar->n_classes +
									 grammar->class_of[byte]];

		if (next != LLM_GRAMMAR_UNKNOWN)
			return next;
	}
	return llm_grammar_machine_compute(grammar, config, byte);
}

/* The config of one call's return: where its frame's rule has just ended. */
extern uint32_t llm_grammar_machine_return(LlmGrammar *grammar, uint32_t frame);

/* Numbers of equal things; FAILED as above. */
extern uint32_t llm_grammar_machine_frame(LlmGrammar *grammar, uint32_t call,
										  uint32_t count, uint32_t parent);

/* Sorts the threads.  They must not lie in the memory's own array. */
extern uint32_t
llm_grammar_machine_config(LlmGrammar *grammar, LlmGrammarThread *threads,
						   uint32_t n_threads, bool may_end);

/* Class the bytes and compute the start. */
extern bool llm_grammar_machine_init(LlmGrammar *grammar);
extern void llm_grammar_machine_free(LlmGrammar *grammar);
extern size_t llm_grammar_machine_bytes(const LlmGrammar *grammar);

/* Forget all but what matchers stand on, where memory passes its bound. */
extern bool llm_grammar_machine_trim(LlmGrammar *grammar);

#endif /* LLM_GRAMMAR_MACHINE_H */
