/*
 * grammar_number.c
 *	  Numbers within bounds, digit by digit.
 *
 * Digits are compared with the bounds' as they come: while the text agrees
 * with a bound so far (tight), the next digit is limited by the bound's.
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
#define MAX_MULTIPLE 64

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

typedef struct Range
{
	LlmSchemaCompiler *c;
	Bound low; /* of the magnitude */
	Bound high;
	int n_whole;	/* digits before the point, in this pass */
	int n_fraction; /* most behind it */
	uint32_t multiple;
	LlmGrammarNodeId next;
	LlmGrammarNodeId *known; /* [position, tight low, tight high, remainder] */
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

static LlmGrammarNodeId build_digit(Range *r, int at, bool tight_low,
									bool tight_high, uint32_t remainder);

/* Behind the at-th digit: the end, the point, or more digits. */
static LlmGrammarNodeId
build_behind(Range *r, int at, bool tight_low, bool tight_high,
			 uint32_t remainder)
{
	LlmGrammarBuilder *b = r->c->b;
	LlmGrammarNodeId more;

	if (at < r->n_whole)
		return build_digit(r, at, tight_low, tight_high, remainder);
	more = at < r->n_whole + r->n_fraction
			   ? build_digit(r, at, tight_low, tight_high, remainder)
			   : 0;
	if (more != 0 && at == r->n_whole)
		more = llm_grammar_build_bytes(b, '.', '.', more);
	if (remainder % r->multiple != 0 || !may_end(r, at, tight_low, tight_high))
		return more != 0 ? more : llm_grammar_build_never(b);
	return more != 0 ? llm_grammar_build_or(b, more, r->next) : r->next;
}

static LlmGrammarNodeId
build_digit(Range *r, int at, bool tight_low, bool tight_high,
			uint32_t remainder)
{
	int low = tight_low ? digit_of(&r->low.value, r->n_whole, at) : 0;
	int high = tight_high ? digit_of(&r->high.value, r->n_whole, at) : 9;
	size_t place =
		(((size_t) at * 2 + tight_low) * 2 + tight_high) * r->multiple +
		remainder;
	uint32_t edges[20];
	size_t n = 0;

	if (r->known[place] != 0)
		return r->known[place];
	if (at == 0 && r->n_whole > 1 && low == 0)
		low = 1;
	for (int digit = low; digit <= high; digit++)
	{
		LlmGrammarNodeId target = build_behind(
			r, at + 1,
			tight_low && digit == digit_of(&r->low.value, r->n_whole, at),
			tight_high && digit == high,
			at < r->n_whole ? (remainder * 10 + (uint32_t) digit) % r->multiple
							: remainder);

		if (n > 0 && edges[2 * n - 1] == target)
			edges[2 * n - 2] =
				(edges[2 * n - 2] & 0xFFu) | (uint32_t) ('0' + digit) << 8;
		else
		{
			edges[2 * n] = (uint32_t) ('0' + digit) * 0x101u;
			edges[2 * n++ + 1] = target;
		}
	}
	r->known[place] = llm_grammar_build_edges(r->c->b, edges, n);
	return r->known[place];
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
	for (r->n_whole = low_whole < 1 ? 1 : low_whole; r->n_whole <= most;
		 r->n_whole++)
	{
		size_t n_places =
			(size_t) (r->n_whole + r->n_fraction + 1) * 4 * r->multiple;

		/* digits of a shorter bound are zeros in front: not tight */
		r->known = llm_grammar_alloc(r->c->b, n_places * sizeof(*r->known));
		if (r->known == NULL)
			return 0;
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

/* multipleOf: 10^-n bounds the fraction, a small integer the remainder. */
static void
apply_multiple(LlmSchemaCompiler *c, Range *r, const LlmSchemaJson *keyword)
{
	Decimal value;
	uint32_t whole = 0;

	if (keyword == NULL || !read_decimal(c, keyword, &value))
		return;
	if (!value.negative && value.n_whole == 0 && value.n_digits > 0 &&
		value.n_digits <= MAX_FRACTION &&
		is_zero_from(&value, 0, value.n_digits) &&
		value.digits[value.n_digits - 1] == '1' &&
		strspn(value.digits, "0") == (size_t) value.n_digits - 1)
	{
		if (value.n_digits < r->n_fraction)
			r->n_fraction = value.n_digits;
		return;
	}
	for (int i = 0; i < value.n_whole && whole <= MAX_MULTIPLE; i++)
		whole = whole * 10 + (uint32_t) (value.digits[i] - '0');
	if (value.negative || value.n_digits > value.n_whole || whole == 0 ||
		whole > MAX_MULTIPLE || (r->multiple > 1 && r->multiple != whole))
	{
		llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
						"is supported for integers up to 64 and for 0.1, 0.01 "
						"and so on, not for this value",
						keyword);
		return;
	}
	r->multiple = whole;
	r->n_fraction = 0;
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

LlmGrammarNodeId
llm_schema_build_number(LlmSchemaCompiler *c, const LlmSchemaView *view,
						bool is_integer, LlmGrammarNodeId next)
{
	Bound low = { 0 };
	Bound high = { 0 };
	Range r = { .c = c,
				.n_fraction = is_integer ? 0 : MAX_FRACTION,
				.multiple = 1,
				.next = next };
	bool is_free;

	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *object = view->objects[i];

		tighten(c, &low, llm_schema_json_get(object, "minimum"), false, true);
		tighten(c, &low, llm_schema_json_get(object, "exclusiveMinimum"), true,
				true);
		tighten(c, &high, llm_schema_json_get(object, "maximum"), false, false);
		tighten(c, &high, llm_schema_json_get(object, "exclusiveMaximum"), true,
				false);
		apply_multiple(c, &r, llm_schema_json_get(object, "multipleOf"));
	}
	if (llm_grammar_failed(c->b))
		return 0;
	is_free = !low.is_set && !high.is_set && r.n_fraction == MAX_FRACTION;
	if (is_free)
		r.next = build_exponent(c->b, next);
	return build_range(&r, &low, &high);
}
