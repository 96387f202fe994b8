/*
 * grammar_number.c
 *	  Numbers within bounds, digit by digit.
 *
 * Digits are compared with the bounds' as they come: while the text agrees
 * with a bound so far (tight), the next digit is limited by the bound's.
 * multipleOf is a remainder that the digits read so far leave, of the number in
 * units of the last place that counts; an integer is a multiple of one.
 *
 * Leading zeros and -0 are not generated.  Numbers without bounds have at most
 * 18 digits before the point, 17 behind it and two of exponent; with bounds
 * there is no exponent.
 *
 * src/common/grammar/grammar_number.c
 */
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

#define MAX_DIGITS 18 /* before the point; more where a bound has more */
#define MAX_FRACTION 17
#define MAX_BOUND_DIGITS 40
#define MAX_MODULUS 1000u

/* Digits that a double keeps, for readers to see the same fraction. */
#define EXACT_WHOLE 10
#define EXACT_FRACTION 5
#define MAX_MULTIPLES 16

/* A bound's magnitude: digits before the point, without leading zeros. */
typedef struct Decimal
{
	char digits[2 * MAX_BOUND_DIGITS + 1];
	int n_whole;
	int n_digits; /* the fraction's included, without trailing zeros */
	bool negative;
} Decimal;

typedef struct Bound
{
	Decimal value;
	bool is_set;
	bool exclusive;
} Bound;

/* A number is, or must not be, a multiple of some; in units of the last place. */
typedef struct Multiples
{
	struct
	{
		uint32_t unit;
		int n_places; /* the unit's own, until all have the same */
		bool negated;
	} items[MAX_MULTIPLES];
	int n_items;
	int n_places;	  /* behind the point that count; others are zero or not */
	int n_fraction;	  /* most places that a multiple can have */
	int n_whole;	  /* most digits before the point */
	uint32_t modulus; /* a multiple of all units */
} Multiples;

typedef struct Range
{
	LlmSchemaCompiler *c;
	Bound low; /* of the magnitude */
	Bound high;
	int n_whole;	/* digits before the point, in this pass */
	int n_fraction; /* most behind it */
	Multiples multiples;
	LlmGrammarNodeId next;
	LlmGrammarNodeId *known; /* [places left, tight low, tight high, rest] */
} Range;

/* "12.50e1" as digits and a place for the point. */
static bool
read_decimal(LlmSchemaCompiler *c, const LlmSchemaJson *value, Decimal *out)
{
	const char *text = value->text;
	char digits[MAX_BOUND_DIGITS + 1];
	int n = 0;
	int point = 0;
	int64_t exponent = 0;
	bool behind_point = false;

	memset(out, 0, sizeof(*out));
	if (value->kind != LLM_SCHEMA_JSON_NUMBER)
		return llm_schema_fail(c, LLM_ERROR_FORMAT, "must be a number",
							   value) != 0;
	out->negative = *text == '-';
	for (text += out->negative; *text != '\0' && *text != 'e' && *text != 'E';
		 text++)
	{
		if (*text == '.')
		{
			behind_point = true;
			continue;
		}
		if (n == MAX_BOUND_DIGITS)
			return llm_schema_fail(c, LLM_ERROR_LIMIT,
								   "has more than 40 digits", value) != 0;
		if (n > 0 || *text != '0')
			digits[n++] = *text;
		/* a zero dropped behind the point still moves it */
		if (!behind_point)
			point = n;
		else if (n == 0)
			point--;
	}
	if (*text != '\0')
	{
		bool negative = text[1] == '-';

		for (text += 1 + (text[1] == '-' || text[1] == '+'); *text != '\0';
			 text++)
			exponent = exponent > 1000 ? exponent : exponent * 10 + *text - '0';
		point += (int) (negative ? -exponent : exponent);
	}
	while (n > 0 && digits[n - 1] == '0')
		n--;
	if (n == 0)
	{
		out->negative = false;
		return true;
	}
	if (point > MAX_BOUND_DIGITS || point < n - 2 * MAX_BOUND_DIGITS ||
		point < -MAX_BOUND_DIGITS)
		return llm_schema_fail(c, LLM_ERROR_LIMIT, "has more than 40 digits",
							   value) != 0;
	for (int i = point; i < 0; i++)
		out->digits[out->n_digits++] = '0';
	memcpy(out->digits + out->n_digits, digits, (size_t) n);
	out->n_digits += n;
	while (out->n_digits < point)
		out->digits[out->n_digits++] = '0';
	out->n_whole = point > 0 ? point : 0;
	return true;
}

/* The i-th digit behind the first of n_whole digits before the point. */
static int
digit_of(const Decimal *value, int n_whole, int i)
{
	int at = i - (n_whole - value->n_whole);

	return at < 0 || at >= value->n_digits ? 0 : value->digits[at] - '0';
}

static int
compare_magnitudes(const Decimal *left, const Decimal *right)
{
	int n_whole =
		left->n_whole > right->n_whole ? left->n_whole : right->n_whole;

	for (int i = 0; i < n_whole + 2 * MAX_BOUND_DIGITS; i++)
	{
		int l = digit_of(left, n_whole, i);
		int r = digit_of(right, n_whole, i);

		if (l != r)
			return l < r ? -1 : 1;
	}
	return 0;
}

static int
compare_decimals(const Decimal *left, const Decimal *right)
{
	if (left->negative != right->negative)
		return left->negative ? -1 : 1;
	return left->negative ? compare_magnitudes(right, left)
						  : compare_magnitudes(left, right);
}

/* Are there only zeros from digit i on? */
static bool
is_zero_from(const Decimal *value, int n_whole, int i)
{
	for (; i < n_whole + 2 * MAX_BOUND_DIGITS; i++)
	{
		if (digit_of(value, n_whole, i) != 0)
			return false;
	}
	return true;
}

/* May the number end behind n digits, the last bound's digits being zero? */
static bool
may_end(const Range *r, int n, bool tight_low, bool tight_high)
{
	if (tight_low &&
		(!is_zero_from(&r->low.value, r->n_whole, n) || r->low.exclusive))
		return false;
	return !(tight_high && r->high.exclusive &&
			 is_zero_from(&r->high.value, r->n_whole, n));
}

/* -- remainders -- */

/*
 * What digits leave: below the modulus the remainder of those that count, the
 * modulus itself where a later one is not zero.
 */
static uint32_t
add_digit(const Multiples *m, uint32_t rest, int place, int digit)
{
	uint32_t weight = 1;

	if (rest == m->modulus || digit == 0)
		return rest;
	if (place < -m->n_places)
		return m->modulus;
	for (int i = -m->n_places; i < place; i++)
		weight = weight * 10 % m->modulus;
	return (rest + (uint32_t) digit * weight) % m->modulus;
}

static bool
is_rest_allowed(const Multiples *m, uint32_t rest)
{
	for (int i = 0; i < m->n_items; i++)
	{
		bool is_multiple = rest != m->modulus && rest % m->items[i].unit == 0;

		if (is_multiple == m->items[i].negated)
			return false;
	}
	return true;
}

static LlmGrammarNodeId
build_digit(Range *r, int at, bool tight_low, bool tight_high, uint32_t rest);

/* Behind the at-th digit: the end, the point, or more digits. */
static LlmGrammarNodeId
build_behind(Range *r, int at, bool tight_low, bool tight_high, uint32_t rest)
{
	LlmGrammarBuilder *b = r->c->b;
	LlmGrammarNodeId more;

	if (at < r->n_whole)
		return build_digit(r, at, tight_low, tight_high, rest);
	more = at < r->n_whole + r->n_fraction
			   ? build_digit(r, at, tight_low, tight_high, rest)
			   : 0;
	if (more != 0 && at == r->n_whole)
		more = llm_grammar_build_bytes(b, '.', '.', more);
	if (!is_rest_allowed(&r->multiples, rest) ||
		!may_end(r, at, tight_low, tight_high))
		return more != 0 ? more : llm_grammar_build_never(b);
	return more != 0 ? llm_grammar_build_or(b, more, r->next) : r->next;
}

static LlmGrammarNodeId
build_digit(Range *r, int at, bool tight_low, bool tight_high, uint32_t rest)
{
	int low = tight_low ? digit_of(&r->low.value, r->n_whole, at) : 0;
	int high = tight_high ? digit_of(&r->high.value, r->n_whole, at) : 9;
	int n_left = r->n_whole + r->n_fraction - at;
	size_t place = (((size_t) n_left * 2 + tight_low) * 2 + tight_high) *
					   (r->multiples.modulus + 1) +
				   rest;
	uint32_t edges[20] = { 0 };
	size_t n = 0;
	LlmGrammarNodeId node;

	/* the first digit is another matter: it is no zero */
	if (at > 0 && r->known[place] != 0)
		return r->known[place];
	if (at == 0 && r->n_whole > 1 && low == 0)
		low = 1;
	for (int digit = low; digit <= high; digit++)
	{
		LlmGrammarNodeId target = build_behind(
			r, at + 1,
			tight_low && digit == digit_of(&r->low.value, r->n_whole, at),
			tight_high && digit == high,
			add_digit(&r->multiples, rest, r->n_whole - 1 - at, digit));

		if (n > 0 && edges[2 * n - 1] == target)
			edges[2 * n - 2] =
				(edges[2 * n - 2] & 0xFFu) | (uint32_t) ('0' + digit) << 8;
		else
		{
			edges[2 * n] = (uint32_t) ('0' + digit) * 0x101u;
			edges[2 * n++ + 1] = target;
		}
	}
	node = llm_grammar_build_edges(r->c->b, edges, n);
	if (at > 0)
		r->known[place] = node;
	return node;
}

/* Forget what digits mean that are compared with bounds. */
static void
forget_tight(Range *r, int n_places)
{
	size_t n_rests = r->multiples.modulus + 1;

	for (int i = 0; i <= n_places; i++)
		memset(r->known + ((size_t) i * 4 + 1) * n_rests, 0,
			   3 * n_rests * sizeof(*r->known));
}

/* Magnitudes between two bounds, each of which may be missing. */
static LlmGrammarNodeId
build_magnitudes(Range *r)
{
	LlmGrammarNodeId targets[MAX_BOUND_DIGITS + MAX_DIGITS + 1];
	size_t n = 0;
	int low_whole = r->low.is_set ? r->low.value.n_whole : 0;
	int most = r->high.is_set ? r->high.value.n_whole : MAX_DIGITS;

	if (most < 1)
		most = 1;
	if (!r->high.is_set && low_whole >= most)
		most = low_whole + 1;
	if (most > r->multiples.n_whole)
		most = r->multiples.n_whole;
	r->known = llm_grammar_alloc(r->c->b, (size_t) (most + r->n_fraction + 1) *
											  4 * (r->multiples.modulus + 1) *
											  sizeof(*r->known));
	if (r->known == NULL)
		return 0;
	for (r->n_whole = low_whole < 1 ? 1 : low_whole; r->n_whole <= most;
		 r->n_whole++)
	{
		/* digits of a shorter bound are zeros in front: not tight */
		forget_tight(r, most + r->n_fraction);
		targets[n++] = build_digit(
			r, 0, r->low.is_set && (r->n_whole == 1 || r->n_whole == low_whole),
			r->high.is_set &&
				(r->n_whole == 1 ? most == 1
								 : r->n_whole == r->high.value.n_whole),
			0);
	}
	return llm_grammar_build_split(r->c->b, targets, n);
}

static bool
is_above(const Bound *bound, const Decimal *zero)
{
	int order = compare_decimals(&bound->value, zero);

	return order > 0 || (order == 0 && bound->exclusive);
}

static LlmGrammarNodeId
build_range(Range *r, const Bound *low, const Bound *high)
{
	LlmGrammarBuilder *b = r->c->b;
	Decimal zero = { 0 };
	LlmGrammarNodeId targets[2];
	size_t n = 0;

	if (low->is_set && high->is_set &&
		compare_decimals(&low->value, &high->value) > 0)
		return llm_grammar_build_never(b);
	if (!high->is_set || compare_decimals(&high->value, &zero) >= 0)
	{
		r->low = low->is_set && is_above(low, &zero) ? *low : (Bound){ 0 };
		r->high = *high;
		targets[n++] = build_magnitudes(r);
	}
	if (!low->is_set || compare_decimals(&low->value, &zero) < 0)
	{
		/* from 0, which has no sign, or from the upper bound, to the lower */
		r->low = high->is_set && compare_decimals(&high->value, &zero) < 0
					 ? *high
					 : (Bound){ .is_set = true, .exclusive = true };
		r->high = *low;
		r->low.value.negative = false;
		r->high.value.negative = false;
		targets[n++] =
			llm_grammar_build_bytes(b, '-', '-', build_magnitudes(r));
	}
	return llm_grammar_build_split(b, targets, n);
}

/* Make a bound tighter by what a keyword says. */
static void
tighten(LlmSchemaCompiler *c, Bound *bound, const LlmSchemaJson *keyword,
		bool exclusive, bool is_low)
{
	Bound other = { .is_set = true, .exclusive = exclusive };
	int order;

	if (keyword == NULL || !read_decimal(c, keyword, &other.value))
		return;
	order = bound->is_set ? compare_decimals(&other.value, &bound->value)
						  : (is_low ? 1 : -1);
	if (order == 0)
		bound->exclusive = bound->exclusive || exclusive;
	else if ((order > 0) == is_low)
		*bound = other;
}

/* -- multipleOf -- */

static void
refuse_multiple(LlmSchemaCompiler *c, const LlmSchemaJson *keyword)
{
	llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
					"is supported up to a common multiple of 1000 units of the "
					"last place, not for this value",
					keyword);
}

static void
add_multiple(LlmSchemaCompiler *c, Multiples *m, const LlmSchemaJson *keyword,
			 bool negated)
{
	Decimal value;
	uint32_t unit = 0;
	int n_places;

	if (keyword == NULL ||
		!read_decimal(c, llm_schema_json_follow(keyword), &value))
		return;
	keyword = llm_schema_json_follow(keyword);
	n_places =
		value.n_digits > value.n_whole ? value.n_digits - value.n_whole : 0;
	if (value.negative || value.n_digits == 0)
		llm_schema_fail(c, LLM_ERROR_FORMAT, "must be greater than 0", keyword);
	for (int i = 0; i < value.n_whole + n_places && unit <= MAX_MODULUS; i++)
		unit = unit * 10 + (uint32_t) digit_of(&value, value.n_whole, i);
	if (unit > MAX_MODULUS || n_places > MAX_FRACTION ||
		m->n_items == MAX_MULTIPLES)
	{
		refuse_multiple(c, keyword);
		return;
	}
	m->items[m->n_items].unit = unit;
	m->items[m->n_items].n_places = n_places;
	m->items[m->n_items++].negated = negated;
}

static void
add_whole(Multiples *m, bool negated)
{
	if (m->n_items < MAX_MULTIPLES)
	{
		m->items[m->n_items].unit = 1;
		m->items[m->n_items].n_places = 0;
		m->items[m->n_items++].negated = negated;
	}
}

static uint32_t
common_multiple(uint32_t left, uint32_t right)
{
	uint32_t a = left;
	uint32_t b = right;

	while (b != 0)
	{
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return left / a * right;
}

/* All units in the same place, and their common multiple. */
static void
settle_multiples(LlmSchemaCompiler *c, const LlmSchemaView *view, Multiples *m)
{
	const LlmSchemaJson *keyword = llm_schema_find(view, "multipleOf");

	m->modulus = 1;
	m->n_fraction = MAX_FRACTION;
	m->n_whole = MAX_BOUND_DIGITS;
	for (int i = 0; i < m->n_items; i++)
	{
		if (m->items[i].n_places > m->n_places)
			m->n_places = m->items[i].n_places;
		if (!m->items[i].negated && m->items[i].n_places < m->n_fraction)
			m->n_fraction = m->items[i].n_places;
		if (m->items[i].negated)
			m->n_whole = EXACT_WHOLE;
	}
	if (m->n_places > 0)
		m->n_whole = EXACT_WHOLE;
	if (m->n_whole == EXACT_WHOLE && m->n_fraction > EXACT_FRACTION)
		m->n_fraction =
			m->n_places > EXACT_FRACTION ? m->n_places : EXACT_FRACTION;
	for (int i = 0; i < m->n_items && !llm_grammar_failed(c->b); i++)
	{
		for (int j = m->items[i].n_places;
			 j < m->n_places && m->items[i].unit <= MAX_MODULUS; j++)
			m->items[i].unit *= 10;
		if (m->items[i].unit <= MAX_MODULUS)
			m->modulus = common_multiple(m->modulus, m->items[i].unit);
		if (m->items[i].unit > MAX_MODULUS || m->modulus > MAX_MODULUS)
			refuse_multiple(c, keyword != NULL ? keyword : view->objects[0]);
	}
}

/* What a view says of numbers of the types. */
static void
collect_multiples(LlmSchemaCompiler *c, const LlmSchemaView *view,
				  uint32_t types, Multiples *m)
{
	if (!(types & LLM_SCHEMA_NUMBER))
		add_whole(m, false);
	if (!(types & LLM_SCHEMA_INTEGER))
		add_whole(m, true);
	for (size_t i = 0; i < view->n_objects; i++)
	{
		const char *low = NULL;
		const char *high;
		const LlmSchemaJson *format =
			llm_schema_json_get(view->objects[i], "format");

		add_multiple(c, m, llm_schema_json_get(view->objects[i], "multipleOf"),
					 false);
		add_multiple(
			c, m,
			llm_schema_json_get(view->objects[i], LLM_SCHEMA_NOT_MULTIPLE),
			true);
		if (format != NULL && llm_schema_number_format(format, &low, &high) &&
			low != NULL)
			add_whole(m, false);
	}
	if (!llm_grammar_failed(c->b))
		settle_multiples(c, view, m);
}

static LlmGrammarNodeId
build_exponent(LlmGrammarBuilder *b, LlmGrammarNodeId next)
{
	LlmGrammarNodeId last = llm_grammar_build_bytes(b, '0', '9', next);
	LlmGrammarNodeId digits = llm_grammar_build_bytes(
		b, '0', '9', llm_grammar_build_or(b, last, next));
	LlmGrammarNodeId sign =
		llm_grammar_build_or(b, llm_grammar_build_bytes(b, '+', '+', digits),
							 llm_grammar_build_bytes(b, '-', '-', digits));
	LlmGrammarNodeId behind = llm_grammar_build_or(b, sign, digits);

	return llm_grammar_build_or(
		b,
		llm_grammar_build_or(b, llm_grammar_build_bytes(b, 'e', 'e', behind),
							 llm_grammar_build_bytes(b, 'E', 'E', behind)),
		next);
}

/* The bounds of integers that a format has. */
static void
tighten_by_format(LlmSchemaCompiler *c, const LlmSchemaJson *format, Bound *low,
				  Bound *high)
{
	const char *texts[2] = { NULL, NULL };

	if (format == NULL ||
		!llm_schema_number_format(format, &texts[0], &texts[1]))
		return;
	for (int i = 0; i < 2; i++)
	{
		LlmSchemaJson value = { .kind = LLM_SCHEMA_JSON_NUMBER,
								.text = texts[i],
								.parent = format };

		if (texts[i] != NULL)
			tighten(c, i == 0 ? low : high, &value, false, i == 0);
	}
}

static void
collect_bounds(LlmSchemaCompiler *c, const LlmSchemaView *view, Bound *low,
			   Bound *high)
{
	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *object = view->objects[i];

		tighten(c, low, llm_schema_json_get(object, "minimum"), false, true);
		tighten(c, low, llm_schema_json_get(object, "exclusiveMinimum"), true,
				true);
		tighten(c, high, llm_schema_json_get(object, "maximum"), false, false);
		tighten(c, high, llm_schema_json_get(object, "exclusiveMaximum"), true,
				false);
		tighten_by_format(c, llm_schema_json_get(object, "format"), low, high);
	}
}

bool
llm_schema_has_no_number(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	Bound low = { 0 };
	Bound high = { 0 };
	int order;

	collect_bounds(c, view, &low, &high);
	if (!low.is_set || !high.is_set || llm_grammar_failed(c->b))
		return false;
	order = compare_decimals(&low.value, &high.value);
	return order > 0 || (order == 0 && (low.exclusive || high.exclusive));
}

bool
llm_schema_is_number(LlmSchemaCompiler *c, const LlmSchemaView *view,
					 const LlmSchemaJson *value)
{
	Bound low = { 0 };
	Bound high = { 0 };
	Decimal own;
	Multiples m = { 0 };
	uint32_t rest = 0;
	int order;

	collect_bounds(c, view, &low, &high);
	collect_multiples(c, view, LLM_SCHEMA_ANY, &m);
	if (llm_grammar_failed(c->b) || !read_decimal(c, value, &own))
		return false;
	order = low.is_set ? compare_decimals(&own, &low.value) : 1;
	if (order < 0 || (order == 0 && low.exclusive))
		return false;
	order = high.is_set ? compare_decimals(&own, &high.value) : -1;
	if (order > 0 || (order == 0 && high.exclusive))
		return false;
	for (int i = 0; i < own.n_digits; i++)
		rest = add_digit(&m, rest, own.n_whole - 1 - i, own.digits[i] - '0');
	return is_rest_allowed(&m, rest);
}

bool
llm_schema_is_whole(LlmSchemaCompiler *c, const LlmSchemaJson *value)
{
	Decimal own;

	return read_decimal(c, value, &own) && own.n_digits <= own.n_whole;
}

int
llm_schema_compare_numbers(LlmSchemaCompiler *c, const LlmSchemaJson *left,
						   const LlmSchemaJson *right)
{
	Decimal l;
	Decimal r;

	return read_decimal(c, left, &l) && read_decimal(c, right, &r)
			   ? compare_decimals(&l, &r)
			   : 0;
}

LlmGrammarNodeId
llm_schema_build_number(LlmSchemaCompiler *c, const LlmSchemaView *view,
						uint32_t types, LlmGrammarNodeId next)
{
	Bound low = { 0 };
	Bound high = { 0 };
	Range r = { .c = c, .next = next };

	collect_bounds(c, view, &low, &high);
	collect_multiples(c, view, types, &r.multiples);
	if (llm_grammar_failed(c->b))
		return 0;
	r.n_fraction = r.multiples.n_fraction;
	if (!low.is_set && !high.is_set && r.multiples.n_items == 0)
		r.next = build_exponent(c->b, next);
	return build_range(&r, &low, &high);
}
