-- the chat functions; greedy answers are compared, not printed
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS llm_ext;
RESET client_min_messages;
-- a slot that was given up is free as soon as the scheduler has seen it
CREATE FUNCTION pg_temp.slots_in_use_soon() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	FOR i IN 1..1000 LOOP
		SELECT count(*) INTO n FROM llm.activity;
		EXIT WHEN n = 0;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN n;
END $$;
\set greedy '{"temperature": 0, "max_tokens": 24}'
SELECT llm_ask('Hello!', options => :'greedy') =
	   llm_chat('[{"role": "user", "content": "Hello!"}]', options => :'greedy') AS same;
SELECT llm_chat('{"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 24}') =
	   llm_ask('Hello!', options => :'greedy') AS same;
SELECT string_agg(piece, '') = llm_ask('Hello!', options => :'greedy') AS same
FROM llm_chat_stream('[{"role": "user", "content": "Hello!"}]', options => :'greedy') AS piece;
-- the template, then raw generation, is the same as a chat
SELECT llm_generate(llm_render('[{"role": "user", "content": "Hello!"}]'),
					options => '{"temperature": 0, "max_tokens": 24, "add_special_tokens": false}') =
	   llm_ask('Hello!', options => :'greedy') AS same;
-- seeds
SELECT llm_ask('Hello!', options => '{"temperature": 1.5, "seed": 7, "max_tokens": 16}') =
	   llm_ask('Hello!', options => '{"temperature": 1.5, "seed": 7, "max_tokens": 16}') AS same_seed;
SELECT count(DISTINCT llm_ask('Hello!', options => jsonb_build_object('temperature', 2, 'seed', s, 'max_tokens', 16))) > 1 AS seeds_differ
FROM generate_series(1, 8) s;
-- NULL in, NULL out
SELECT llm_chat(NULL) IS NULL, llm_ask(NULL) IS NULL, llm_generate(NULL) IS NULL, llm_completion(NULL) IS NULL;
SELECT count(*) FROM llm_chat_stream(NULL);
-- lengths
SELECT llm_count_tokens(llm_generate('once', options => '{"temperature": 0, "max_tokens": 5, "ignore_eos": true}'),
						'{"add_special_tokens": false}') <= 5 AS short;
-- stop strings cut the text in front of them
SELECT position('a' IN llm_ask('Hello!', options => '{"temperature": 0, "max_tokens": 24, "stop": ["a"]}')) AS without,
	   right(llm_ask('Hello!', options => '{"temperature": 0, "max_tokens": 24, "stop": "a", "include_stop_str_in_output": true}'), 1) AS with_stop;
-- LIMIT gives a stream up early, and its slot with it
SELECT count(*) FROM (SELECT llm_chat_stream('[{"role": "user", "content": "Hello!"}]',
	options => '{"temperature": 0, "max_tokens": 200, "ignore_eos": true}') LIMIT 2) s;
SELECT pg_temp.slots_in_use_soon();
-- a cursor
BEGIN;
DECLARE talk CURSOR FOR SELECT llm_chat_stream('[{"role": "user", "content": "Hello!"}]',
	options => '{"temperature": 0, "max_tokens": 2000, "ignore_eos": true}') AS piece;
MOVE 1 FROM talk;
SELECT count(*) AS slots_in_use FROM llm.activity WHERE pid = pg_backend_pid();
CLOSE talk;
COMMIT;
SELECT pg_temp.slots_in_use_soon();
-- errors in a subtransaction give slots back
DO $$
BEGIN
	FOR i IN 1..50 LOOP
		BEGIN
			PERFORM llm_ask('Hello!', options => '{"max_tokens": 1}') || (1 / 0)::text;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT pg_temp.slots_in_use_soon();
-- mistakes
SELECT llm_ask('x', 'some adapter');
SELECT llm_ask('x', options => '{"temprature": 1}');
SELECT llm_ask('x', options => '{"temperature": -1}');
SELECT llm_ask('x', options => '{"temperature": "hot"}');
SELECT llm_ask('x', options => '{"top_p": 0}');
SELECT llm_ask('x', options => '{"max_tokens": 0}');
SELECT llm_ask('x', options => '{"max_tokens": 1000000000}');
SELECT llm_ask('x', options => '{"min_tokens": 9, "max_tokens": 8}');
SELECT llm_ask('x', options => '{"stop": ""}');
SELECT llm_ask('x', options => '{"stop": [1]}');
SELECT llm_ask('x', options => '{"stop_token_ids": [-1]}');
SELECT llm_ask('x', options => '{"stop_token_ids": [1000000000], "max_tokens": 1}');
SELECT llm_ask('x', options => '{"logit_bias": {"x": 1}}');
SELECT llm_ask('x', options => '{"logit_bias": {"1": 101}}');
SELECT llm_ask('x', options => '{"logprobs": true}');
SELECT llm_ask('x', options => '{"n": 2}');
SELECT llm_ask('x', options => '[]');
SELECT llm_ask('x', options => '{"model": "nobody"}');
SELECT llm_ask('x', options => '{"on_error": "ignore"}');
SELECT llm_chat('{"prompt": "x"}');
SELECT llm_chat('{"messages": []}', options => '{"n": 1}');
SELECT llm_chat('"hello"');
-- prompts that do not fit: the error has both numbers
SELECT llm_ask(repeat('word ', 100000));
SELECT llm_ask(repeat('word ', 100000), options => '{"on_error": "null"}') IS NULL AS null_on_error;
-- a whole request: what is in it counts, or is refused
SELECT string_agg(piece, '') = llm_ask('Hello!', options => :'greedy') AS same
FROM llm_chat_stream('{"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 24, "stream": true}') AS piece;
SELECT llm_chat('{"messages": [{"role": "user", "content": "Hello!"}], "stream": true}');
SELECT llm_chat('{"messages": [{"role": "user", "content": "Hello!"}], "adapter": "a"}');
SELECT llm_chat('{"messages": [{"role": "user", "content": "Hello!"}], "prompt": "x"}');
-- numbers of any length
SELECT llm_ask('x', options => '{"temperature": 1e400}');
SELECT llm_ask('Hello!', options => '{"temperature": 1e-400, "max_tokens": 24}') = llm_ask('Hello!', options => :'greedy') AS same;
