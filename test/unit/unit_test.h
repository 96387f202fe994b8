/*
 * unit_test.h
 *	  The few macros that unit tests need.
 *
 * A test program calls TEST(name) { ... } functions through RUN_TEST and ends
 * with "return unit_test_finish();", which prints the line that the test
 * runner adds up.  A failed CHECK reports and goes on; a failed REQUIRE also
 * leaves the test function.  CHECKs are counted per test: a test passes when
 * none failed.
 *
 * test/unit/unit_test.h
 */
#ifndef LLM_UNIT_TEST_H
#define LLM_UNIT_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int unit_passed;
static int unit_failed;
static int unit_skipped;
static int unit_check_failures;

#define CHECK_FAIL(...)                                                     \
	(unit_check_failures++, fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), \
	 fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

#define CHECK(cond)                          \
	do                                       \
	{                                        \
		if (!(cond))                         \
			CHECK_FAIL("failed: %s", #cond); \
	} while (0)

#define REQUIRE(cond)                        \
	do                                       \
	{                                        \
		if (!(cond))                         \
		{                                    \
			CHECK_FAIL("failed: %s", #cond); \
			return;                          \
		}                                    \
	} while (0)

#define CHECK_INT_EQ(actual, expected)                                \
	do                                                                \
	{                                                                 \
		long long a_ = (long long) (actual);                          \
		long long e_ = (long long) (expected);                        \
		if (a_ != e_)                                                 \
			CHECK_FAIL("%s is %lld, expected %lld", #actual, a_, e_); \
	} while (0)

#define CHECK_STR_EQ(actual, expected)                                    \
	do                                                                    \
	{                                                                     \
		const char *a_ = (actual);                                        \
		const char *e_ = (expected);                                      \
		if (strcmp(a_, e_) != 0)                                          \
			CHECK_FAIL("%s is \"%s\", expected \"%s\"", #actual, a_, e_); \
	} while (0)

#define RUN_TEST(function)                              \
	do                                                  \
	{                                                   \
		unit_check_failures = 0;                        \
		function();                                     \
		if (unit_check_failures == 0)                   \
			unit_passed++;                              \
		else                                            \
		{                                               \
			unit_failed++;                              \
			fprintf(stderr, "not ok: %s\n", #function); \
		}                                               \
	} while (0)

static inline void
unit_test_skip(const char *name, const char *reason)
{
	unit_skipped++;
	fprintf(stderr, "skipped: %s: %s\n", name, reason);
}

static inline int
unit_test_finish(void)
{
	printf("%d passed, %d failed, %d skipped\n", unit_passed, unit_failed,
		   unit_skipped);
	return unit_failed == 0 ? 0 : 1;
}

#endif /* LLM_UNIT_TEST_H */
