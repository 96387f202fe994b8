-- OpenAI requests and responses
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
CREATE FUNCTION pg_temp.keys(j jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(k, ' ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(j) k $$;
SELECT r->>'object' AS object, pg_temp.keys(r) AS keys, pg_temp.keys(r->'choices'->0) AS choice,
	   pg_temp.keys(r->'usage') AS usage, r->'choices'->0->'message'->>'role' AS role,
	   r->>'model' = (SELECT name FROM llm.models WHERE is_default) AS model, r->'choices'->0->>'logprobs' AS logprobs
FROM llm_completion('{"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 24}') r;
SELECT r->'choices'->0->'message'->>'content' = llm_ask('Hello!', options => '{"temperature": 0, "max_tokens": 24}') AS same
FROM llm_completion('{"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 24}') r;
-- text completions, from text and from ids
SELECT r->>'object' AS object, pg_temp.keys(r->'choices'->0) AS choice,
	   (r->'usage'->>'completion_tokens')::int AS n, r->'choices'->0->>'finish_reason' AS finish_reason
FROM llm_completion('{"prompt": "once upon", "temperature": 0, "ignore_eos": true}') r;
SELECT a->'choices'->0->>'text' = b->'choices'->0->>'text' AS same,
	   b->'prompt_token_ids' = to_jsonb(llm_tokenize('once upon')) AS same_ids
FROM llm_completion('{"prompt": "once upon", "temperature": 0}') a,
	 llm_completion(json_build_object('prompt', llm_tokenize('once upon'), 'temperature', 0, 'return_token_ids', true)) b;
-- usage adds up, and says what sampling was used
SELECT (u->>'prompt_tokens')::int + (u->>'completion_tokens')::int = (u->>'total_tokens')::int AS adds_up,
	   pg_temp.keys(u->'sampling') AS sampling, u->'sampling'->>'temperature' AS temperature,
	   u->'sampling'->>'seed' AS seed
FROM (SELECT llm_completion('{"prompt": "once", "temperature": 0.25, "seed": 11}')->'usage' AS u) s;
-- several choices
SELECT jsonb_array_length(r->'choices') AS n, r->'choices'->2->>'index' AS last_index,
	   r->'choices'->0->'token_ids' = llm_completion('{"prompt": "once", "seed": 5, "return_token_ids": true, "ignore_eos": true}')->'choices'->0->'token_ids' AS first_as_alone,
	   r->'choices'->1->'token_ids' = llm_completion('{"prompt": "once", "seed": 6, "return_token_ids": true, "ignore_eos": true}')->'choices'->0->'token_ids' AS second_as_alone
FROM llm_completion('{"prompt": "once", "seed": 5, "n": 3, "return_token_ids": true, "ignore_eos": true}') r;
-- logprobs: chat shape
SELECT count(*) = (r->'usage'->>'completion_tokens')::int AS one_each,
	   bool_and((e->>'logprob')::float8 <= 0) AS not_positive,
	   bool_and(jsonb_array_length(e->'top_logprobs') = 5) AS five,
	   bool_and(e->'top_logprobs'->0->>'token' = e->>'token') AS greedy_is_first,
	   bool_and((SELECT sum(exp((t->>'logprob')::float8)) FROM jsonb_array_elements(e->'top_logprobs') t) <= 1.0001) AS sum_at_most_one
FROM llm_completion('{"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 12, "logprobs": true, "top_logprobs": 5, "return_token_ids": true}') r,
	 jsonb_array_elements(r->'choices'->0->'logprobs'->'content') e
GROUP BY r;
-- logprobs: text shape
SELECT pg_temp.keys(l) AS keys, jsonb_array_length(l->'tokens') AS n
FROM (SELECT llm_completion('{"prompt": "once", "temperature": 0, "max_tokens": 4, "ignore_eos": true, "logprobs": 2}')->'choices'->0->'logprobs' AS l) s;
-- logit_bias, stop_token_ids, min_tokens
SELECT r->'choices'->0->'token_ids' AS only_one_id
FROM llm_completion('{"prompt": [5, 6, 7], "temperature": 0, "max_tokens": 3, "ignore_eos": true, "logit_bias": {"9": 100}, "return_token_ids": true}') r;
SELECT r->'choices'->0->>'finish_reason' AS finish_reason, r->'choices'->0->>'stop_reason' AS stop_reason,
	   r->'usage'->>'completion_tokens' AS n
FROM llm_completion('{"prompt": [5, 6, 7], "temperature": 0, "max_tokens": 8, "logit_bias": {"9": 100}, "stop_token_ids": [9]}') r;
SELECT r->'usage'->>'completion_tokens' AS n, r->'choices'->0->>'finish_reason' AS finish_reason
FROM llm_completion('{"prompt": [5, 6, 7], "temperature": 0, "max_tokens": 4, "min_tokens": 4, "logit_bias": {"9": 100}, "stop_token_ids": [9]}') r;
SET llm_ext.enable_batching = off;
-- the second time, the prompt comes from the prefix cache
SELECT (llm_completion(json_build_object('prompt', repeat('once upon a time ', 20), 'max_tokens', 1))->'usage'->'prompt_tokens_details'->>'cached_tokens')::int >= 0 AS first,
	   (llm_completion(json_build_object('prompt', repeat('once upon a time ', 20), 'max_tokens', 1))->'usage'->'prompt_tokens_details'->>'cached_tokens')::int >= 16 AS second,
	   (llm_completion(json_build_object('prompt', repeat('once upon a time ', 20), 'max_tokens', 1, 'cache_salt', 'mine'))->'usage'->'prompt_tokens_details'->>'cached_tokens')::int AS salted;
RESET llm_ext.enable_batching;
-- mistakes
SELECT llm_completion('{}');
SELECT llm_completion('[]');
SELECT llm_completion('{"messages": [], "prompt": "x"}');
SELECT llm_completion('{"prompt": [1, "x"]}');
SELECT llm_completion('{"prompt": [1000000000]}');
SELECT llm_completion('{"prompt": []}');
SELECT llm_completion('{"prompt": 7}');
SELECT llm_completion('{"prompt": "x", "stream": true}');
SELECT llm_completion('{"prompt": "x", "best_of": 3}');
SELECT llm_completion('{"prompt": "x", "n": 0}');
SELECT llm_completion('{"prompt": "x", "logprobs": 21}');
SELECT llm_completion('{"prompt": "x", "response_format": {"type": "grammar"}}');
SELECT llm_completion('{"prompt": "x", "adapter": "a"}');
SELECT llm_completion('{"messages": "x"}');
-- of equal keys the last counts, as everywhere in PostgreSQL; keys may be written with escapes
SELECT llm_completion('{"prompt": "x", "max_tokens": 1, "prompt": "once", "max_tokens": 3, "ignore_eos": true, "return_token_ids": true}') @>
	   jsonb_build_object('usage', '{"completion_tokens": 3}'::jsonb, 'prompt_token_ids', llm_tokenize('once')) AS last;
SELECT llm_completion(E' \n{\t"pr\\u006fmpt"\r:\n"once" , "max_\\u0074okens" : 2 , "stop" : [ "]", "}\\"{" ] , "ignore_eos":true} ') @>
	   '{"usage": {"completion_tokens": 2}}' AS escaped;
SELECT llm_completion('{"prompt": "x", "tools": [{"prompt": 1, "]": "}"}], "max_tokens": 2, "ignore_eos": true}') @>
	   '{"usage": {"completion_tokens": 2}}' AS nested;
-- a string must not end where nobody sees it
SELECT llm_completion('{"prompt": "once\u0000 upon"}');
SELECT llm_completion('{"prompt": "x", "stop": ["a\u0000b"]}');
SELECT llm_completion('{"prompt": "x\\u0000", "max_tokens": 1}') IS NOT NULL AS no_escape;
-- what is only in messages is the template's business
SELECT llm_completion('{"messages": [{"role": "user", "content": "Hi", "x": 0.1234567890123456789012345678901234567890123456789012345678901234567890}], "max_tokens": 1}') IS NOT NULL AS long_number;
-- a seed that was drawn can be given again
SELECT a->'choices'->0->>'text' =
	   llm_completion(json_build_object('prompt', 'once', 'temperature', 2, 'seed', a->'usage'->'sampling'->'seed'))->'choices'->0->>'text' AS same
FROM (SELECT llm_completion('{"prompt": "once", "temperature": 2}') AS a OFFSET 0) s;
-- choices that fail give all slots back
SELECT llm_completion('{"prompt": "x", "n": 4, "max_tokens": 2000, "ignore_eos": true, "timeout_ms": 1, "on_error": "null"}') IS NULL AS failed;
