/*
 * jinja_format.h
 *	  How a value is set in a field: what both ways of formatting share.
 *
 * Widths and precisions are bounded, for a template may ask for anything.
 *
 * src/common/template/jinja_format.h
 */
#ifndef LLM_JINJA_FORMAT_H
#define LLM_JINJA_FORMAT_H

#include "src/common/template/jinja_object.h"

#define LLM_JINJA_MAX_WIDTH 100000
#define LLM_JINJA_MAX_PRECISION 1000

typedef struct LlmJinjaSpec
{
	char fill[4]; /* one character */
	int fill_len;
	char align; /* '<', '>', '^', '=', or NUL for the type's own */
	char sign;	/* '+', ' ', or NUL */
	bool alternate;
	bool grouped;
	char group; /* ',' or '_' */
	int64_t width;
	int64_t precision; /* -1: not given */
	char type;		   /* NUL: not given */
} LlmJinjaSpec;


/* No width, no precision, no type. */
extern const LlmJinjaSpec llm_jinja_plain_spec;

extern bool llm_jinja_format_int(LlmJinjaRun *run, LlmJinjaValue value,
								 const LlmJinjaSpec *spec, LlmStrbuf *buf);
extern void
llm_jinja_format_float(double real, const LlmJinjaSpec *spec, LlmStrbuf *buf);
extern bool llm_jinja_format_char(LlmJinjaRun *run, LlmJinjaValue value,
								  const LlmJinjaSpec *spec, LlmStrbuf *buf);

/* A text cut to the precision and set in its field, by default on "align". */
extern void
llm_jinja_format_text(const LlmJinjaString *text, const LlmJinjaSpec *spec,
					  char align, LlmStrbuf *buf);

/* What !s, !r, !a or %s, %r, %a make of a value. */
extern bool llm_jinja_convert(LlmJinjaRun *run, LlmJinjaValue value,
							  char conversion, LlmJinjaValue *out);

/* A number as a float; an error where it is none. */
extern bool
llm_jinja_to_real(LlmJinjaRun *run, LlmJinjaValue value, double *real);

#endif /* LLM_JINJA_FORMAT_H */
