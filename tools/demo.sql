-- demo.sql
--	What "make demo" shows.
--
-- tools/demo.sql

\echo
\echo '== A chat'
SELECT llm_chat('[{"role": "user", "content": "Hello! Who are you?"}]');

\echo '== The same, row by row as the tokens arrive'
\set FETCH_COUNT 1
SELECT llm_chat_stream('[{"role": "user", "content": "What can you do?"}]') AS piece;
\unset FETCH_COUNT

\echo '== A table of reviews, labelled by one UPDATE'
SET client_min_messages = warning;
DROP TABLE IF EXISTS reviews;
CREATE TABLE reviews (id int PRIMARY KEY, body text, sentiment text, topic text);
INSERT INTO reviews (id, body) VALUES
	(1, 'The battery dies after two hours. Very disappointing.'),
	(2, 'I love how light and comfortable these shoes are.'),
	(3, 'Delivery took three weeks and nobody answered my mails.'),
	(4, 'Great price for such a solid blender.'),
	(5, 'The screen is bright and the colors are wonderful.'),
	(6, 'It broke on the first day. I want my money back.'),
	(7, 'Customer support was friendly and solved it at once.'),
	(8, 'Far too expensive for what it does.');
UPDATE reviews SET
	sentiment = llm_ask('What is the sentiment of this review? ' || body),
	topic = llm_ask('What is the topic of this review? ' || body);
SELECT id, sentiment, topic, body FROM reviews ORDER BY id;

\echo '== Who is being served (this query runs while another one streams)'
BEGIN;
DECLARE talk CURSOR FOR
	SELECT llm_chat_stream('[{"role": "user", "content": "Tell me about yourself."}]');
FETCH 1 FROM talk;
SELECT * FROM llm.activity;
ROLLBACK;

\echo '== The processes that hold the models'
SELECT * FROM llm.executors;
