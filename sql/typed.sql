-- answers of a given form
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
-- labels
SELECT llm_classify('I love it, works great.', ARRAY['positive', 'negative', 'neutral']) AS a,
	   llm_classify('Broke after one day. Terrible.', ARRAY['positive', 'negative', 'neutral']) AS b,
	   llm_classify('The battery dies after an hour.', ARRAY['battery', 'price', 'size']) AS c;
SELECT llm_classify('I love it', ARRAY['only']) AS one, llm_classify('I love it', ARRAY['größer', 'größer als']) IN ('größer', 'größer als') AS prefix,
	   llm_classify(NULL, ARRAY['a']) AS no_input, llm_classify('x', NULL) AS no_labels;
-- whatever the temperature
SELECT count(*) AS n, bool_and(c IN ('positive', 'negative', 'neutral')) AS all_of_them
FROM (SELECT llm_classify('Text ' || i, ARRAY['positive', 'negative', 'neutral'], options => '{"temperature": 2}') AS c FROM generate_series(1, 30) i) s;
SELECT llm_classify('x', '{}');
SELECT llm_classify('x', ARRAY['a', NULL]);
SELECT llm_classify('x', ARRAY['a', '']);
SELECT llm_classify('x', ARRAY['a'], options => '{"guided_regex": "x"}');
SELECT llm_classify('x', ARRAY['a'], options => '{"labels": 3}');
-- conditions
SELECT llm_filter('The customer is unhappy.', 'Broke after one day. Terrible.') AS yes,
	   llm_filter('The customer is unhappy.', 'I love it, works great.') AS no,
	   llm_filter(NULL, 'x') AS no_condition, llm_filter('x', NULL) AS no_input;
-- NULL, and no row, where it could not be decided
SELECT llm_filter('The customer is unhappy.', repeat('bad ', 5000)) AS too_long;
SELECT count(*) FROM (VALUES (repeat('bad ', 5000))) v(body) WHERE llm_filter('The customer is unhappy.', body);
SELECT llm_filter('The customer is unhappy.', repeat('bad ', 5000), options => '{"on_error": "error"}');
-- scores
SELECT llm_score('The customer is happy.', 'I love it, works great.') > 0.9 AS high,
	   llm_score('The customer is happy.', 'Broke after one day. Terrible.') < 0.1 AS low,
	   llm_score('x', NULL) AS no_input;
SELECT bool_and(s BETWEEN 0 AND 1) AS in_range, bool_and((s > 0.5) = llm_filter('The customer is happy.', body)) AS as_filter
FROM (SELECT body, llm_score('The customer is happy.', body) AS s
	  FROM (VALUES ('Great.'), ('Bad.'), ('It is a lamp.'), ('Where is my order?')) v(body)) t;
-- JSON by a schema; json keeps the order of members
SELECT llm_extract('I ordered the Aero lamp to Berlin, it cost 20 dollars.', '{"type": "object", "properties": {"product": {"type": "string"}, "city": {"type": ["string", "null"]}, "price": {"type": ["number", "null"]}}, "required": ["product", "city", "price"]}');
SELECT llm_extract('x', '{"const": 7}'::json) AS json, llm_extract('x', '{"const": 7}'::jsonb) AS jsonb;
SELECT jsonb_typeof(llm_extract('Two lamps', '{"type": "array", "items": {"type": "integer", "minimum": 2, "maximum": 7}, "minItems": 1, "maxItems": 3}'::jsonb)) AS type;
SELECT llm_extract(NULL, '{}'::jsonb) AS no_input, llm_extract('x', NULL::jsonb) AS no_schema;
SELECT llm_extract('x', '{"type": "object", "$dynamicRef": "#"}'::jsonb);
SELECT llm_extract('x', '{"type": "whatever"}'::jsonb);
SELECT llm_extract('x'::text, '{"type": "object", "x"}');
-- cut answers are no answers
SELECT llm_extract('x', '{"type": "array", "items": {"const": "long"}, "minItems": 50}'::jsonb, options => '{"max_tokens": 5}');
SELECT llm_extract('x', '{"type": "array", "items": {"const": "long"}, "minItems": 50}'::jsonb, options => '{"max_tokens": 5, "on_error": "null"}');
-- SQL types
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN stars AS int CHECK (VALUE BETWEEN 1 AND 5);
CREATE DOMAIN plate AS varchar(8) NOT NULL CHECK (VALUE ~ '^[A-Z]{2}-[0-9]{3}$');
CREATE DOMAIN size AS text CHECK (VALUE IN ('S', 'M', 'L'));
CREATE DOMAIN short AS text CHECK (length(VALUE) >= 2 AND length(VALUE) < 6);
CREATE TYPE place AS (city text, zip numeric(5));
CREATE TYPE review AS (product text, mood mood, stars stars, ordered date, price numeric(8, 2), tags varchar(10)[], sent place, good boolean);
SELECT (r).product, (r).stars FROM llm_extract('I ordered the Aero lamp on 3 May 2024 to Berlin, it cost 20 dollars. 4 of 5 stars.', NULL::review) r;
SELECT pg_typeof(llm_extract('x', NULL::review)) AS composite, pg_typeof(llm_extract('x', NULL::int[])) AS "array";
-- drawn at random: the types take all of them
SELECT count(*) AS n,
	   bool_and(a BETWEEN 1 AND 5) AS stars, bool_and(p::text ~ '^[A-Z]{2}-[0-9]{3}$') AS plate, bool_and(z IN ('S', 'M', 'L')) AS size,
	   bool_and(length(h) BETWEEN 2 AND 5) AS short, bool_and(d = d::date) AS date, bool_and(scale(n) <= 2) AS numeric, count(i) >= 0 AS int2
FROM (SELECT llm_extract('x', NULL::stars, options => o) AS a, llm_extract('x', 'AA-111'::plate, options => o) AS p,
			 llm_extract('x', NULL::size, options => o) AS z, llm_extract('x', NULL::short, options => o) AS h,
			 llm_extract('x', NULL::date, options => o) AS d, llm_extract('x', NULL::numeric(6, 2), options => o) AS n,
			 llm_extract('x', NULL::int2, options => o) AS i, llm_extract('x', NULL::mood, options => o) AS m,
			 llm_extract('x', NULL::timestamptz, options => o) AS t, llm_extract('x', NULL::uuid, options => o) AS u,
			 llm_extract('x', NULL::interval, options => o) AS v, llm_extract('x', NULL::boolean, options => o) AS b,
			 llm_extract('x', NULL::real, options => o) AS r, llm_extract('x', NULL::time, options => o) AS w
	  FROM (SELECT jsonb_build_object('temperature', 2, 'seed', i, 'max_tokens', 200) AS o FROM generate_series(1, 12) i) s) t;
-- what only the type itself can tell
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
SET client_min_messages = error;
SELECT bool_and(e % 2 = 0) AS even, count(e) BETWEEN 1 AND 29 AS some_refused
FROM (SELECT llm_extract('x', 2::even, options => jsonb_build_object('temperature', 2, 'seed', i, 'on_error', 'null')) AS e FROM generate_series(1, 30) i) s;
RESET client_min_messages;
SELECT llm_extract('x', NULL::record);
SELECT llm_extract('x'::text, 'y'::text);
-- every form that options know
SELECT llm_ask('hi', options => '{"guided_choice": ["left", "right"]}') IN ('left', 'right') AS choice,
	   llm_ask('hi', options => '{"guided_regex": "[0-9]{3}-[a-c]{2}"}') ~ '^[0-9]{3}-[a-c]{2}$' AS regex,
	   llm_ask('hi', options => '{"guided_grammar": "root ::= \"<\" [a-f]{4} \">\""}') ~ '^<[a-f]{4}>$' AS grammar,
	   llm_ask('hi', options => '{"guided_json": {"type": "integer", "minimum": 10, "maximum": 12}}')::int BETWEEN 10 AND 12 AS json,
	   llm_ask('hi', options => '{"guided_json": "{\"type\": \"boolean\"}"}') IN ('true', 'false') AS json_text,
	   llm_ask('hi', options => '{"structured_outputs": {"regex": "ab?c"}}') IN ('ac', 'abc') AS structured,
	   llm_ask('hi', options => '{"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": {"const": "c"}}}}') AS response_format;
SELECT jsonb_typeof(llm_ask('Extract product and city as JSON: "The lamp came to Oslo."', options => '{"response_format": {"type": "json_object"}}')::jsonb) AS json_object;
SELECT llm_ask('hi', options => '{"guided_choice": ["a"], "guided_regex": "b"}');
SELECT llm_ask('hi', options => '{"guided_choice": []}');
SELECT llm_ask('hi', options => '{"guided_choice": [1]}');
SELECT llm_ask('hi', options => '{"guided_regex": "a(?=x)"}');
SELECT llm_ask('hi', options => '{"guided_grammar": "start ::= \"x\""}');
SELECT llm_ask('hi', options => '{"structured_outputs": {"regexp": "x"}}');
SELECT llm_ask('hi', options => '{"response_format": {"type": "json_schema"}}');
SELECT llm_ask('hi', options => '{"response_format": {"type": "json_schema", "json_schema": {"schemas": {}}}}');
SELECT llm_ask('hi', options => '{"response_format": {"type": "json_schema", "json_schema": {"schema": {"$dynamicRef": "#"}}}}');
-- several choices, logprobs
SELECT bool_and(c->'message'->>'content' IN ('red', 'green')) AS of_the_choice
FROM jsonb_array_elements(llm_completion('{"messages": [{"role": "user", "content": "A colour?"}], "n": 4, "temperature": 1.5, "logprobs": true, "guided_choice": ["red", "green"]}')->'choices') c;
-- tools: each convention's calls, spoken by a model that has no choice
CREATE FUNCTION pg_temp.answer(said text, more json DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
	SELECT llm_completion((jsonb_build_object(
		'messages', '[{"role": "user", "content": "Weather?"}]'::jsonb,
		'tools', '[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"], "$defs": {"city": {"enum": ["Oslo", "Rome"]}}}}},
				   {"type": "function", "function": {"name": "ping"}}]'::jsonb)
		|| CASE WHEN said IS NULL THEN '{}' ELSE jsonb_build_object('guided_choice', jsonb_build_array(said)) END || more::jsonb)::json)->'choices'->0
$$;
CREATE FUNCTION pg_temp.calls(choice jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', choice->>'finish_reason', 'content', coalesce(quote_literal(choice->'message'->>'content'), 'null'), (
		SELECT string_agg((c->'function'->>'name') || '(' || (c->'function'->>'arguments') || ')' || CASE WHEN c->>'id' ~ '^call_[0-9a-f]{16}$' AND c->>'type' = 'function' THEN '' ELSE '?' END, ' ')
		FROM jsonb_array_elements(choice->'message'->'tool_calls') c))
$$;
SELECT pg_temp.calls(pg_temp.answer(said)) AS calls FROM (VALUES
	(E'<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
	(E'Let me see. <tool_call>{"name": "ping", "arguments": {}}</tool_call>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'),
	('[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "ping", "arguments": {}}]'),
	('[TOOL_CALLS]get_weather{"city": "Oslo"}[TOOL_CALLS]ping[ARGS]{}'),
	('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}; {"name": "ping", "parameters": {}}'),
	('{"name": "get_weather", "parameters": "{\"city\": \"Oslo\"}"}'),
	-- no calls: unknown, incomplete, talk about JSON
	('{"name": "other", "parameters": {}}'),
	(E'<tool_call>\n{"name": "ping", "arguments"'),
	('{"name": "ping", "parameters": {}} is how you call it'),
	('[1, 2]'), ('ping'), ('Just text.')) v(said);
SELECT pg_temp.calls(pg_temp.answer('{"name": "ping"}; {"name": "ping"}', '{"parallel_tool_calls": false}')) AS first_only,
	   pg_temp.calls(pg_temp.answer('{"name": "ping"}', '{"tool_choice": "none"}')) AS none;
-- forced
SELECT bool_and(c->>'finish_reason' = 'tool_calls' AND c->'message'->'content' = 'null') AS called,
	   bool_and(f->>'name' = 'get_weather' AND (f->>'arguments')::jsonb->>'city' IN ('Oslo', 'Rome')) AS as_named
FROM generate_series(1, 5) i, LATERAL (SELECT pg_temp.answer(NULL, json_build_object('temperature', 1.5, 'seed', i, 'tool_choice', '{"type": "function", "function": {"name": "get_weather"}}'::json)) AS c) s,
	 LATERAL (SELECT c->'message'->'tool_calls'->0->'function' AS f) t;
SELECT bool_and((SELECT count(*) FROM jsonb_array_elements(c->'message'->'tool_calls')) = 1) AS one_call
FROM generate_series(1, 3) i, LATERAL (SELECT pg_temp.answer(NULL, json_build_object('temperature', 1, 'seed', i, 'tool_choice', 'required', 'parallel_tool_calls', false)) AS c) s
WHERE c->>'finish_reason' = 'tool_calls';
SELECT pg_temp.answer('x', '{"tool_choice": "required"}');
SELECT pg_temp.answer(NULL, '{"tool_choice": {"type": "function", "function": {"name": "other"}}}');
SELECT pg_temp.answer(NULL, '{"tool_choice": "perhaps"}');
SELECT llm_completion('{"messages": [], "tool_choice": "required"}');
SELECT llm_completion('{"messages": [], "tools": [{"name": 3}], "tool_choice": "required"}');
-- aggregates: what one prompt holds, many parts, one long text, in parallel
SELECT llm_agg(b, 'Count the texts.') IS NOT NULL AS one FROM (VALUES ('I love it.'), (NULL), ('Great lamp.')) v(b);
SELECT llm_agg(b, 'Count the texts.') AS none FROM (VALUES (NULL::text), ('')) v(b);
SELECT llm_agg(b, i) FROM (VALUES ('a', 'x'), ('b', 'y')) v(b, i);
SELECT g, llm_agg(b, 'What is the sentiment of the review?') IS NOT NULL AS grouped
FROM (SELECT i % 2 AS g, 'The lamp number ' || i || ' works great and I love it.' AS b FROM generate_series(1, 300) i) s GROUP BY g ORDER BY g;
SELECT llm_agg(repeat('The lamp works great. ', 1500), 'What is the sentiment of the review?') IS NOT NULL AS one_long_text;
SELECT llm_agg(repeat('x', 9000), 'What is it?') IS NOT NULL AS no_spaces;
CREATE TABLE reviews AS SELECT 'The lamp number ' || i || ' works great.' AS b FROM generate_series(1, 400) i;
ALTER TABLE reviews SET (parallel_workers = 2);
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT llm_agg(b, 'What is the sentiment?') FROM reviews;
SELECT llm_agg(b, 'What is the sentiment?') IS NOT NULL AS in_parallel FROM reviews;
SELECT llm_agg(b, repeat('Do it. ', 1000)) FROM reviews;
