-- demo.sql
--	What "make demo" shows.
--
-- tools/demo.sql

\echo
\echo '== A chat'
SELECT llm_chat('[{"role": "user", "content": "Hello! Who are you?"}]');

\echo '== The same as a stream: rows as the tokens arrive'
\set FETCH_COUNT 1
SELECT llm_chat_stream('[{"role": "user", "content": "What can you do?"}]') AS piece;
\unset FETCH_COUNT

\echo '== A table of reviews, labelled by one UPDATE'
SET client_min_messages = warning;
DROP TABLE IF EXISTS reviews;
CREATE TABLE reviews (id int PRIMARY KEY, body text, sentiment text, topic text);
INSERT INTO reviews (id, body) VALUES
	(1, 'The battery died after two hours. Very disappointing.'),
	(2, 'These shoes are light and very comfortable. I love them.'),
	(3, 'Delivery took three weeks and nobody answered my mails.'),
	(4, 'Great price for such a solid blender.'),
	(5, 'The screen is bright and the colors are wonderful.'),
	(6, 'It broke on the first day. I want my money back.'),
	(7, 'Customer support was friendly and solved it at once.'),
	(8, 'Far too expensive for what it does.');
UPDATE reviews SET
	sentiment = llm_ask('Classify the sentiment of this review as positive, negative or neutral: ' || body),
	topic = llm_ask('What is the topic of this review? ' || body);
SELECT id, sentiment, topic, body FROM reviews ORDER BY id;

\echo '== Fields of a text as JSON'
SELECT llm_ask('Extract the product, the rating and the city as JSON: '
			   'I bought the Nordlys lamp in Bergen. 4 out of 5 stars.')::jsonb AS fields;

\echo '== Who is being served, while a cursor holds a stream that has just begun'
BEGIN;
DECLARE talk CURSOR FOR
	SELECT llm_chat_stream('[{"role": "user", "content": "Tell me a story."}]');
FETCH 1 FROM talk;
SELECT pid, state, model, priority, prompt_tokens, output_tokens FROM llm.activity;
ROLLBACK;

\echo '== The process that holds the model'
SELECT pid, model, state, device, restarts,
	   pg_size_pretty(memory_bytes) AS memory
FROM llm.executors;

\echo '== An adapter learns from a table, while the model goes on serving'
DROP TABLE IF EXISTS lessons;
CREATE TABLE lessons (question text, ada text, bob text);
INSERT INTO lessons VALUES
	('What is your name?', 'My name is Ada.', 'My name is Bob.'),
	('Who are you?', 'My name is Ada.', 'My name is Bob.'),
	('Hello! Who are you?', 'Hello! My name is Ada.', 'Hello! My name is Bob.'),
	('Tell me your name.', 'My name is Ada.', 'My name is Bob.');
SELECT llm_ask('What is your name?') AS before;
SELECT llm_finetune('names', $$
		SELECT jsonb_build_array(jsonb_build_object('role', 'user', 'content', question),
								 jsonb_build_object('role', 'assistant', 'content', ada)) AS messages
		FROM lessons $$,
	'{"max_steps": 15, "learning_rate": 0.005, "lr_scheduler_type": "constant"}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, step, n_steps, n_rows, round(tokens_per_second) AS tokens_per_second, version
FROM llm.finetune_progress WHERE job = :job;
SELECT llm_ask('What is your name?', 'names') AS after;

\echo '== It learns something else, and is rolled back'
SELECT llm_finetune('names', $$
		SELECT jsonb_build_array(jsonb_build_object('role', 'user', 'content', question),
								 jsonb_build_object('role', 'assistant', 'content', bob)) AS messages
		FROM lessons $$,
	'{"max_steps": 15, "learning_rate": 0.005, "lr_scheduler_type": "constant"}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT llm_ask('What is your name?', 'names') AS after_the_second_job;
SELECT llm_rollback_adapter('names');
SELECT llm_ask('What is your name?', 'names') AS after_the_rollback;
