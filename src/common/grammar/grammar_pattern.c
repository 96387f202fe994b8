/*
 * grammar_pattern.c
 *	  Patterns into nodes.
 *
 * Repetitions without bounds are loops of nodes; bounded ones are counted at
 * run time (REPEAT), so {1,10000} costs no more than {1,2}.  A counted run
 * must read something; a pattern that may be empty is nested instead.  Rules
 * are called, except small ones that do not contain themselves: those become
 * part of their callers, which keeps masks cheap (grammar_mask.c).
 *
 * src/common/grammar/grammar_pattern.c
 */
#include "src/common/grammar/grammar_pattern.h"

#include <assert.h>
#include <string.h>

#include "src/common/util/utf8.h"

/* A rule of at most so many patterns is copied into its callers. */
#define INLINE_SIZE 40u

/* Copies of a pattern that may be empty. */
#define MAX_NESTED 64u

#define SIZE_RECURSIVE UINT32_MAX

LlmPattern *
llm_pattern_create(LlmGrammarBuilder *b, LlmPatternKind kind)
{
	LlmPattern *pattern = llm_grammar_alloc(b, sizeof(*pattern));

	if (pattern != NULL)
		pattern->kind = kind;
	return pattern;
}

void
llm_pattern_add(LlmGrammarBuilder *b, LlmPattern *pattern, LlmPattern *part)
{
	if (pattern == NULL || part == NULL)
		return;
	if (pattern->n_parts == pattern->part_capacity)
	{
		size_t capacity = pattern->n_parts == 0 ? 4 : 2 * pattern->n_parts;
		LlmPattern **parts = llm_grammar_alloc(b, capacity * sizeof(*parts));

		if (parts == NULL)
			return;
		if (pattern->n_parts > 0)
			memcpy(parts, pattern->parts, pattern->n_parts * sizeof(*parts));
		pattern->parts = parts;
		pattern->part_capacity = capacity;
	}
	pattern->parts[pattern->n_parts++] = part;
}

LlmPattern *
llm_pattern_create_repeat(LlmGrammarBuilder *b, LlmPattern *part, uint32_t min,
						  uint32_t max)
{
	LlmPattern *repeat = llm_pattern_create(b, LLM_PATTERN_REPEAT);

	llm_pattern_add(b, repeat, part);
	if (repeat != NULL)
	{
		repeat->min = min;
		repeat->max = max;
	}
	return repeat;
}

LlmPattern *
llm_pattern_create_literal(LlmGrammarBuilder *b, const char *text, size_t len)
{
	LlmPattern *literal = llm_pattern_create(b, LLM_PATTERN_SEQUENCE);

	for (size_t at = 0; at < len && !llm_grammar_failed(b);)
	{
		LlmPattern *set = llm_pattern_create(b, LLM_PATTERN_SET);
		uint32_t c;
		int n = llm_utf8_decode(text + at, len - at, &c);

		assert(n > 0);
		at += (size_t) n;
		if (set != NULL)
			llm_grammar_set_add(b, &set->set, c, c);
		llm_pattern_add(b, literal, set);
	}
	return literal;
}

/* May it match the empty text? */
static bool
is_nullable(const LlmPattern *pattern)
{
	switch (pattern->kind)
	{
		case LLM_PATTERN_EMPTY:
			return true;
		case LLM_PATTERN_SET:
			return false;
		case LLM_PATTERN_TEXT:
			return pattern->text_len == 0;
		case LLM_PATTERN_SEQUENCE:
			for (size_t i = 0; i < pattern->n_parts; i++)
			{
				if (!is_nullable(pattern->parts[i]))
					return false;
			}
			return true;
		case LLM_PATTERN_CHOICE:
			for (size_t i = 0; i < pattern->n_parts; i++)
			{
				if (is_nullable(pattern->parts[i]))
					return true;
			}
			return false;
		case LLM_PATTERN_REPEAT:
			return pattern->min == 0 || is_nullable(pattern->parts[0]);
		case LLM_PATTERN_RULE:
			return pattern->rule->nullable;
		case LLM_PATTERN_BOTH:
			break;
	}
	return false;
}

/* -- lengths -- */

typedef struct Lengths
{
	uint32_t min;
	uint32_t max; /* LLM_GRAMMAR_UNBOUNDED: no limit */
} Lengths;

static uint32_t
multiply(uint32_t left, uint32_t right)
{
	uint64_t product = (uint64_t) left * right;

	if (left == 0 || right == 0)
		return 0;
	return left == LLM_GRAMMAR_UNBOUNDED || right == LLM_GRAMMAR_UNBOUNDED ||
				   product >= LLM_GRAMMAR_UNBOUNDED
			   ? LLM_GRAMMAR_UNBOUNDED
			   : (uint32_t) product;
}

static uint32_t
sum_sizes(uint32_t left, uint32_t right)
{
	return left > UINT32_MAX - right ? UINT32_MAX : left + right;
}

/* Characters that a pattern's texts have. */
static Lengths
lengths_of(const LlmPattern *pattern)
{
	Lengths all = { 0, 0 };

	if (pattern->kind == LLM_PATTERN_SET)
		return (Lengths){ 1, 1 };
	if (pattern->kind == LLM_PATTERN_BOTH)
		return lengths_of(pattern->parts[0]); /* which is not negated */
	if (pattern->kind == LLM_PATTERN_REPEAT)
	{
		all = lengths_of(pattern->parts[0]);
		return (Lengths){ multiply(all.min, pattern->min),
						  multiply(all.max, pattern->max) };
	}
	for (size_t i = 0; i < pattern->n_parts; i++)
	{
		Lengths own = lengths_of(pattern->parts[i]);

		if (pattern->kind == LLM_PATTERN_SEQUENCE)
			all = (Lengths){ sum_sizes(all.min, own.min),
							 sum_sizes(all.max, own.max) };
		else
			all = (Lengths){ i == 0 || own.min < all.min ? own.min : all.min,
							 own.max > all.max ? own.max : all.max };
	}
	return all;
}

/* Nothing matches a choice of nothing. */
static bool
match_nothing(LlmPattern *pattern)
{
	pattern->kind = LLM_PATTERN_CHOICE;
	pattern->n_parts = 0;
	return true;
}

/* A run of parts that have one length each. */
static bool
fit_repeat(LlmPattern *pattern, uint32_t min, uint32_t max)
{
	Lengths one = lengths_of(pattern->parts[0]);

	if (one.min != one.max || one.min == 0)
		return false;
	min = min / one.min + (min % one.min != 0);
	if (max != LLM_GRAMMAR_UNBOUNDED)
		max /= one.min;
	pattern->min = pattern->min > min ? pattern->min : min;
	pattern->max = pattern->max < max ? pattern->max : max;
	return pattern->min <= pattern->max || match_nothing(pattern);
}

/* All parts but one have one length: that one has the rest. */
static bool
fit_sequence(LlmPattern *pattern, uint32_t min, uint32_t max)
{
	LlmPattern *elastic = NULL;
	uint32_t fixed = 0;

	for (size_t i = 0; i < pattern->n_parts; i++)
	{
		Lengths own = lengths_of(pattern->parts[i]);

		if (own.min == own.max)
			fixed = sum_sizes(fixed, own.min);
		else if (elastic != NULL)
			return false;
		else
			elastic = pattern->parts[i];
	}
	assert(elastic != NULL && fixed <= max);
	return llm_pattern_fit_length(elastic, min > fixed ? min - fixed : 0,
								  max == LLM_GRAMMAR_UNBOUNDED ? max
															   : max - fixed);
}

bool
llm_pattern_fit_length(LlmPattern *pattern, uint32_t min, uint32_t max)
{
	Lengths own = lengths_of(pattern);
	bool fits = true;

	if (own.min >= min && own.max <= max)
		return true;
	if (own.min > max || own.max < min)
		return match_nothing(pattern);
	if (pattern->kind == LLM_PATTERN_BOTH)
		return llm_pattern_fit_length(pattern->parts[0], min, max);
	if (pattern->kind == LLM_PATTERN_REPEAT)
		return fit_repeat(pattern, min, max);
	if (pattern->kind == LLM_PATTERN_SEQUENCE)
		return fit_sequence(pattern, min, max);
	for (size_t i = 0; i < pattern->n_parts; i++)
		fits = llm_pattern_fit_length(pattern->parts[i], min, max) && fits;
	return fits;
}

/* -- rules -- */

static uint32_t measure_rule(LlmGrammarBuilder *b, LlmPatternRule *rule);

static uint32_t
measure(LlmGrammarBuilder *b, const LlmPattern *pattern)
{
	uint32_t size = 1;

	if (!llm_grammar_descend(b))
		return 0;
	if (pattern->kind == LLM_PATTERN_RULE)
		size = measure_rule(b, pattern->rule);
	for (size_t i = 0; i < pattern->n_parts; i++)
		size = sum_sizes(size, measure(b, pattern->parts[i]));
	llm_grammar_ascend(b);
	return size;
}

/* A rule that is met again on its own way contains itself. */
static uint32_t
measure_rule(LlmGrammarBuilder *b, LlmPatternRule *rule)
{
	if (rule->visit == 1)
		return SIZE_RECURSIVE;
	if (rule->visit == 0)
	{
		rule->visit = 1;
		rule->size = measure(b, rule->pattern);
		rule->visit = 2;
	}
	return rule->size;
}

static void check_left(LlmGrammarBuilder *b, const LlmPattern *pattern);

/* A rule that may begin with itself would be entered forever. */
static void
check_left_rule(LlmGrammarBuilder *b, LlmPatternRule *rule)
{
	if (rule->visit == 1)
		llm_grammar_fail(b, LLM_ERROR_UNSUPPORTED,
						 "grammar rule \"%.*s\" is left-recursive",
						 (int) rule->name_len, rule->name);
	if (rule->visit == 0)
	{
		rule->visit = 1;
		check_left(b, rule->pattern);
		rule->visit = 2;
	}
}

static void
check_left(LlmGrammarBuilder *b, const LlmPattern *pattern)
{
	if (!llm_grammar_descend(b))
		return;
	if (pattern->kind == LLM_PATTERN_RULE)
		check_left_rule(b, pattern->rule);
	for (size_t i = 0; i < pattern->n_parts; i++)
	{
		check_left(b, pattern->parts[i]);
		if (pattern->kind == LLM_PATTERN_SEQUENCE &&
			!is_nullable(pattern->parts[i]))
			break;
	}
	llm_grammar_ascend(b);
}

bool
llm_pattern_prepare_rules(LlmGrammarBuilder *b, LlmPatternRule **rules,
						  size_t n_rules)
{
	bool changed = true;

	while (changed)
	{
		changed = false;
		for (size_t i = 0; i < n_rules; i++)
		{
			if (rules[i]->nullable || !is_nullable(rules[i]->pattern))
				continue;
			rules[i]->nullable = true;
			changed = true;
		}
	}
	for (size_t i = 0; i < n_rules; i++)
		check_left_rule(b, rules[i]);
	for (size_t i = 0; i < n_rules; i++)
		rules[i]->visit = 0;
	for (size_t i = 0; i < n_rules; i++)
		measure_rule(b, rules[i]);
	return !llm_grammar_failed(b);
}

static LlmGrammarNodeId
build_rule(LlmGrammarBuilder *b, LlmPatternRule *rule,
		   LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	if (rule->size <= INLINE_SIZE)
		return llm_pattern_build(b, rule->pattern, encoding, next);
	if (rule->entry == 0)
	{
		rule->entry = llm_grammar_build_label(b);
		llm_grammar_set_label(b, rule->entry,
							  llm_pattern_build(b, rule->pattern, encoding,
												llm_grammar_build_return(b)));
	}
	return llm_grammar_build_call(b, rule->entry, next);
}

/* -- nodes -- */

static LlmGrammarNodeId
build_loop(LlmGrammarBuilder *b, const LlmPattern *part, bool may_skip,
		   LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	LlmGrammarNodeId label = llm_grammar_build_label(b);
	LlmGrammarNodeId body = llm_pattern_build(b, part, encoding, label);

	llm_grammar_set_label(b, label, llm_grammar_build_or(b, body, next));
	return may_skip ? label : body;
}

static LlmGrammarNodeId
build_nested(LlmGrammarBuilder *b, const LlmPattern *part, uint32_t max,
			 LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	LlmGrammarNodeId node = next;

	if (max > MAX_NESTED)
		return llm_grammar_fail(b, LLM_ERROR_LIMIT,
								"up to %u repetitions of a pattern that may be "
								"empty, the limit is %u",
								max, MAX_NESTED);
	for (uint32_t i = 0; i < max && !llm_grammar_failed(b); i++)
		node = llm_grammar_build_or(
			b, llm_pattern_build(b, part, encoding, node), next);
	return node;
}

static LlmGrammarNodeId
build_repeat(LlmGrammarBuilder *b, const LlmPattern *pattern,
			 LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	const LlmPattern *part = pattern->parts[0];
	bool nullable = is_nullable(part);
	uint32_t min = nullable ? 0 : pattern->min;
	uint32_t max = pattern->max;

	if (max == 0)
		return next;
	if (max == 1)
	{
		LlmGrammarNodeId once = llm_pattern_build(b, part, encoding, next);

		return min == 1 ? once : llm_grammar_build_or(b, once, next);
	}
	if (max == LLM_GRAMMAR_UNBOUNDED && min <= 1)
		return build_loop(b, part, min == 0, encoding, next);
	if (nullable)
		return build_nested(b, part, max, encoding, next);
	return llm_grammar_build_repeat(
		b, llm_pattern_build(b, part, encoding, llm_grammar_build_return(b)),
		min, max, next);
}

static LlmGrammarNodeId
build_choice(LlmGrammarBuilder *b, const LlmPattern *pattern,
			 LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	LlmGrammarNodeId *targets =
		llm_grammar_alloc(b, pattern->n_parts * sizeof(*targets));
	LlmGrammarToken *texts =
		llm_grammar_alloc(b, pattern->n_parts * sizeof(*texts));
	size_t n = 0;
	size_t n_texts = 0;

	if (targets == NULL || texts == NULL)
		return 0;
	for (size_t i = 0; i < pattern->n_parts; i++)
	{
		const LlmPattern *part = pattern->parts[i];

		if (part->kind == LLM_PATTERN_TEXT)
			texts[n_texts++] = (LlmGrammarToken){ part->text, part->text_len };
		else
			targets[n++] = llm_pattern_build(b, part, encoding, next);
	}
	/* texts that are alternatives share their beginnings */
	if (n_texts > 0)
		targets[n++] = llm_grammar_build_choice(b, texts, n_texts, next);
	return llm_grammar_build_split(b, targets, n);
}

static LlmGrammarNodeId
build_pattern(LlmGrammarBuilder *b, const LlmPattern *pattern,
			  LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	switch (pattern->kind)
	{
		case LLM_PATTERN_EMPTY:
			return next;
		case LLM_PATTERN_SET:
			return llm_grammar_build_set(b, &pattern->set, encoding, next);
		case LLM_PATTERN_TEXT:
			assert(encoding == LLM_GRAMMAR_UTF8);
			return llm_grammar_build_text(b, pattern->text, pattern->text_len,
										  next);
		case LLM_PATTERN_SEQUENCE:
			for (size_t i = pattern->n_parts; i > 0; i--)
				next =
					llm_pattern_build(b, pattern->parts[i - 1], encoding, next);
			return next;
		case LLM_PATTERN_CHOICE:
			return build_choice(b, pattern, encoding, next);
		case LLM_PATTERN_REPEAT:
			return build_repeat(b, pattern, encoding, next);
		case LLM_PATTERN_RULE:
			return build_rule(b, pattern->rule, encoding, next);
		case LLM_PATTERN_BOTH:
			assert(false);
			break;
	}
	return 0;
}

LlmGrammarNodeId
llm_pattern_build(LlmGrammarBuilder *b, const LlmPattern *pattern,
				  LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	LlmGrammarNodeId node;

	if (pattern == NULL || !llm_grammar_descend(b))
		return 0;
	node = build_pattern(b, pattern, encoding, next);
	llm_grammar_ascend(b);
	return node;
}
