-- Adapters (here none: the base model) on a query's rows.

CREATE TABLE exam (id int, question text, answer text, wrong text);
INSERT INTO exam VALUES
	(1, 'Classify the review as praise, bug or question: I love it.', 'praise', 'bug'),
	(2, 'Classify the review as praise, bug or question: The app crashes when I open it.', 'bug', 'praise'),
	(3, 'Classify the review as praise, bug or question: How do I start it?', 'question', 'bug'),
	(4, 'Classify the review as praise, bug or question: I hate waiting.', '', 'bug'),
	(5, NULL, 'praise', 'bug');

-- Log-probabilities only; a row that cannot be converted says why.
SELECT row_number, key, n_labels > 0 AS has_labels, log_prob < 0 AS has_log_prob,
	   rejected_log_prob, expected, answer, score, reason
FROM llm_evaluate_rows(NULL,
	'SELECT id, question AS prompt, answer AS completion FROM exam ORDER BY id');

-- With answers; equal but for spaces around them.
SELECT row_number, expected, answer = btrim(expected) AS is_equal, score
FROM llm_evaluate_rows('', $$
	SELECT jsonb_build_array(
		jsonb_build_object('role', 'user', 'content', question),
		jsonb_build_object('role', 'assistant', 'content', answer)) AS messages
	FROM exam WHERE id <= 3 ORDER BY id$$, '{"score": "exact_match"}');

-- Pairs: which of two is more probable.
CREATE VIEW pairs AS
SELECT id, jsonb_build_array(
		jsonb_build_object('role', 'user', 'content', question)) AS prompt,
	   jsonb_build_array(
		jsonb_build_object('role', 'assistant', 'content', answer)) AS chosen,
	   jsonb_build_array(
		jsonb_build_object('role', 'assistant', 'content', wrong)) AS rejected
FROM exam WHERE id <= 3;
SELECT n_rows, n_failed, n_labels > 0 AS has_labels, loss > 0 AS has_loss,
	   perplexity >= 1 AS has_perplexity, round(accuracy::numeric, 2) AS accuracy, score, n_scored
FROM llm_evaluate(NULL, 'SELECT prompt, chosen, rejected FROM pairs');
SELECT n_rows, n_failed, round(accuracy::numeric, 2) AS accuracy, score, n_scored
FROM llm_evaluate(NULL, 'SELECT prompt, rejected AS chosen, chosen AS rejected FROM pairs',
	'{"score": "exact_match"}');

-- Single examples with a verdict: undesirable ones are no answers to compare with.
SELECT row_number, expected, score
FROM llm_evaluate_rows(NULL,
	'SELECT prompt, chosen AS completion, id <> 2 AS label FROM pairs ORDER BY id',
	'{"score": "exact_match"}');

-- The other scores.
CREATE VIEW talk AS
SELECT id, prompt || chosen AS messages FROM pairs;
SELECT round(score::numeric, 2) AS score, n_scored FROM llm_evaluate(NULL, 'SELECT messages FROM talk',
	'{"score": "regex", "pattern": "^[a-z]"}');
SELECT round(score::numeric, 2) AS score, n_scored FROM llm_evaluate(NULL, 'SELECT messages FROM talk',
	'{"score": "regex", "pattern": "^[A-Z]"}');
SELECT round(score::numeric, 2) AS score, n_scored FROM llm_evaluate(NULL, 'SELECT messages FROM talk',
	'{"score": "json_match"}');
SELECT round(score::numeric, 2) AS score, n_scored FROM llm_evaluate(NULL, 'SELECT id, messages FROM talk',
	'{"score": "sql", "expression": "answer = expected OR (key->>''id'')::int = 2"}');
SELECT round(score::numeric, 2) AS score, n_scored FROM llm_evaluate(NULL, 'SELECT id, messages FROM talk',
	'{"score": "sql", "expression": "nullif((key->>''id'')::int, 2)"}');
SELECT round(score::numeric, 2) AS score FROM llm_evaluate(NULL, 'SELECT messages FROM talk',
	'{"score": "exact_match", "generate": {"max_tokens": 1, "min_tokens": 1}}');

-- A model compared with itself is nowhere better.
SELECT adapter, n_rows, n_failed, accuracy, round(score::numeric, 2) AS score, n_better
FROM llm_compare_adapters(NULL, '', 'SELECT messages FROM talk', '{"score": "exact_match"}');
SELECT adapter, n_rows, n_better
FROM llm_compare_adapters(NULL, '', 'SELECT prompt, chosen, rejected FROM pairs');

-- More rows than there are slots.
SELECT count(*), count(DISTINCT log_prob) <= 3 AS is_same, min(row_number), max(row_number),
	   count(reason)
FROM llm_evaluate_rows(NULL, 'SELECT messages FROM talk, generate_series(1, 100)');

-- Mistakes.
SELECT * FROM llm_evaluate('nobody', 'SELECT messages FROM talk');
SELECT * FROM llm_evaluate(NULL, 'SELECT id FROM talk');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"score": "best"}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"score": "regex"}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"expression": "1"}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"generate": {}}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"score": "exact_match", "train_on_prompt": true}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"score": "exact_match", "generate": {"adapter": "other"}}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"val_size": 0.5}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"stage": "dpo"}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '[]');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages, 1 / (id - 2) FROM talk ORDER BY id');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"score": "sql", "expression": "now()"}');
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk', '{"score": "sql", "expression": "1 UNION SELECT 2"}');
SELECT * FROM llm_evaluate(NULL, NULL);
SELECT * FROM llm_evaluate(NULL, 'SELECT messages FROM talk WHERE false');

DROP TABLE exam CASCADE;
