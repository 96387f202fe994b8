/*
 * grammar_language.c
 *	  Regular languages: all of several patterns, none of others, so long.
 *
 * Characters that no pattern tells apart are one class, so that automata are
 * over a few classes instead of a million characters.  Each pattern becomes a
 * nondeterministic automaton, that a deterministic one (sets of its states);
 * two deterministic ones become their product, state pairs that are found from
 * the start.  After each step states that lead nowhere are dropped.
 *
 * src/common/grammar/grammar_language.c
 */
#include "src/common/grammar/grammar_language.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/utf8.h"

#define MAX_STATES 8192u
#define MAX_CELLS (1u << 20) /* states times classes */
#define MAX_CLASSES 256u
#define MAX_SETS 1024u
#define END_OF_CHARS 0x110000u

#define DEAD 0u /* no text leads from here to an end */
#define NONE UINT32_MAX

/* Characters low .. high, all of one class; in order, without gaps. */
typedef struct Interval
{
	uint32_t low;
	uint32_t high;
	uint32_t class;
} Interval;

#define NO_CLASS MAX_CLASSES /* of U+0000 and surrogates */

typedef struct Alphabet
{
	Interval *intervals;
	uint32_t n_intervals;
	uint32_t n_classes;
	uint8_t *members; /* [n_sets, MAX_CLASSES] */
} Alphabet;

struct LlmLanguage
{
	const Alphabet *alphabet;
	uint32_t *next; /* [n_states, n_classes] */
	uint8_t *ends;	/* [n_states]: may a text end here? */
	uint32_t n_states;
	uint32_t start;
	bool is_finite; /* each state is for texts of one length */
};

typedef struct Maker
{
	LlmGrammarBuilder *b;
	const char *where;
	Alphabet *alphabet;
	const LlmGrammarSet *sets[MAX_SETS];
	uint32_t n_sets;
} Maker;

static void
fail_size(Maker *m, const char *what)
{
	llm_grammar_fail(m->b, LLM_ERROR_LIMIT,
					 "%s: needs an automaton of too many %s", m->where, what);
}

/* Twice the room, in the builder's memory; what is there is kept. */
static void *
grow(LlmGrammarBuilder *b, void *old, uint32_t *capacity, size_t item_bytes)
{
	uint32_t larger = *capacity == 0 ? 64 : 2 * *capacity;
	void *items = llm_grammar_alloc(b, larger * item_bytes);

	if (items == NULL)
		return old;
	if (*capacity > 0)
		memcpy(items, old, *capacity * item_bytes);
	*capacity = larger;
	return items;
}

/* -- the alphabet -- */

/* Number the sets of a pattern. */
static void
collect_sets(Maker *m, LlmPattern *pattern)
{
	if (!llm_grammar_descend(m->b))
		return;
	assert(pattern->kind != LLM_PATTERN_RULE &&
		   pattern->kind != LLM_PATTERN_TEXT);
	if (pattern->kind == LLM_PATTERN_SET && m->n_sets == MAX_SETS)
		fail_size(m, "sets of characters");
	else if (pattern->kind == LLM_PATTERN_SET)
	{
		pattern->set_idx = m->n_sets;
		m->sets[m->n_sets++] = &pattern->set;
	}
	for (size_t i = 0; i < pattern->n_parts; i++)
		collect_sets(m, pattern->parts[i]);
	llm_grammar_ascend(m->b);
}

static int
compare_numbers(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *) a;
	uint32_t right = *(const uint32_t *) b;

	return left < right ? -1 : left > right;
}

/* Cut the characters wherever a set begins or ends. */
static void
cut_intervals(Maker *m)
{
	Alphabet *alphabet = m->alphabet;
	size_t n_cuts = 5;
	uint32_t *cuts;
	size_t n = 0;

	for (uint32_t i = 0; i < m->n_sets; i++)
		n_cuts += 2 * m->sets[i]->n_ranges;
	cuts = llm_grammar_alloc(m->b, n_cuts * sizeof(*cuts));
	alphabet->intervals =
		llm_grammar_alloc(m->b, n_cuts * sizeof(*alphabet->intervals));
	if (cuts == NULL || alphabet->intervals == NULL)
		return;
	cuts[n++] = 0;
	cuts[n++] = 1;
	cuts[n++] = 0xD800;
	cuts[n++] = 0xE000;
	cuts[n++] = END_OF_CHARS;
	for (uint32_t i = 0; i < m->n_sets; i++)
	{
		for (size_t j = 0; j < m->sets[i]->n_ranges; j++)
		{
			cuts[n++] = m->sets[i]->ranges[j].low;
			cuts[n++] = m->sets[i]->ranges[j].high + 1;
		}
	}
	qsort(cuts, n, sizeof(*cuts), compare_numbers);
	for (size_t i = 0; i + 1 < n; i++)
	{
		if (cuts[i] < cuts[i + 1])
			alphabet->intervals[alphabet->n_intervals++] =
				(Interval){ cuts[i], cuts[i + 1] - 1, NO_CLASS };
	}
}

/* Intervals that belong to the same sets are one class. */
static void
merge_intervals(Maker *m)
{
	Alphabet *alphabet = m->alphabet;
	uint8_t *own = llm_grammar_alloc(m->b, m->n_sets + 1);

	alphabet->members =
		llm_grammar_alloc(m->b, (size_t) (m->n_sets + 1) * MAX_CLASSES);
	if (own == NULL || alphabet->members == NULL)
		return;
	for (uint32_t i = 0; i < alphabet->n_intervals; i++)
	{
		uint32_t c = alphabet->intervals[i].low;
		uint32_t class = 0;

		if (c == 0 || (c >= 0xD800 && c < 0xE000))
			continue;
		for (uint32_t s = 0; s < m->n_sets; s++)
			own[s] = llm_grammar_set_contains(m->sets[s], c);
		for (; class < alphabet->n_classes; class ++)
		{
			uint32_t s = 0;

			while (s < m->n_sets &&
				   own[s] == alphabet->members[s * MAX_CLASSES + class])
				s++;
			if (s == m->n_sets)
				break;
		}
		if (class == MAX_CLASSES)
		{
			fail_size(m, "classes of characters");
			return;
		}
		if (class == alphabet->n_classes)
		{
			for (uint32_t s = 0; s < m->n_sets; s++)
				alphabet->members[s * MAX_CLASSES + class] = own[s];
			alphabet->n_classes++;
		}
		alphabet->intervals[i].class = class;
	}
}

/* -- from a pattern to sets of places in it -- */

#define END_PLACE 0u /* where the pattern ends: it reads nothing */

/* A place: reads a set, or goes on without reading to up to two others. */
typedef struct Place
{
	uint32_t set_idx; /* NONE: reads nothing */
	uint32_t first;	  /* NONE: there is none */
	uint32_t second;
} Place;

typedef struct Places
{
	Maker *m;
	Place *items;
	uint32_t n;
	uint32_t capacity;
} Places;

static uint32_t
add_place(Places *p, uint32_t set_idx, uint32_t first, uint32_t second)
{
	if (p->n >= 4 * MAX_STATES)
		fail_size(p->m, "places");
	if (p->n == p->capacity)
		p->items = grow(p->m->b, p->items, &p->capacity, sizeof(Place));
	if (llm_grammar_failed(p->m->b))
		return 0;
	p->items[p->n] = (Place){ set_idx, first, second };
	return p->n++;
}

static uint32_t
add_pattern(Places *p, const LlmPattern *pattern, uint32_t next);

static uint32_t
add_repeat(Places *p, const LlmPattern *pattern, uint32_t next)
{
	const LlmPattern *part = pattern->parts[0];
	uint32_t at = next;

	if (pattern->max == LLM_GRAMMAR_UNBOUNDED)
	{
		uint32_t loop = add_place(p, NONE, NONE, next);
		uint32_t body = add_pattern(p, part, loop);

		if (llm_grammar_failed(p->m->b))
			return 0;
		p->items[loop].first = body;
		at = loop;
	}
	else
	{
		for (uint32_t i = pattern->min;
			 i < pattern->max && !llm_grammar_failed(p->m->b); i++)
			at = add_place(p, NONE, add_pattern(p, part, at), next);
	}
	for (uint32_t i = 0; i < pattern->min && !llm_grammar_failed(p->m->b); i++)
		at = add_pattern(p, part, at);
	return at;
}

/* The place from which a pattern is read that goes on at next. */
static uint32_t
add_pattern(Places *p, const LlmPattern *pattern, uint32_t next)
{
	uint32_t at = next;

	if (!llm_grammar_descend(p->m->b))
		return 0;
	if (pattern->kind == LLM_PATTERN_SET)
		at = add_place(p, pattern->set_idx, next, NONE);
	else if (pattern->kind == LLM_PATTERN_SEQUENCE)
	{
		for (size_t i = pattern->n_parts; i > 0; i--)
			at = add_pattern(p, pattern->parts[i - 1], at);
	}
	else if (pattern->kind == LLM_PATTERN_CHOICE)
	{
		at = NONE;
		for (size_t i = pattern->n_parts; i > 0; i--)
			at = add_place(p, NONE, add_pattern(p, pattern->parts[i - 1], next),
						   at);
	}
	else if (pattern->kind == LLM_PATTERN_REPEAT)
		at = add_repeat(p, pattern, next);
	llm_grammar_ascend(p->m->b);
	return at;
}

/* -- automata -- */

static uint32_t
hash_words(const uint32_t *words, size_t n)
{
	uint32_t hash = (uint32_t) n * 0x9E3779B1u;

	for (size_t i = 0; i < n; i++)
	{
		hash = (hash ^ words[i]) * 0x85EBCA6Bu;
		hash ^= hash >> 15;
	}
	return hash;
}

/* Lists of numbers, each stored once and numbered from 1 (0 is DEAD). */
typedef struct Lists
{
	Maker *m;
	uint32_t *words;
	uint32_t n_words;
	uint32_t word_capacity;
	uint32_t *first; /* [n + 1] where list i begins */
	uint32_t n;
	uint32_t capacity;
	uint32_t *slots; /* numbers, open addressing; 0: empty */
	uint32_t n_slots;
} Lists;

/* Four slots for each number, at least. */
static void
reserve_slots(Lists *lists)
{
	uint32_t n_slots = lists->n_slots == 0 ? 64 : 4 * lists->n_slots;
	uint32_t *slots;

	if (lists->n * 4 < lists->n_slots)
		return;
	slots = llm_grammar_alloc(lists->m->b, n_slots * sizeof(*slots));
	for (uint32_t id = 1; id <= lists->n && slots != NULL; id++)
	{
		uint32_t slot = hash_words(lists->words + lists->first[id],
								   lists->first[id + 1] - lists->first[id]) &
						(n_slots - 1);

		while (slots[slot] != 0)
			slot = (slot + 1) & (n_slots - 1);
		slots[slot] = id;
	}
	if (slots == NULL)
		return;
	lists->slots = slots;
	lists->n_slots = n_slots;
}

static uint32_t
find_list(Lists *lists, const uint32_t *words, uint32_t n)
{
	LlmGrammarBuilder *b = lists->m->b;
	uint32_t slot;

	reserve_slots(lists);
	if (n == 0 || llm_grammar_failed(b))
		return DEAD;
	slot = hash_words(words, n) & (lists->n_slots - 1);
	for (; lists->slots[slot] != 0; slot = (slot + 1) & (lists->n_slots - 1))
	{
		uint32_t id = lists->slots[slot];

		if (lists->first[id + 1] - lists->first[id] == n &&
			memcmp(lists->words + lists->first[id], words,
				   n * sizeof(*words)) == 0)
			return id;
	}
	if (lists->n + 1 >= MAX_STATES ||
		lists->n * lists->m->alphabet->n_classes >= MAX_CELLS)
		fail_size(lists->m, "states");
	while (lists->n_words + n > lists->word_capacity && !llm_grammar_failed(b))
		lists->words =
			grow(b, lists->words, &lists->word_capacity, sizeof(uint32_t));
	if (lists->n + 3 > lists->capacity)
		lists->first =
			grow(b, lists->first, &lists->capacity, sizeof(uint32_t));
	if (llm_grammar_failed(b))
		return DEAD;
	memcpy(lists->words + lists->n_words, words, n * sizeof(*words));
	lists->n++;
	lists->first[lists->n] = lists->n_words;
	lists->n_words += n;
	lists->first[lists->n + 1] = lists->n_words;
	lists->slots[slot] = lists->n;
	return lists->n;
}

static LlmLanguage *
create_automaton(Maker *m)
{
	LlmLanguage *a = llm_grammar_alloc(m->b, sizeof(*a));

	if (a != NULL)
		a->alphabet = m->alphabet;
	return a;
}

/* Room for state number n_states; its transitions are dead. */
static void
add_state(Maker *m, LlmLanguage *a, uint32_t *capacity, bool ends)
{
	uint32_t n_classes = m->alphabet->n_classes;

	if (a->n_states == *capacity)
	{
		uint32_t same = *capacity;

		a->next = grow(m->b, a->next, capacity, n_classes * sizeof(*a->next));
		a->ends = grow(m->b, a->ends, &same, 1);
	}
	if (llm_grammar_failed(m->b))
		return;
	a->ends[a->n_states++] = ends;
}

/* Places that were reached without reading, each once. */
typedef struct Closure
{
	const Places *places;
	uint8_t *marks; /* [places->n] */
	uint32_t *found;
	uint32_t n_found;
} Closure;

static void
close_place(Closure *closure, uint32_t idx)
{
	const Places *p = closure->places;

	if (idx == NONE || closure->marks[idx] || !llm_grammar_descend(p->m->b))
		return;
	closure->marks[idx] = 1;
	closure->found[closure->n_found++] = idx;
	if (p->items[idx].set_idx == NONE)
	{
		close_place(closure, p->items[idx].first);
		close_place(closure, p->items[idx].second);
	}
	llm_grammar_ascend(p->m->b);
}

/* The state of what was found: the places that read, and the end. */
static uint32_t
take_found(Closure *closure, Lists *lists)
{
	const Places *p = closure->places;
	uint32_t n = 0;

	for (uint32_t i = 0; i < closure->n_found; i++)
	{
		uint32_t idx = closure->found[i];

		closure->marks[idx] = 0;
		if (idx == END_PLACE || p->items[idx].set_idx != NONE)
			closure->found[n++] = idx;
	}
	closure->n_found = 0;
	if (n > 1)
		qsort(closure->found, n, sizeof(*closure->found), compare_numbers);
	return find_list(lists, closure->found, n);
}

static LlmLanguage *
determinize(Maker *m, const LlmPattern *pattern)
{
	Places p = { .m = m };
	uint32_t end = add_place(&p, NONE, NONE, NONE);
	uint32_t start = add_pattern(&p, pattern, end);
	uint32_t n_classes = m->alphabet->n_classes;
	Closure closure = { .places = &p };
	Lists lists = { .m = m };
	LlmLanguage *a = create_automaton(m);
	uint32_t capacity = 0;

	assert(end == END_PLACE);
	closure.marks = llm_grammar_alloc(m->b, p.n + 1);
	closure.found = llm_grammar_alloc(m->b, (p.n + 1) * sizeof(uint32_t));
	if (llm_grammar_failed(m->b))
		return NULL;
	close_place(&closure, start);
	a->start = take_found(&closure, &lists);
	add_state(m, a, &capacity, false);
	for (uint32_t i = 1; i <= lists.n && !llm_grammar_failed(m->b); i++)
	{
		uint32_t first = lists.first[i];
		uint32_t n = lists.first[i + 1] - first;

		add_state(m, a, &capacity, lists.words[first] == END_PLACE);
		for (uint32_t c = 0; c < n_classes && !llm_grammar_failed(m->b); c++)
		{
			for (uint32_t j = 0; j < n; j++)
			{
				const Place *place = &p.items[lists.words[first + j]];

				if (place->set_idx != NONE &&
					m->alphabet->members[place->set_idx * MAX_CLASSES + c])
					close_place(&closure, place->first);
			}
			a->next[i * n_classes + c] = take_found(&closure, &lists);
		}
	}
	return a;
}

/* Texts of min to max characters. */
static LlmLanguage *
count_chars(Maker *m, uint32_t min, uint32_t max)
{
	bool is_bounded = max != LLM_GRAMMAR_UNBOUNDED;
	uint32_t n_classes = m->alphabet->n_classes;
	LlmLanguage *a = create_automaton(m);
	uint32_t capacity = 0;
	uint32_t last = is_bounded ? max : min;

	if (last >= MAX_STATES - 1)
		fail_size(m, "states");
	if (a == NULL)
		return NULL;
	add_state(m, a, &capacity, false);
	if (min > max)
		return a;
	a->start = 1;
	for (uint32_t n = 0; n <= last && !llm_grammar_failed(m->b); n++)
	{
		uint32_t next = n < last ? n + 2 : is_bounded ? DEAD : n + 1;

		add_state(m, a, &capacity, n >= min);
		for (uint32_t c = 0; c < n_classes && !llm_grammar_failed(m->b); c++)
			a->next[(n + 1) * n_classes + c] = next;
	}
	return a;
}

/* What left accepts and right accepts, or does not where it is negated. */
static LlmLanguage *
intersect(Maker *m, const LlmLanguage *left, const LlmLanguage *right,
		  bool negated)
{
	uint32_t n_classes = m->alphabet->n_classes;
	Lists lists = { .m = m };
	LlmLanguage *a = create_automaton(m);
	uint32_t pair[2];
	uint32_t capacity = 0;

	if (left == NULL || right == NULL || llm_grammar_failed(m->b))
		return NULL;
	pair[0] = left->start;
	pair[1] = right->start;
	if (pair[0] != DEAD && (negated || pair[1] != DEAD))
		a->start = find_list(&lists, pair, 2);
	add_state(m, a, &capacity, false);
	for (uint32_t i = 1; i <= lists.n && !llm_grammar_failed(m->b); i++)
	{
		uint32_t l = lists.words[2 * i - 2];
		uint32_t r = lists.words[2 * i - 1];

		add_state(m, a, &capacity,
				  left->ends[l] && (right->ends[r] != 0) != negated);
		for (uint32_t c = 0; c < n_classes && !llm_grammar_failed(m->b); c++)
		{
			pair[0] = left->next[l * n_classes + c];
			pair[1] = right->next[r * n_classes + c];
			a->next[i * n_classes + c] =
				pair[0] == DEAD || (pair[1] == DEAD && !negated)
					? DEAD
					: find_list(&lists, pair, 2);
		}
	}
	return a;
}

static void trim(Maker *m, LlmLanguage *a);

static LlmLanguage *
create_of_pattern(Maker *m, const LlmPattern *pattern)
{
	LlmLanguage *all;

	if (pattern->kind != LLM_PATTERN_BOTH)
		return determinize(m, pattern);
	all = determinize(m, pattern->parts[0]);
	for (size_t i = 1; i < pattern->n_parts && !llm_grammar_failed(m->b); i++)
	{
		all = intersect(m, all, determinize(m, pattern->parts[i]),
						pattern->parts[i]->negated);
		trim(m, all);
	}
	return all;
}

/* States from which no end is reached are the dead one. */
static void
trim(Maker *m, LlmLanguage *a)
{
	uint32_t n_classes = m->alphabet->n_classes;
	uint8_t *live;
	bool changed = true;

	if (a == NULL || llm_grammar_failed(m->b))
		return;
	live = llm_grammar_alloc(m->b, a->n_states);
	while (changed && live != NULL)
	{
		changed = false;
		/* states are numbered from the start: go backwards, and few rounds do */
		for (uint32_t s = a->n_states; s-- > 1;)
		{
			bool lives = a->ends[s];

			for (uint32_t c = 0; c < n_classes && !lives; c++)
				lives = live[a->next[s * n_classes + c]];
			changed = changed || lives != (live[s] != 0);
			live[s] = lives;
		}
	}
	for (uint32_t i = 0; live != NULL && i < a->n_states * n_classes; i++)
	{
		if (!live[a->next[i]])
			a->next[i] = DEAD;
	}
	if (live != NULL && !live[a->start])
		a->start = DEAD;
}

const LlmLanguage *
llm_language_create(LlmGrammarBuilder *b, const LlmLanguageTerms *terms,
					const char *where)
{
	Maker m = { .b = b, .where = where };
	LlmLanguage *all;

	m.alphabet = llm_grammar_alloc(b, sizeof(*m.alphabet));
	for (size_t i = 0; i < terms->n_items && !llm_grammar_failed(b); i++)
		collect_sets(&m, terms->items[i].pattern);
	if (!llm_grammar_failed(b))
		cut_intervals(&m);
	if (!llm_grammar_failed(b))
		merge_intervals(&m);
	if (llm_grammar_failed(b))
		return NULL;
	all = count_chars(&m, terms->min, terms->max);
	/* those that must match first: what must not then cuts from less */
	for (size_t i = 0; i < 2 * terms->n_items && !llm_grammar_failed(b); i++)
	{
		const LlmLanguageTerm *term = &terms->items[i % terms->n_items];

		if (term->negated != (i >= terms->n_items))
			continue;
		all = intersect(&m, all, create_of_pattern(&m, term->pattern),
						term->negated);
		trim(&m, all);
	}
	if (llm_grammar_failed(b))
		return NULL;
	all->is_finite = terms->max != LLM_GRAMMAR_UNBOUNDED;
	return all;
}

bool
llm_language_is_empty(const LlmLanguage *language)
{
	return language->start == DEAD;
}

bool
llm_language_contains(const LlmLanguage *language, const char *text, size_t len)
{
	const Alphabet *alphabet = language->alphabet;
	uint32_t state = language->start;

	for (size_t at = 0; at < len && state != DEAD;)
	{
		uint32_t c;
		int n = llm_utf8_decode(text + at, len - at, &c);
		uint32_t i = 0;

		if (n == 0)
			return false;
		at += (size_t) n;
		while (alphabet->intervals[i].high < c)
			i++;
		if (alphabet->intervals[i].class == NO_CLASS)
			return false;
		state = language->next[state * alphabet->n_classes +
							   alphabet->intervals[i].class];
	}
	return state != DEAD && language->ends[state];
}

/* -- nodes -- */

/* What a state reads on its way to another one. */
static LlmGrammarSet
set_between(LlmGrammarBuilder *b, const LlmLanguage *language,
			const uint32_t *row, uint32_t target)
{
	const Alphabet *alphabet = language->alphabet;
	LlmGrammarSet set = { 0 };

	for (uint32_t i = 0; i < alphabet->n_intervals; i++)
	{
		const Interval *interval = &alphabet->intervals[i];

		if (interval->class != NO_CLASS && row[interval->class] == target)
			llm_grammar_set_add(b, &set, interval->low, interval->high);
	}
	llm_grammar_set_normalize(&set);
	return set;
}

static LlmGrammarNodeId
build_state(LlmGrammarBuilder *b, const LlmLanguage *language, uint32_t state,
			const LlmGrammarNodeId *nodes, LlmGrammarEncoding encoding)
{
	uint32_t n_classes = language->alphabet->n_classes;
	const uint32_t *row = language->next + state * n_classes;
	LlmGrammarNodeId targets[MAX_CLASSES];
	size_t n = 0;

	for (uint32_t c = 0; c < n_classes; c++)
	{
		uint32_t before = 0;
		LlmGrammarSet set;

		while (before < c && row[before] != row[c])
			before++;
		if (row[c] == DEAD || before < c)
			continue;
		set = set_between(b, language, row, row[c]);
		targets[n++] = llm_grammar_build_set(b, &set, encoding, nodes[row[c]]);
	}
	return llm_grammar_build_split(b, targets, n);
}

/* The states that the start reaches, nearer ones first. */
static uint32_t
collect_states(const LlmLanguage *language, uint32_t *order, uint8_t *seen)
{
	uint32_t n_classes = language->alphabet->n_classes;
	uint32_t n = 0;

	order[n++] = language->start;
	seen[language->start] = 1;
	for (uint32_t i = 0; i < n; i++)
	{
		for (uint32_t c = 0; c < n_classes; c++)
		{
			uint32_t target = language->next[order[i] * n_classes + c];

			if (target == DEAD || seen[target])
				continue;
			seen[target] = 1;
			order[n++] = target;
		}
	}
	return n;
}

/*
 * From the last state to the first.  Where each is for one length, what is
 * behind it is built before, and equal ends of languages are shared; otherwise
 * there may be loops, and every state is a label.
 */
LlmGrammarNodeId
llm_language_build(LlmGrammarBuilder *b, const LlmLanguage *language,
				   LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	uint32_t n_states = language->n_states;
	LlmGrammarNodeId *nodes = llm_grammar_alloc(b, n_states * sizeof(*nodes));
	uint32_t *order = llm_grammar_alloc(b, n_states * sizeof(*order));
	uint8_t *seen = llm_grammar_alloc(b, n_states);
	uint32_t n;

	if (nodes == NULL || order == NULL || seen == NULL)
		return 0;
	if (language->start == DEAD)
		return llm_grammar_build_never(b);
	n = collect_states(language, order, seen);
	for (uint32_t i = 0; i < n && !language->is_finite; i++)
		nodes[order[i]] = llm_grammar_build_label(b);
	for (uint32_t i = n; i-- > 0 && !llm_grammar_failed(b);)
	{
		LlmGrammarNodeId node =
			build_state(b, language, order[i], nodes, encoding);

		if (language->ends[order[i]])
			node = llm_grammar_build_or(b, node, next);
		if (language->is_finite)
			nodes[order[i]] = node;
		else
			llm_grammar_set_label(b, nodes[order[i]], node);
	}
	return nodes[language->start];
}
