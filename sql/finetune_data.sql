-- finetune_data.sql
--	Datasets out of queries: what is recognized, what is learned, what is bad.
--
-- sql/finetune_data.sql
SET client_min_messages = warning;
CREATE TABLE tickets (id int PRIMARY KEY, owner name, messages jsonb);
INSERT INTO tickets VALUES
	(1, 'finetune_reader', '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'),
	(2, 'somebody', '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Emoji?"},
		{"role": "assistant", "content": "😀 👩‍👩‍👧‍👦"}, {"role": "user", "content": "Again"},
		{"role": "assistant", "content": "日本", "train": false}, {"role": "user", "content": "More"},
		{"role": "assistant", "content": "Enough."}]');

-- tokens, and what of them is learned
SELECT * FROM llm_finetune_preview('SELECT messages FROM tickets ORDER BY id', NULL, 1);
SELECT * FROM llm_finetune_preview_text('SELECT id, messages FROM tickets ORDER BY id');
SELECT trained FROM llm_finetune_preview_text('SELECT messages FROM tickets ORDER BY id', '{"mask_history": true}');
SELECT n_tokens, n_trained FROM llm_finetune_preview_text('SELECT messages FROM tickets ORDER BY id', '{"train_on_prompt": true}');
SELECT rendered FROM llm_finetune_preview_text('SELECT messages FROM tickets ORDER BY id', '{"default_system": "Say \"yes\"."}', 1);
-- the tokens are those that serving sees
SELECT array_agg(token_id ORDER BY token_idx) = llm_tokenize(llm_render(messages::json, '{"add_generation_prompt": false}'),
	'{"add_special_tokens": false}') AS same
FROM tickets, LATERAL llm_finetune_preview(format('SELECT messages FROM tickets WHERE id = %s', id)) GROUP BY id, messages;

-- formats
SELECT row_number, example, rendered, trained FROM llm_finetune_preview_text($$
	VALUES ('[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]'::json) $$,
	'{"columns": {"conversations": "column1"}}');
SELECT trained FROM llm_finetune_preview_text($$
	SELECT '[{"who": "me", "says": "a"}, {"who": "you", "says": "b"}]'::json AS conversations $$,
	'{"tags": {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "you"}}');
SELECT rendered, trained FROM llm_finetune_preview_text($$
	SELECT 'Add'::text AS instruction, '1 2'::varchar AS input, '3' AS output, 'Be exact.' AS system, '[["q", "r"]]'::jsonb AS history $$);
SELECT example, rendered, trained FROM llm_finetune_preview_text($$
	SELECT 'The sky is' AS prompt, ' blue' AS chosen, ' red' AS rejected $$);
SELECT example, rendered, trained FROM llm_finetune_preview_text($$
	SELECT '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'::jsonb AS chosen,
		   '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]'::jsonb AS rejected $$);
SELECT rendered, trained FROM llm_finetune_preview_text($$
	SELECT 'a' AS prompt, ' b' AS completion, true AS label $$, '{"stage": "kto"}');
SELECT rendered, trained FROM llm_finetune_preview_text($$ SELECT 'Once upon a time' AS text $$);
SELECT * FROM llm_finetune_preview_text('SELECT 1 AS a, 2 AS b');
SELECT * FROM llm_finetune_preview_text($$ SELECT '[]'::jsonb AS messages, 'x' AS text $$);
SELECT * FROM llm_finetune_preview_text($$ SELECT 'x' AS chosen $$);
SELECT * FROM llm_finetune_preview_text($$ SELECT 1 AS messages $$, '{"columns": {"messages": "messages"}}');

-- bad rows, all of them
CREATE TABLE bad (id int, name text, messages jsonb);
INSERT INTO bad VALUES
	(10, 'null', NULL), (11, 'no array', '{}'), (12, 'empty', '[]'), (13, 'role', '[{"role": "robot", "content": "x"}]'),
	(14, 'no answer', '[{"role": "user", "content": "x"}]'), (15, 'good', '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]'),
	(16, 'nothing said', '[{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]'),
	(17, 'weight', '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}]'),
	(18, 'template', '[{"role": "tool", "content": "x"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]'),
	(19, 'long', jsonb_build_array(jsonb_build_object('role', 'user', 'content', repeat('word ', 200000)),
								   jsonb_build_object('role', 'assistant', 'content', 'y')));
SELECT row_number, key, severity, left(reason, 120) AS reason FROM llm_finetune_validate('SELECT * FROM bad ORDER BY id');
SELECT row_number, severity, reason FROM llm_finetune_validate('SELECT * FROM bad WHERE id >= 19', '{"overlong": "drop"}');
SELECT row_number, severity, reason FROM llm_finetune_validate('SELECT * FROM bad WHERE id >= 19', '{"overlong": "truncate", "cutoff_len": 100}');
SELECT count(*) FROM llm_finetune_validate('SELECT * FROM bad ORDER BY id', '{"max_samples": 3}');
-- what is JSON, but no conversation: type json keeps what jsonb would refuse
SELECT row_number, severity, left(reason, 100) AS reason FROM llm_finetune_validate($$
	SELECT column1::json AS messages FROM (VALUES
		('[{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "half an emoji"}]'),
		('[{"role": "user", "content": "\u0000"}, {"role": "assistant", "content": "zero"}]'),
		('[{"role": "assistant"}]'), ('[{"role": 1, "content": "x"}]'), ('[[[[[[]]]]]]'), ('"messages"'), ('[null]'),
		('[{"role": "user", "content": {"text": "x"}}, {"role": "assistant", "content": ["y"]}]'),
		(repeat('[', 5000) || repeat(']', 5000)),
		('[{"role": "user", "content": "x"}, {"role": "assistant", "content": "' || repeat('😀', 300000) || '"}]')) v $$);
SELECT count(*) FROM llm_finetune_validate('SELECT messages FROM tickets');
SELECT trained FROM llm_finetune_preview_text('SELECT messages FROM bad WHERE id IN (14, 15) ORDER BY id');

-- a plain text that is too long, in blocks
SELECT row_number, example, rendered, trained, n_tokens, n_trained FROM llm_finetune_preview_text($$
	SELECT 'one two three four five six seven eight' AS text UNION ALL SELECT 'nine' $$, '{"cutoff_len": 6, "overlong": "split"}');
SELECT row_number, example, count(*), array_agg(token_idx ORDER BY token_idx) FILTER (WHERE NOT is_trained) AS not_trained
FROM llm_finetune_preview($$ SELECT 'one two three four five six seven eight' AS text UNION ALL SELECT 'nine' $$,
						  '{"cutoff_len": 6, "overlong": "split"}', 1) GROUP BY row_number, example ORDER BY 1, 2;
SELECT * FROM llm_finetune_validate($$ SELECT repeat('word ', 1000) AS text $$, '{"cutoff_len": 100, "overlong": "split"}');
SELECT * FROM llm_finetune_validate('SELECT messages FROM tickets', '{"overlong": "split"}');
SELECT * FROM llm_evaluate(NULL, $$ SELECT 'Once' AS text $$, '{"overlong": "split"}');

-- queries that are none
SELECT * FROM llm_finetune_validate('SELECT messages FROM nowhere');
SELECT * FROM llm_finetune_validate('SELECT 1; SELECT 2');
SELECT * FROM llm_finetune_validate('');
SELECT * FROM llm_finetune_validate('DELETE FROM tickets');
SELECT * FROM llm_finetune_validate('DELETE FROM tickets RETURNING messages');
SELECT * FROM llm_finetune_validate('SELECT messages, 1 / (id - 2) FROM tickets ORDER BY id');
SELECT count(*) FROM llm_finetune_validate(NULL);
SELECT count(*) FROM llm_finetune_preview('SELECT messages FROM tickets', NULL, NULL);
SELECT * FROM llm_finetune_preview('SELECT messages FROM tickets', NULL, 0);

-- options
SELECT * FROM llm_finetune_validate('SELECT 1', '{"cutof_len": 1}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"cutoff_len": 0}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"overlong": "squeeze"}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"on_bad_row": "ignore"}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"mask_history": true, "train_on_prompt": true}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"val_size": 1.5}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"val_size": 1, "eval_query": "SELECT 1"}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"columns": {"massages": "x"}}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"columns": {"messages": 1}}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"tags": {"robot_tag": "x"}}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"enable_thinking": true, "chat_template_kwargs": {}}');
SELECT * FROM llm_finetune_validate('SELECT 1', '{"chat_template_kwargs": []}');

-- datasets of jobs
CREATE PROCEDURE learn(query text, options jsonb) LANGUAGE plpgsql AS $$
DECLARE job bigint;
BEGIN
	job := llm_finetune('learner', query, '{"max_steps": 1, "lora_rank": 1, "cutoff_len": 64, "activate": false}' || options);
	COMMIT;
	PERFORM llm_finetune_wait(job);
END $$;
CREATE VIEW learned AS SELECT state, n_rows, n_eval_rows, n_skipped_rows, error
	FROM llm.finetune_progress ORDER BY job DESC LIMIT 1;
CALL learn('SELECT id, messages FROM bad WHERE id < 19 ORDER BY id', '{}');
SELECT * FROM learned;
CALL learn('SELECT id, messages FROM bad ORDER BY id', '{"on_bad_row": "skip", "overlong": "drop"}');
SELECT * FROM learned;
CALL learn('SELECT id, messages FROM bad WHERE id < 15 ORDER BY id', '{"on_bad_row": "skip"}');
SELECT * FROM learned;
CALL learn('SELECT id, messages FROM bad WHERE id < 0', '{}');
SELECT * FROM learned;
CALL learn('SELECT messages, 1 / (15 - id) FROM bad WHERE id IN (14, 15) ORDER BY id DESC', '{}');
SELECT * FROM learned;
CALL learn($$ SELECT 'Once upon a time ' || i AS text FROM generate_series(1, 10) i $$, '{"val_size": 0.25}');
SELECT * FROM learned;
CALL learn($$ SELECT 'Once upon a time ' || i AS text FROM generate_series(1, 10) i $$, '{"val_size": 4}');
SELECT * FROM learned;
CALL learn($$ SELECT 'Once upon a time ' || i AS text FROM generate_series(1, 10) i $$, '{"val_size": 10}');
SELECT * FROM learned;
CALL learn($$ SELECT 'Once upon a time ' || i AS text FROM generate_series(1, 10) i $$,
		   '{"eval_query": "SELECT ''And then'' AS text", "max_samples": 7}');
SELECT * FROM learned;
CALL learn($$ SELECT 'Once' AS text $$, '{"eval_query": "SELECT ''a'' AS chosen, ''b'' AS rejected"}');
SELECT * FROM learned;
CALL learn($$ SELECT 'Once' AS text $$, '{"eval_query": "SELECT ''a'' AS text LIMIT 0"}');
SELECT * FROM learned;
-- one row; emoji; a megabyte in blocks, of which a whole row is held out
CALL learn($$ SELECT messages FROM tickets WHERE id = 1 $$, '{}');
SELECT * FROM learned;
CALL learn($$ SELECT messages FROM tickets WHERE id = 2 $$, '{"cutoff_len": 200}');
SELECT * FROM learned;
CALL learn($$ SELECT repeat('word ', 200000) AS text UNION ALL SELECT 'short' $$, '{"overlong": "split"}');
SELECT * FROM learned;
CALL learn($$ SELECT repeat('word ', 300) AS text UNION ALL SELECT 'short' $$, '{"overlong": "split", "val_size": 1}');
SELECT state, least(n_rows, n_eval_rows) AS short, greatest(n_rows, n_eval_rows) AS split, error FROM learned;
SELECT llm_drop_adapter('learner');

-- rights are the caller's, and so is row security
CREATE ROLE finetune_reader;
SELECT llm_grant_model('demo', 'finetune_reader');
SET ROLE finetune_reader;
SELECT * FROM llm_finetune_validate('SELECT messages FROM tickets');
RESET ROLE;
-- a job that lacks a right fails, and leaves nothing; with it, it has the rows that its role may see
ALTER ROLE finetune_reader LOGIN;
GRANT EXECUTE ON FUNCTION llm_finetune TO finetune_reader;
GRANT SELECT ON learned TO finetune_reader;
SET SESSION AUTHORIZATION finetune_reader;
CALL learn('SELECT messages FROM tickets', '{}');
SELECT * FROM learned;
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM llm.adapters WHERE name = 'learner';
GRANT SELECT ON tickets TO finetune_reader;
ALTER TABLE tickets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON tickets USING (owner = current_user);
SET ROLE finetune_reader;
SELECT row_number, trained FROM llm_finetune_preview_text('SELECT messages FROM tickets');
RESET ROLE;
SET SESSION AUTHORIZATION finetune_reader;
CALL learn('SELECT messages FROM tickets', '{}');
SELECT * FROM learned;
SELECT llm_drop_adapter('learner');
RESET SESSION AUTHORIZATION;
DROP VIEW learned;
DROP PROCEDURE learn;
REVOKE ALL ON FUNCTION llm_finetune FROM finetune_reader;
REVOKE ALL ON tickets FROM finetune_reader;
SELECT llm_revoke_model('demo', 'finetune_reader');
DROP ROLE finetune_reader;
DROP TABLE tickets, bad;
